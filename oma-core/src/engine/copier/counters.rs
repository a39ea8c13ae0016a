//! What a run has moved and compared.

use crate::ByteSize;
use crate::engine::explain::{Stage, StageTimes};
use crate::engine::progress::DiskProgress;
use crate::engine::tally::Hashed;

/// What this run has moved of a disk.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::engine) struct Counters {
    pub(in crate::engine) progress: DiskProgress,
    pub(in crate::engine) shared: ByteSize,
    pub(in crate::engine) zero: ByteSize,
    pub(in crate::engine) zero_promised: ByteSize,
    /// Bytes that comparisons hashed.
    pub(in crate::engine) hashed: ByteSize,
    pub(in crate::engine) pieces: u64,
    pub(in crate::engine) stages: StageTimes,
    /// A flush was begun that was not seen to succeed: what it was to make durable may be lost, however later ones end.
    pub(in crate::engine) flush_in_doubt: bool,
}

impl Counters {
    /// How far the disk is, with all that is told of it.
    pub(in crate::engine) const fn told(&self) -> DiskProgress {
        DiskProgress { zero: self.zero, times: self.stages, ..self.progress }
    }

    /// Adds what comparisons hashed, and how long they waited for that.
    pub(in crate::engine) fn count(&mut self, hashed: Hashed) {
        self.hashed += hashed.bytes;
        self.stages.add(Stage::Hash, hashed.time);
        self.stages.add(Stage::Wait, hashed.waited);
    }
}
