//! What a copy has moved, and where its time went.

use std::time::Duration;

use crate::ByteSize;
use crate::engine::progress::DiskProgress;

/// What this run has moved of a disk.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::engine) struct Counters {
    pub(in crate::engine) progress: DiskProgress,
    pub(in crate::engine) zero: ByteSize,
    pub(in crate::engine) zero_promised: ByteSize,
    pub(in crate::engine) pieces: u64,
    pub(in crate::engine) stages: Stages,
}

/// Time that pieces spent in each stage, added up over all that were under way at once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::engine) struct Stages {
    /// Waiting for memory and limits.
    pub(in crate::engine) wait: Duration,
    /// Reading from the source.
    pub(in crate::engine) read: Duration,
    /// Looking for zeroes.
    pub(in crate::engine) scan: Duration,
    /// Writing to the target, zeroes too.
    pub(in crate::engine) write: Duration,
    /// Making the target durable.
    pub(in crate::engine) flush: Duration,
    /// Writing the journal.
    pub(in crate::engine) journal: Duration,
}

impl std::ops::AddAssign for Stages {
    fn add_assign(&mut self, other: Self) {
        self.wait += other.wait;
        self.read += other.read;
        self.scan += other.scan;
        self.write += other.write;
        self.flush += other.flush;
        self.journal += other.journal;
    }
}
