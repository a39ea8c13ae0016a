//! How `x-oma:blake3` tells the hash of a leaf by block status, which has 64 bits for each extent.
//!
//! ```text
//!  leaf of 64 KiB   ├──── 16 KiB ────┼──── 16 KiB ────┼──── 16 KiB ────┼──── 16 KiB ────┤
//!  its flags            hash[0..8]       hash[8..16]      hash[16..24]     hash[24..32]       each with its highest byte first
//!  leaf of zeroes   ├──────────────────────────── 0 ────────────────────────────────────┤    however many in a row
//! ```
//!
//! A leaf that the request or the end of the disk cuts has quarters of whole smallest blocks, the last one the longest; one of
//! fewer than four blocks is not told: read it. An answer may end early, within a leaf too; ask again from the leaf's start.

use oma_core::Extent;
use oma_core::tree::LEAF;

/// No hash is told of exports with larger smallest blocks: a leaf has four of them at least.
pub(crate) const LARGEST_BLOCK: u32 = 16 << 10;

/// The parts of a leaf that bear the four quarters of its hash; `None` for one that is too short.
pub(crate) fn quarters(leaf: Extent, block: u32) -> Option<[Extent; 4]> {
    let block = u64::from(block.max(1));
    let length = leaf.length() / 4 / block * block;
    let at = |quarter: u64| leaf.offset() + quarter * length;
    let [first, second, third] = [0, 1, 2].map(|quarter| Extent::between(at(quarter), at(quarter + 1)));
    Some([first?, second?, third?, Extent::between(at(3), leaf.end())?])
}

/// The part of an extent before a last leaf that is too short; `None` when that is the first.
pub(crate) fn told(extent: Extent, block: u32) -> Option<Extent> {
    let first = extent.pieces(LEAF).next()?;
    quarters(first, block)?;
    let start = extent.end().next_multiple_of(LEAF).checked_sub(LEAF)?.max(extent.offset());
    match Extent::between(start, extent.end()).and_then(|last| quarters(last, block)) {
        Some(_) => Some(extent),
        None => Extent::between(extent.offset(), start),
    }
}

/// The quarters of a hash.
#[cfg(feature = "server")]
pub(crate) fn words(hash: [u8; 32]) -> [u64; 4] {
    let word = |at: usize| {
        let bytes = hash[at * 8..at * 8 + 8].iter();
        bytes.fold(0, |word, byte| word << 8 | u64::from(*byte))
    };
    [0, 1, 2, 3].map(word)
}

/// The hash with these quarters.
#[cfg(feature = "client")]
pub(crate) fn hash(words: [u64; 4]) -> [u8; 32] {
    let mut hash = [0; 32];
    for (place, word) in hash.chunks_exact_mut(8).zip(words) {
        place.copy_from_slice(&word.to_be_bytes());
    }
    hash
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn extent(offset: u64, length: u64) -> Extent {
        Extent::new(offset, length).unwrap()
    }

    #[test]
    fn a_whole_leaf_has_quarters_of_16_kib() {
        let found = quarters(extent(LEAF, LEAF), 512).unwrap();
        assert_eq!(found.map(Extent::offset), [LEAF, LEAF + 16384, LEAF + 32768, LEAF + 49152]);
        assert!(found.iter().all(|quarter| quarter.length() == 16384));
        assert!(quarters(extent(0, LEAF), LARGEST_BLOCK).is_some());
        assert_eq!(quarters(extent(0, 3 * 512), 512), None);
        assert_eq!(quarters(extent(0, 7 * 512), 512).unwrap()[3], extent(3 * 512, 4 * 512));
    }

    #[test]
    fn what_is_too_short_at_the_end_is_left_out() {
        assert_eq!(told(extent(0, 2 * LEAF + 512), 512), Some(extent(0, 2 * LEAF)));
        assert_eq!(told(extent(0, 2 * LEAF + 2048), 512), Some(extent(0, 2 * LEAF + 2048)));
        assert_eq!(told(extent(LEAF - 512, LEAF), 512), None);
        assert_eq!(told(extent(512, 512), 512), None);
    }

    proptest! {
        #[test]
        fn quarters_share_a_leaf_out_in_whole_blocks(blocks in 1u64..400, at in 0u64..1000) {
            let leaf = extent(at * 512, blocks * 512);
            match quarters(leaf, 512) {
                None => prop_assert!(blocks < 4),
                Some(found) => {
                    prop_assert_eq!((found[0].offset(), found[3].end()), (leaf.offset(), leaf.end()));
                    prop_assert!(found.windows(2).all(|pair| pair[0].end() == pair[1].offset()));
                    prop_assert!(found.iter().all(|quarter| quarter.offset() % 512 == 0));
                }
            }
        }
    }

    #[cfg(all(feature = "client", feature = "server"))]
    proptest! {
        #[test]
        fn a_hash_comes_back_from_its_quarters(bytes in any::<[u8; 32]>()) {
            prop_assert_eq!(hash(words(bytes)), bytes);
        }
    }
}
