use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{ByteSize, DiskKey, Timestamp};

/// How far a job is, as whoever drives it told last. Kept with the job, so that a restart does not lose it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobProgress {
    /// The step that is under way; `None` between two runs.
    pub step: Option<String>,
    /// When it was told.
    pub at: Timestamp,
    /// Its disks, by key, as far as they are planned.
    pub disks: Vec<DiskAdvance>,
}

/// How far a disk of a job is. Rates are of durable bytes at the target (L25).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskAdvance {
    /// Which disk.
    pub key: DiskKey,
    /// Bytes that the epoch has to cover: the disk, or its changed extents.
    pub total: ByteSize,
    /// Bytes of them that are covered.
    pub done: ByteSize,
    /// Bytes of them that are covered, durable at the target and in the journal.
    pub durable: ByteSize,
    /// Bytes that this run read from the source.
    pub read: ByteSize,
    /// Bytes that this run wrote to the target, zeroes not counted.
    pub written: ByteSize,
    /// Bytes that this run found to be zero.
    pub zero: ByteSize,
    /// Bytes of the disk that are not looked at, because the source says that they did not change.
    pub unchanged: ByteSize,
    /// Bytes per second of late; `None` before there are two moments to compare.
    pub rate: Option<ByteSize>,
    /// Bytes per second since this run began to copy the disk.
    pub mean_rate: Option<ByteSize>,
    /// How long the rest takes if it goes on as of late.
    pub remaining: Option<Duration>,
    /// The stage where most time was spent, by its name (`read`, `write`, `hash` and so on).
    pub bottleneck: Option<String>,
}
