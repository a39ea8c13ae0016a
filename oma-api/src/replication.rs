use oma_core::state::ReplicationType;
use oma_core::{
    ByteSize, ChangeId, DiskKey, Epoch, Error, ErrorKind, JobId, RecoveryPointId, VmPath, VolumeId,
};
use serde::{Deserialize, Serialize};

use crate::Explanation;

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The epoch is committed.
    Completed,
    /// It is not; the next run continues from what is durable.
    Failed,
    /// The run was stopped; the job is alive and the same command continues it.
    Suspended,
}

impl Outcome {
    /// The outcome of a run that ended with an error.
    #[must_use]
    pub fn of(error: &Error) -> Self {
        match error.kind() {
            ErrorKind::Cancelled => Self::Suspended,
            _ => Self::Failed,
        }
    }
}

/// One run of a replication job.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ReplicationReport {
    /// The job.
    pub job_id: JobId,
    /// The VM.
    pub vm_path: VmPath,
    /// How the run ended.
    pub status: Outcome,
    /// The epoch that the job produces.
    pub epoch: Epoch,
    /// `incremental` when no disk was copied in full.
    pub replication_type: ReplicationType,
    /// How long the run took.
    pub seconds: f64,
    /// Why it did not end well, in one sentence.
    pub error: Option<String>,
    /// The recovery point of the epoch, when one was asked for and made.
    pub recovery_point: Option<RecoveryPointId>,
    /// What is left behind or an operator should know.
    pub warnings: Vec<String>,
    /// Its disks, by key.
    pub disks: Vec<DiskReport>,
}

/// What one run did with one disk. Counts are of this run, but for `bytes_resumed` and `bytes_recopied`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DiskReport {
    /// The disk.
    pub disk_key: DiskKey,
    /// Its volume; `None` when the run ended before it had one.
    pub volume_id: Option<VolumeId>,
    /// Whether it was copied in full or by its changes.
    pub mode: ReplicationType,
    /// Its size at the source.
    pub capacity_bytes: ByteSize,
    /// Bytes read from the source.
    pub bytes_read: ByteSize,
    /// Bytes of data written to the volume, zeroes not counted.
    pub bytes_written: ByteSize,
    /// Bytes whose blocks the target shares with the source (reflink), so that nothing was read.
    pub bytes_shared: ByteSize,
    /// Bytes that are zero at the source, by its promise or by looking at them.
    pub bytes_zero: ByteSize,
    /// Bytes that were not read: unchanged, or zero by the source's promise.
    pub bytes_skipped: ByteSize,
    /// Of these, bytes that did not change since the last epoch, as the source says.
    #[serde(default)]
    pub bytes_unchanged: ByteSize,
    /// Bytes that earlier runs of this epoch had made durable.
    pub bytes_resumed: ByteSize,
    /// At most so many bytes were copied more than once by the runs of this epoch, all of them taken together.
    pub bytes_recopied: ByteSize,
    /// Bytes that are equal at both ends by their hashes, compared in place of copying.
    pub bytes_equal: ByteSize,
    /// Bytes compared by their hashes, before the copy and after it: once though both ends hash them, and none that is only promised
    /// to be zero.
    #[serde(default)]
    pub bytes_hashed: ByteSize,
    /// Bytes that were read back and compared after the copy, with those that are only promised; `None` when nothing was to be verified.
    pub bytes_verified: Option<ByteSize>,
    /// Of these, bytes that both sides promise to be zero: nobody read them.
    pub bytes_promised_zero: Option<ByteSize>,
    /// The change id committed with the epoch; `None` unless it was.
    pub change_id: Option<ChangeId>,
    /// How long the copy took.
    pub seconds: f64,
    /// Where the time went, of the copy and of comparisons before and after it.
    pub explanation: Explanation,
    /// Why it failed, in one sentence.
    pub error: Option<String>,
}
