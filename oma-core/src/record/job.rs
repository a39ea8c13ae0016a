use crate::state::{JobStatus, ReplicationType};
use crate::{ContextId, DiskKey, Epoch, Fence, JobId, Timestamp, WorkerId};

/// A job to be recorded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobSpec {
    /// Minted by the caller.
    pub id: JobId,
    /// The VM it brings to a new epoch.
    pub context: ContextId,
    /// What is expected; each disk's own mode stands in `cbt_history`.
    pub replication_type: ReplicationType,
    /// The disks it has, all of them recorded before; at least one, none twice.
    pub disks: Vec<DiskKey>,
}

/// A replication job (`replication_jobs`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplicationJob {
    /// Its id.
    pub id: JobId,
    /// Its VM.
    pub context: ContextId,
    /// What was expected when it was recorded.
    pub replication_type: ReplicationType,
    /// How it stands.
    pub status: JobStatus,
    /// The epoch that it produces.
    pub epoch: Epoch,
    /// Its disks, by key.
    pub disks: Vec<DiskKey>,
    /// Why it failed or was cancelled.
    pub error: Option<String>,
    /// The newest fencing token.
    pub fence: Fence,
    /// Who drives it, if anybody does.
    pub owner: Option<WorkerId>,
    /// When it was recorded.
    pub created_at: Timestamp,
    /// When the record last changed.
    pub updated_at: Timestamp,
    /// When it ended.
    pub completed_at: Option<Timestamp>,
}

/// How a job ends without its epoch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JobEnd {
    /// It cannot go on; the text says why.
    Failed(String),
    /// An operator ended it; the text says why.
    Cancelled(String),
}

/// Which jobs to list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct JobFilter {
    /// Only those of this VM.
    pub context: Option<ContextId>,
    /// Only those that have not ended.
    pub live_only: bool,
}

/// The time-limited right of one worker to drive one job.
///
/// Every write of a job carries it and is refused with [`ErrorKind::Fenced`](crate::ErrorKind::Fenced)
/// once a newer token was given out or the job has ended (L16).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// The job.
    pub job: JobId,
    /// Who holds it.
    pub worker: WorkerId,
    /// Its fencing token.
    pub fence: Fence,
    /// When it ends unless renewed, by the store's clock.
    pub expires_at: Timestamp,
}
