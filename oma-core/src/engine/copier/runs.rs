//! Where the zeroes of a piece are: every byte is looked at (L10).

use crate::{ByteSize, Extent};

/// Consecutive bytes that are all zero or all to be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Run {
    pub(super) extent: Extent,
    pub(super) is_zero: bool,
}

/// The runs of an extent with this content: zero where a whole aligned granule is.
pub(super) fn runs(data: &[u8], extent: Extent, granule: ByteSize) -> Vec<Run> {
    let mut runs: Vec<Run> = Vec::new();
    for part in extent.pieces(granule.bytes().max(1)) {
        let from = index(part.offset() - extent.offset());
        let is_zero = all_zero(&data[from..from + index(part.length())]);
        match runs.last_mut().filter(|last| last.is_zero == is_zero) {
            Some(last) => {
                last.extent = Extent::between(last.extent.offset(), part.end()).expect("it has grown");
            }
            None => runs.push(Run { extent: part, is_zero }),
        }
    }
    runs
}

/// Whether every byte is zero. The inner loop has no exit, so that it runs on vectors.
fn all_zero(data: &[u8]) -> bool {
    data.chunks(512).all(|chunk| chunk.iter().fold(0, |all, byte| all | byte) == 0)
}

pub(super) fn index(length: u64) -> usize {
    usize::try_from(length).expect("a piece fits memory")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn l10_runs_cover_a_piece_and_no_byte_that_differs_from_zero_lies_in_a_zero_run(
            offset in 0u64..100,
            data in prop::collection::vec(prop_oneof![9 => Just(0u8), 1 => any::<u8>()], 1..200),
            granule in 1u64..40,
        ) {
            let extent = Extent::new(offset, u64::try_from(data.len()).unwrap()).unwrap();
            let runs = runs(&data, extent, ByteSize::new(granule));
            prop_assert_eq!(runs[0].extent.offset(), extent.offset());
            prop_assert_eq!(runs[runs.len() - 1].extent.end(), extent.end());
            prop_assert!(runs.windows(2).all(|w| w[0].extent.end() == w[1].extent.offset() && w[0].is_zero != w[1].is_zero));
            for run in runs.iter().filter(|run| run.is_zero) {
                let from = index(run.extent.offset() - offset);
                prop_assert!(data[from..from + index(run.extent.length())].iter().all(|byte| *byte == 0));
            }
        }

        #[test]
        fn one_byte_anywhere_is_found(length in 1usize..2000, at in any::<prop::sample::Index>()) {
            let mut data = vec![0; length];
            prop_assert!(all_zero(&data));
            data[at.index(length)] = 1;
            prop_assert!(!all_zero(&data));
        }
    }
}
