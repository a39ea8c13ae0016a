use std::time::Duration;

use super::explain::StageTimes;
use crate::seal::SealedReport;
use crate::state::ReplicationType;
use crate::{ByteSize, ChangeId, DiskKey, Epoch, Error, JobId, RecoveryPointId, VolumeId};

/// How a run ended.
#[derive(Debug)]
pub enum Outcome {
    /// The epoch is committed for every disk.
    Completed,
    /// The job failed; no change id moved. The next job continues from the journals.
    Failed(Error),
    /// The attempt failed; the job is alive, waits and is attempted again from where this one got.
    Deferred(Error),
    /// The run was stopped; the job is alive and the same request continues it.
    Suspended,
}

impl Outcome {
    /// Whether the epoch is committed.
    #[must_use]
    pub const fn is_completed(&self) -> bool {
        matches!(self, Self::Completed)
    }
}

/// What a run did.
#[derive(Debug)]
pub struct Report {
    /// The job.
    pub job: JobId,
    /// How it ended.
    pub outcome: Outcome,
    /// The epoch of the job; committed when the outcome says so.
    pub epoch: Epoch,
    /// `incremental` when no disk was copied in full.
    pub replication_type: ReplicationType,
    /// How long the run took.
    pub duration: Duration,
    /// Its disks, by key.
    pub disks: Vec<DiskReport>,
    /// What was compared, when anything was; stored with the job.
    pub verification: Option<SealedReport>,
    /// The recovery point of the epoch, when one was asked for and made, and the epoch is committed.
    pub recovery_point: Option<RecoveryPointId>,
    /// What is left behind or an operator should know.
    pub warnings: Vec<String>,
}

/// What a run did with one disk. Counts are of this run; what earlier runs of the epoch did is `bytes_resumed`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskReport {
    /// The disk.
    pub key: DiskKey,
    /// Its volume; `None` when the run ended before it had one.
    pub volume: Option<VolumeId>,
    /// Whole disk or changed extents.
    pub mode: ReplicationType,
    /// Its size.
    pub capacity: ByteSize,
    /// Bytes read from the source.
    pub bytes_read: ByteSize,
    /// Bytes written to the target, zeroes not counted.
    pub bytes_written: ByteSize,
    /// Bytes whose blocks the target shares with the source (reflink).
    pub bytes_shared: ByteSize,
    /// Bytes that are zero at the source, by its promise or by looking at them.
    pub bytes_zero: ByteSize,
    /// Bytes not read: unchanged, or zero by the source's promise.
    pub bytes_skipped: ByteSize,
    /// Of these, bytes that did not change since the last epoch, as the source says.
    pub bytes_unchanged: ByteSize,
    /// Bytes that earlier runs of this epoch had made durable.
    pub bytes_resumed: ByteSize,
    /// Bytes that are equal at both ends by their hashes, compared in place of copying because no change id could be trusted.
    pub bytes_equal: ByteSize,
    /// At most so many bytes were copied more than once for this epoch, by all its runs: finished ones that changed at the
    /// source meanwhile, and for each interrupted run what it wrote between its last record and its end, at most one
    /// [journal step](super::ReplicateConfig::journal_step). What runs copied whose journal was damaged is not known: it counts
    /// what is copied after that.
    pub bytes_recopied: ByteSize,
    /// Bytes compared by their hashes, once though both ends hash them, and none that is only promised to be zero. What is compared
    /// before the copy and after it counts for each.
    pub bytes_hashed: ByteSize,
    /// Bytes compared after the copy, with those that both sides promise to be zero; `None` when nothing was to be verified.
    pub bytes_verified: Option<ByteSize>,
    /// Of these, bytes that nobody read, because both sides promise that they are zero.
    pub bytes_promised_zero: Option<ByteSize>,
    /// The change id committed with the epoch; `None` unless it was.
    pub change_id: Option<ChangeId>,
    /// How long the copy took.
    pub duration: Duration,
    /// Where the time went, of the copy and of comparisons before and after it.
    pub stages: StageTimes,
    /// Why it failed.
    pub error: Option<String>,
}
