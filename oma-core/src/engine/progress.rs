use std::fmt;

use super::explain::StageTimes;
use crate::record::ReplicationJob;
use crate::state::ReplicationType;
use crate::{ByteSize, DiskKey};

/// How far one disk is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DiskProgress {
    /// Its size.
    pub capacity: ByteSize,
    /// Bytes the epoch has to cover: the disk, or its changed extents.
    pub total: ByteSize,
    /// Bytes covered, by this run or before it.
    pub done: ByteSize,
    /// Bytes covered that are durable at the target and in the journal (L25).
    pub durable: ByteSize,
    /// Bytes read from the source by this run.
    pub read: ByteSize,
    /// Bytes written to the target by this run, zeroes not counted.
    pub written: ByteSize,
    /// Bytes that this run found to be zero, by the source's promise or by looking at them.
    pub zero: ByteSize,
    /// Where the time of this run went.
    pub times: StageTimes,
}

/// What the engine tells while it works.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Event<'a> {
    /// A job was recorded, or taken up again.
    Job {
        /// The job.
        job: &'a ReplicationJob,
        /// Whether it existed before.
        resumed: bool,
    },
    /// A step begins.
    StepBegins(&'static str),
    /// A step has ended well.
    StepEnded(&'static str),
    /// What a disk needs is known.
    Planned {
        /// The disk.
        disk: &'a DiskKey,
        /// Whole disk or changed extents.
        mode: ReplicationType,
        /// Why the whole disk is covered though a change id exists, or what else an operator should know.
        note: Option<&'a str>,
        /// Where it starts.
        progress: DiskProgress,
    },
    /// A comparison of a disk by hashes has begun or moved on, before or after its copy.
    Compared {
        /// The disk.
        disk: &'a DiskKey,
        /// Bytes that are compared; zero once as it begins.
        done: ByteSize,
        /// Bytes that this comparison is about.
        total: ByteSize,
    },
    /// A disk has moved on.
    Copied {
        /// The disk.
        disk: &'a DiskKey,
        /// How far it is.
        progress: DiskProgress,
    },
    /// The journal of a disk has moved on.
    Recorded {
        /// The disk.
        disk: &'a DiskKey,
        /// How far it is.
        progress: DiskProgress,
    },
    /// Something is not as it should be and the job goes on.
    Warning(&'a str),
}

/// Listens to the engine. Called often and inside the copy: it must return at once.
pub trait Progress: fmt::Debug + Send + Sync {
    /// Something happened.
    fn event(&self, event: Event<'_>);
}

/// Listens and says nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Silent;

impl Progress for Silent {
    fn event(&self, _event: Event<'_>) {}
}
