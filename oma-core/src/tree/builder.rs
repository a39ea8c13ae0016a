use std::sync::LazyLock;

use super::{LEAF, LeafHash, PARENT_CONTEXT, ROOT_CONTEXT, TreeRoot};
use crate::ByteSize;

static PARENT: LazyLock<blake3::Hasher> = LazyLock::new(|| blake3::Hasher::new_derive_key(PARENT_CONTEXT));
static ROOT: LazyLock<blake3::Hasher> = LazyLock::new(|| blake3::Hasher::new_derive_key(ROOT_CONTEXT));

/// Makes the root of a tree of its leaves, which come in order. It holds as many hashes as the tree is high.
///
/// ```
/// use oma_core::tree::{LeafHash, TreeBuilder};
/// use oma_core::ByteSize;
///
/// let mut tree = TreeBuilder::default();
/// tree.push(LeafHash::of(&[1; 64 << 10]));
/// tree.push_many(LeafHash::of_zeroes(64 << 10), 15); // a hole of 15 leaves
/// let root = tree.root(ByteSize::mib(1));
/// assert_eq!(root.to_string().len(), 64);
/// ```
#[derive(Clone, Debug, Default)]
pub struct TreeBuilder {
    /// Hashes of whole subtrees, each with its height, from left to right and ever lower.
    done: Vec<(u32, [u8; 32])>,
    leaves: u64,
}

impl TreeBuilder {
    /// Adds the next leaf.
    pub fn push(&mut self, leaf: LeafHash) {
        self.add(0, leaf.0);
    }

    /// Adds equal leaves: as much work as there are digits in their number.
    pub fn push_many(&mut self, leaf: LeafHash, count: u64) {
        let mut subtrees = vec![leaf.0];
        let mut left = count;
        while left > 0 {
            // The highest subtree that fits and begins where one of its height does.
            let height = self.leaves.trailing_zeros().min(left.ilog2());
            let index = usize::try_from(height).expect("a tree is not as high as that");
            while subtrees.len() <= index {
                let below = subtrees[subtrees.len() - 1];
                subtrees.push(parent(&below, &below));
            }
            self.add(height, subtrees[index]);
            left -= 1 << height;
        }
    }

    fn add(&mut self, mut height: u32, mut hash: [u8; 32]) {
        self.leaves += 1 << height;
        while let Some((_, left)) = self.done.pop_if(|(last, _)| *last == height) {
            hash = parent(&left, &hash);
            height += 1;
        }
        self.done.push((height, hash));
    }

    /// How many leaves were added.
    #[must_use]
    pub const fn leaves(&self) -> u64 {
        self.leaves
    }

    /// The root of a disk of this capacity, when all its leaves were added.
    #[must_use]
    pub fn root(mut self, capacity: ByteSize) -> TreeRoot {
        let mut top = self.done.pop().map_or([0; 32], |(_, hash)| hash);
        while let Some((_, left)) = self.done.pop() {
            top = parent(&left, &top);
        }
        let mut hasher = ROOT.clone();
        hasher.update(&LEAF.to_le_bytes()).update(&capacity.bytes().to_le_bytes()).update(&top);
        TreeRoot(*hasher.finalize().as_bytes())
    }
}

fn parent(left: &[u8; 32], right: &[u8; 32]) -> [u8; 32] {
    *PARENT.clone().update(left).update(right).finalize().as_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The tree as it is drawn: level by level.
    fn drawn(leaves: &[LeafHash], capacity: ByteSize) -> TreeRoot {
        let mut level: Vec<[u8; 32]> = leaves.iter().map(|leaf| leaf.0).collect();
        while level.len() > 1 {
            let up = |pair: &[[u8; 32]]| if let [left, right] = pair { parent(left, right) } else { pair[0] };
            level = level.chunks(2).map(up).collect();
        }
        let mut bytes = [LEAF.to_le_bytes(), capacity.bytes().to_le_bytes()].concat();
        bytes.extend(level.first().unwrap_or(&[0; 32]));
        TreeRoot(blake3::derive_key(ROOT_CONTEXT, &bytes))
    }

    proptest! {
        #[test]
        fn the_root_is_that_of_the_tree_drawn_level_by_level(runs in prop::collection::vec((0u8..3, 1u64..40), 0..12)) {
            let (mut one_by_one, mut in_runs, mut all) = (TreeBuilder::default(), TreeBuilder::default(), Vec::new());
            for (byte, count) in runs {
                let leaf = LeafHash::of(&[byte]);
                in_runs.push_many(leaf, count);
                for _ in 0..count {
                    one_by_one.push(leaf);
                    all.push(leaf);
                }
            }
            let capacity = ByteSize::new(u64::try_from(all.len()).unwrap() * LEAF);
            prop_assert_eq!(in_runs.leaves(), one_by_one.leaves());
            prop_assert_eq!(in_runs.root(capacity), drawn(&all, capacity));
            prop_assert_eq!(one_by_one.root(capacity), drawn(&all, capacity));
        }
    }

    #[test]
    fn order_size_and_depth_make_another_root() {
        let [a, b] = [b"a", b"b"].map(|bytes| LeafHash::of(bytes));
        let root = |leaves: &[LeafHash], capacity: u64| {
            let mut tree = TreeBuilder::default();
            leaves.iter().for_each(|leaf| tree.push(*leaf));
            tree.root(ByteSize::new(capacity))
        };
        let both = root(&[a, b], 2 * LEAF);
        assert_ne!(both, root(&[b, a], 2 * LEAF));
        assert_ne!(both, root(&[a, b], 2 * LEAF - 1));
        assert_ne!(both, root(&[LeafHash(parent(&a.0, &b.0))], 2 * LEAF - 1));
    }

    #[test]
    fn a_hole_of_an_exbibyte_takes_no_time() {
        let mut tree = TreeBuilder::default();
        tree.push_many(LeafHash::of_zeroes(LEAF), 1 << 44);
        assert_eq!((tree.leaves(), tree.done.len()), (1 << 44, 1));
    }
}
