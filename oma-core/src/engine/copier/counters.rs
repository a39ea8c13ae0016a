//! What a copy has moved.

use crate::ByteSize;
use crate::engine::explain::StageTimes;
use crate::engine::progress::DiskProgress;

/// What this run has moved of a disk.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::engine) struct Counters {
    pub(in crate::engine) progress: DiskProgress,
    pub(in crate::engine) shared: ByteSize,
    pub(in crate::engine) zero: ByteSize,
    pub(in crate::engine) zero_promised: ByteSize,
    pub(in crate::engine) pieces: u64,
    pub(in crate::engine) stages: StageTimes,
    /// A flush was begun that was not seen to succeed: what it was to make durable may be lost, however later ones end.
    pub(in crate::engine) flush_in_doubt: bool,
}
