//! Leaves chosen at random.

use std::collections::BTreeSet;

use crate::record::SampleSize;
use crate::tree::LEAF;
use crate::{ByteSize, Extent, ExtentSet};

/// Numbers from a seed: SplitMix64.
struct Numbers(u64);

impl Iterator for Numbers {
    type Item = u64;

    fn next(&mut self) -> Option<u64> {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        Some(mixed ^ (mixed >> 31))
    }
}

/// A seed that nobody can foresee; 53 bits, so that every reader of JSON keeps it.
pub(in crate::engine) fn fresh_seed() -> u64 {
    let (high, low) = uuid::Uuid::new_v4().as_u64_pair();
    (high ^ low) & ((1 << 53) - 1)
}

/// The leaves of a disk of this capacity that a seed chooses: those whose numbers are the first different values of
/// SplitMix64 modulo the number of leaves. Of more than half, those that it does not choose.
pub(in crate::engine) fn leaves(size: SampleSize, seed: u64, capacity: ByteSize) -> ExtentSet {
    let all = capacity.bytes().div_ceil(LEAF);
    let wanted = match size {
        SampleSize::Leaves(count) => count.min(all),
        SampleSize::Permille(permille) => {
            let exact = (u128::from(all) * u128::from(permille.min(1000))).div_ceil(1000);
            u64::try_from(exact).unwrap_or(all)
        }
    };
    let whole: ExtentSet = Extent::between(0, capacity.bytes()).into_iter().collect();
    let few = wanted.min(all - wanted);
    // In a set of numbers first: to put extents into the middle of a set of extents moves all behind them.
    let mut numbers = Numbers(seed);
    let mut leaves = BTreeSet::new();
    while u64::try_from(leaves.len()).unwrap_or(u64::MAX) < few {
        leaves.extend(numbers.next().map(|number| number % all));
    }
    let extent = |leaf: u64| Extent::between(leaf * LEAF, ((leaf + 1) * LEAF).min(capacity.bytes()));
    let chosen: ExtentSet = leaves.into_iter().filter_map(extent).collect();
    if few == wanted { chosen } else { whole.difference(&chosen) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_choice_is_fixed_by_its_seed() {
        let chosen = |seed| leaves(SampleSize::Leaves(3), seed, ByteSize::gib(64));
        let numbers: Vec<_> = chosen(0).iter().map(|extent| extent.offset() / LEAF).collect();
        // SplitMix64 from 0: e220a8397b1dcdaf, 6e789e6aa1b965f4, 06c45d188009454f.
        assert_eq!(numbers, [0x0009_454f, 0x9_65f4, 0xd_cdaf]);
        assert_ne!(chosen(1), chosen(0));
        assert!(fresh_seed() < 1 << 53 && fresh_seed() != fresh_seed());
    }

    proptest! {
        #[test]
        fn as_many_whole_leaves_are_chosen_as_were_asked_for(
            all in 1u64..400, short in 0u64..LEAF, seed in any::<u64>(), permille in 0u16..1100, count in 0u64..500,
        ) {
            let capacity = ByteSize::new(all * LEAF - short);
            for (size, wanted) in [
                (SampleSize::Leaves(count), count.min(all)),
                (SampleSize::Permille(permille), (all * u64::from(permille.min(1000))).div_ceil(1000)),
            ] {
                let chosen = leaves(size, seed, capacity);
                let pieces: Vec<_> = chosen.iter().flat_map(|extent| extent.pieces(LEAF)).collect();
                prop_assert_eq!(u64::try_from(pieces.len()).unwrap(), wanted);
                let whole = |piece: &Extent| {
                    piece.offset().is_multiple_of(LEAF) && (piece.length() == LEAF || piece.end() == capacity.bytes())
                };
                prop_assert!(pieces.iter().all(whole));
            }
        }
    }
}
