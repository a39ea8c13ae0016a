//! Hash trees of disks: what two ends compare in place of bytes.
//!
//! ```text
//!                 root = H(ROOT, leaf size ‖ capacity ‖ top)
//!                               top
//!                     ┌──────────┴────────┐
//!                  parent                 │        an odd one goes up as it is
//!              ┌──────┴──────┐            │
//!           parent        parent          │
//!           ┌──┴──┐       ┌──┴──┐         │
//!         leaf  leaf    leaf  leaf      leaf       64 KiB each, the last one may be shorter
//! ```
//!
//! * A leaf is BLAKE3 of the leaf's bytes.
//! * A parent is BLAKE3 in its mode of key derivation, with the context [`PARENT_CONTEXT`], of the left and the right hash.
//! * The root is the same with the context [`ROOT_CONTEXT`], of leaf size and capacity, eight bytes each, the lowest first, and
//!   the top. So no inner hash is a leaf's or a root, and disks of different sizes have different roots.
//! * A leaf of zeroes has a hash that is known beforehand, so holes cost nothing.

mod builder;
mod hash;
mod read;

pub use builder::TreeBuilder;
pub use hash::{HashError, LeafHash, TreeRoot};
#[cfg(feature = "engine")]
pub(crate) use read::READ;
pub use read::{AT_ONCE, LeafRun, leaf_hashes, push_hashes, push_run, read_leaf_hashes, zero_run};

/// Bytes of a leaf. 4 KiB would make hashes a hundredth of the data, and 1 MiB would have a single differing sector cost a
/// mebibyte on the link; 64 KiB is what change tracking of most sources works with.
pub const LEAF: u64 = 64 << 10;
/// The context of a parent's hash.
pub const PARENT_CONTEXT: &str = "oma hash tree 1: parent";
/// The context of a root's hash.
pub const ROOT_CONTEXT: &str = "oma hash tree 1: root";
