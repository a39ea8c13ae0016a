use std::time::Duration;

use super::volume::ContentStamp;
use crate::state::ReplicationType;
use crate::{
    ByteSize, ChangeId, ContextId, DiskKey, DiskRef, Endpoint, Epoch, Generation, JobId, Timestamp, VolumeId,
};

/// The change id of a disk's last committed epoch, with all that it is bound to (L09).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommittedChange {
    /// The disk.
    pub disk: DiskRef,
    /// The change id.
    pub change_id: ChangeId,
    /// The volume's generation when it was committed.
    pub generation: Generation,
    /// The source it came from.
    pub endpoint: Endpoint,
    /// The epoch.
    pub epoch: Epoch,
    /// The size of the disk then; `None` when a program committed it that did not record sizes.
    pub capacity: Option<ByteSize>,
}

/// A job begins to bring one disk to a change id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskAttempt {
    /// The disk.
    pub key: DiskKey,
    /// The change id of the source's point in time.
    pub change_id: ChangeId,
    /// The change id that it starts from; `None` for a full copy.
    pub previous: Option<ChangeId>,
    /// Full or changed blocks.
    pub sync_type: ReplicationType,
}

/// All disks of a job at one epoch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EpochCommit {
    /// The VM.
    pub context: ContextId,
    /// The new epoch: the VM's last one plus one.
    pub epoch: Epoch,
    /// Every disk of the job, none missing, none added.
    pub disks: Vec<DiskCommit>,
}

/// One disk of an epoch: written, flushed and, if asked for, verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskCommit {
    /// The disk.
    pub key: DiskKey,
    /// The volume that was written.
    pub volume: VolumeId,
    /// Its generation when the job opened it.
    pub generation: Generation,
    /// The change id of the source's point in time.
    pub change_id: ChangeId,
    /// The size of the disk at that point in time.
    pub capacity: ByteSize,
    /// What the volume's content looks like from outside after the flush, if the backend can tell.
    pub stamp: Option<ContentStamp>,
    /// Extents that were copied.
    pub extents: u64,
    /// Bytes that were written, by all runs that the epoch took; of those before the last one, zeroes too.
    pub bytes_transferred: ByteSize,
    /// How long the copy took.
    pub duration: Duration,
}

/// One attempt, or success, of bringing a disk to a change id (`cbt_history`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CbtRecord {
    /// The job.
    pub job: JobId,
    /// The disk.
    pub disk: DiskRef,
    /// The change id aimed at.
    pub change_id: ChangeId,
    /// The change id started from.
    pub previous: Option<ChangeId>,
    /// Full or changed blocks.
    pub sync_type: ReplicationType,
    /// Extents copied; 0 until success.
    pub extents: u64,
    /// Bytes written; 0 until success.
    pub bytes_transferred: ByteSize,
    /// Whether the epoch was committed.
    pub success: bool,
    /// When the attempt began.
    pub created_at: Timestamp,
}
