//! Moves one piece: reads it, looks at every byte, writes what is not zero.

use std::sync::{Mutex, PoisonError};

use bytes::{Bytes, BytesMut};

use super::Copier;
use super::pieces::Piece;
use crate::engine::replicate::disk::Counters;
use crate::engine::retry::retry;
use crate::traits::Durability;
use crate::{ByteSize, Extent, Result, page_aligned};

/// What became of a piece.
#[derive(Clone, Copy, Debug)]
pub(super) struct Moved {
    pub(super) extent: Extent,
    read: u64,
    written: u64,
    promised_zero: u64,
}

impl Moved {
    /// Adds it up.
    pub(super) fn count(&self, counters: &mut Counters) {
        counters.pieces += 1;
        counters.progress.done += ByteSize::new(self.extent.length());
        counters.progress.read += ByteSize::new(self.read);
        counters.progress.written += ByteSize::new(self.written);
        counters.zero += ByteSize::new(self.extent.length() - self.written);
        counters.zero_promised += ByteSize::new(self.promised_zero);
    }
}

/// Moves pieces of one disk; keeps buffers for the next ones, because a fresh one costs a page fault per 4 KiB.
#[derive(Debug)]
pub(super) struct Mover<'m> {
    copier: &'m Copier<'m>,
    buffers: Mutex<Vec<BytesMut>>,
}

impl<'m> Mover<'m> {
    pub(super) const fn new(copier: &'m Copier<'m>) -> Self {
        Self { copier, buffers: Mutex::new(Vec::new()) }
    }

    pub(super) async fn carry(&self, piece: Piece) -> Result<Moved> {
        let extent = piece.extent;
        if piece.reads_zero {
            self.zero(extent).await?;
            return Ok(Moved { extent, read: 0, written: 0, promised_zero: extent.length() });
        }
        let data = self.read(extent).await?.freeze();
        let mut written = 0;
        for run in runs(&data, extent, self.copier.config.zero_granule) {
            if run.is_zero {
                self.zero(run.extent).await?;
            } else {
                let from = index(run.extent.offset() - extent.offset());
                self.write(run.extent, data.slice(from..from + index(run.extent.length()))).await?;
                written += run.extent.length();
            }
        }
        self.give_back(data);
        Ok(Moved { extent, read: extent.length(), written, promised_zero: 0 })
    }

    async fn read(&self, extent: Extent) -> Result<BytesMut> {
        let call = || self.copier.source.read_at(extent.offset(), self.buffer(index(extent.length())));
        retry(&self.copier.config.retry, self.copier.stop, call).await
    }

    async fn write(&self, extent: Extent, data: Bytes) -> Result<()> {
        let call = || self.copier.target.write_at(extent.offset(), data.clone(), Durability::Cached);
        retry(&self.copier.config.retry, self.copier.stop, call).await
    }

    /// Makes an extent of the target read as zero, unless it does already.
    async fn zero(&self, extent: Extent) -> Result<()> {
        if self.copier.plan.blank {
            return Ok(());
        }
        let call = || self.copier.target.write_zeroes(extent, self.copier.zeroing, Durability::Cached);
        retry(&self.copier.config.retry, self.copier.stop, call).await
    }

    fn buffer(&self, length: usize) -> BytesMut {
        let kept = self.buffers.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let Some(mut buffer) = kept.filter(|buffer| buffer.capacity() >= length) else {
            return page_aligned(length);
        };
        buffer.resize(length, 0);
        buffer
    }

    fn give_back(&self, data: Bytes) {
        if let Ok(buffer) = data.try_into_mut() {
            self.buffers.lock().unwrap_or_else(PoisonError::into_inner).push(buffer);
        }
    }
}

/// Consecutive bytes that are all zero or all to be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Run {
    extent: Extent,
    is_zero: bool,
}

/// The runs of a piece: zero where a whole aligned granule is.
fn runs(data: &[u8], extent: Extent, granule: ByteSize) -> Vec<Run> {
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

/// Whether every byte is zero (L10). The inner loop has no exit, so that it runs on vectors.
fn all_zero(data: &[u8]) -> bool {
    data.chunks(512).all(|chunk| chunk.iter().fold(0, |all, byte| all | byte) == 0)
}

fn index(length: u64) -> usize {
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
