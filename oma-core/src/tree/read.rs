use bytes::BytesMut;

use super::{LEAF, LeafHash};
use crate::traits::{BlockDevice, HashedLeaves, ReadFrom, ReadManner};
use crate::{Error, ErrorKind, Extent, Result, page_aligned};

/// One call hashes no more data: it ends early then. Holes are not counted.
pub const AT_ONCE: u64 = 16 << 20;
/// Bytes of one read: they are still in the processor's cache when they are hashed.
pub(crate) const READ: u64 = 256 << 10;

/// Neighbouring leaves that have one hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeafRun {
    /// Its pieces that end at multiples of [`LEAF`], or with it, are the leaves.
    pub extent: Extent,
    /// The hash of each.
    pub hash: LeafHash,
}

impl LeafRun {
    /// How many leaves it has.
    #[must_use]
    pub const fn leaves(&self) -> u64 {
        self.extent.end().div_ceil(LEAF) - self.extent.offset() / LEAF
    }
}

/// Appends the hashes of the leaves of an extent, whose bytes these are.
///
/// # Panics
/// When there are not as many bytes as the extent has.
pub fn push_hashes(extent: Extent, mut bytes: &[u8], runs: &mut Vec<LeafRun>) {
    for piece in extent.pieces(LEAF) {
        let length = usize::try_from(piece.length()).expect("a leaf fits memory");
        let leaf;
        (leaf, bytes) = bytes.split_at(length);
        push_run(LeafRun { extent: piece, hash: LeafHash::of_leaf(leaf) }, runs);
    }
    assert!(bytes.is_empty(), "more bytes than the extent {extent} has");
}

/// The leaves at the start of an extent that are zero when all bytes up to `end` are; `None` when not one is.
///
/// ```
/// use oma_core::Extent;
/// use oma_core::tree::zero_run;
///
/// let disk = Extent::new(0, 200_000)?;
/// assert_eq!(zero_run(disk, 150_000).map(|run| run.leaves()), Some(2));
/// assert!(zero_run(disk, 65_535).is_none());
/// # Ok::<(), oma_core::ExtentError>(())
/// ```
#[must_use]
pub fn zero_run(extent: Extent, end: u64) -> Option<LeafRun> {
    let first = extent.pieces(LEAF).next()?;
    let last = end.min(extent.end()) / LEAF * LEAF;
    let is_whole = first.offset().is_multiple_of(LEAF) && last > first.offset();
    if is_whole {
        return Some(LeafRun {
            extent: Extent::between(first.offset(), last)?,
            hash: LeafHash::of_zeroes(LEAF),
        });
    }
    (end >= first.end()).then(|| LeafRun { extent: first, hash: LeafHash::of_zeroes(first.length()) })
}

/// Appends a run; whole leaves join those before them that have the same hash.
pub fn push_run(run: LeafRun, runs: &mut Vec<LeafRun>) {
    let whole = |extent: Extent| extent.offset().is_multiple_of(LEAF) && extent.end().is_multiple_of(LEAF);
    match runs.last_mut() {
        Some(last) if last.hash == run.hash && whole(last.extent) && whole(run.extent) => {
            last.extent = Extent::between(last.extent.offset(), run.extent.end()).unwrap_or(run.extent);
        }
        _ => runs.push(run),
    }
}

/// The hashes of the leaves of an extent of any device: its own answer, or else they are made of what is read from it.
///
/// As [`LeafHasher::leaf_hashes`](crate::traits::LeafHasher::leaf_hashes): it may end early, at a leaf's end; ask again from
/// there.
///
/// # Errors
/// As a read; `Corrupt` when the device answers for other leaves than it was asked for.
pub async fn leaf_hashes(device: &dyn BlockDevice, extent: Extent, from: ReadFrom) -> Result<HashedLeaves> {
    let Some(hasher) = device.leaf_hasher() else { return read_leaf_hashes(device, extent).await };
    let found = hasher.leaf_hashes(extent, from).await?;
    let mut at = extent.offset();
    let mut in_order = !found.runs.is_empty();
    for run in &found.runs {
        in_order &= run.extent.offset() == at && run.extent.end() <= extent.end();
        at = run.extent.end();
    }
    if in_order && (at == extent.end() || at.is_multiple_of(LEAF)) {
        return Ok(found);
    }
    Err(Error::new(ErrorKind::Corrupt, "hash", &device.info().identity)
        .because(format!("it was asked for the hashes of {extent} and answered for others")))
}

/// As [`leaf_hashes`], made here of every byte that is read: for a device whose own word on what is zero is not believed.
///
/// # Errors
/// As a read.
pub async fn read_leaf_hashes(device: &dyn BlockDevice, extent: Extent) -> Result<HashedLeaves> {
    let longest = u64::from(device.info().block_sizes.maximum).clamp(1, READ);
    let mut runs = Vec::new();
    let mut buffer = BytesMut::new();
    let end = (extent.offset() / LEAF * LEAF).saturating_add(AT_ONCE).min(extent.end());
    for window in Extent::between(extent.offset(), end).into_iter().flat_map(|part| part.pieces(READ)) {
        let length = usize::try_from(window.length()).expect("a piece fits memory");
        if buffer.len() != length {
            buffer = page_aligned(length);
        }
        let mut whole = BytesMut::new();
        for piece in window.pieces(longest) {
            let length = usize::try_from(piece.length()).expect("a piece fits memory");
            let part = device.read_at(piece.offset(), buffer.split_to(length)).await?;
            if part.len() != length {
                return Err(Error::new(ErrorKind::Corrupt, "read", &device.info().identity)
                    .because("it answered another number of bytes"));
            }
            whole.unsplit(part);
        }
        push_hashes(window, &whole, &mut runs);
        buffer = whole;
    }
    Ok(HashedLeaves { runs, manner: ReadManner::ThroughCache })
}
