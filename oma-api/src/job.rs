use oma_core::record::{ReplicationJob, VmContext};
use oma_core::state::{JobKind, JobStatus, ReplicationType};
use oma_core::{DiskKey, Epoch, JobId, VmPath};
use serde::{Deserialize, Serialize};

use crate::ReplicationRow;

/// A replication job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobRow {
    /// The job.
    pub job_id: JobId,
    /// Its VM; `None` when the VM's record is gone.
    pub vm_path: Option<VmPath>,
    /// Whether it replicates, or goes back to a recovery point.
    #[serde(default = "replicate")]
    pub kind: JobKind,
    /// What was expected when it began; nothing of one that goes back.
    pub replication_type: ReplicationType,
    /// How it stands.
    pub status: JobStatus,
    /// The epoch that it produces; without a meaning for one that goes back.
    pub epoch: Epoch,
    /// Its disks.
    pub disks: Vec<DiskKey>,
    /// Why it failed or was cancelled.
    pub error: Option<String>,
    /// When it began, RFC 3339 in UTC.
    pub created_at: String,
    /// When the record last changed.
    pub updated_at: String,
    /// When it ended.
    pub completed_at: Option<String>,
}

/// Rows of before there were others.
const fn replicate() -> JobKind {
    JobKind::Replicate
}

impl From<ReplicationRow> for JobRow {
    fn from(row: ReplicationRow) -> Self {
        Self {
            job_id: row.job_id,
            vm_path: row.vm_path,
            kind: row.kind,
            replication_type: row.replication_type,
            status: row.status,
            epoch: row.epoch,
            disks: row.disks,
            error: row.error,
            created_at: row.created_at,
            updated_at: row.updated_at,
            completed_at: row.completed_at,
        }
    }
}

impl JobRow {
    /// The row of a job.
    #[must_use]
    pub fn new(vm: Option<&VmContext>, job: &ReplicationJob) -> Self {
        Self {
            job_id: job.id.clone(),
            vm_path: vm.map(|vm| vm.path.clone()),
            kind: job.kind,
            replication_type: job.replication_type,
            status: job.status,
            epoch: job.epoch,
            disks: job.disks.clone(),
            error: job.error.clone(),
            created_at: job.created_at.to_string(),
            updated_at: job.updated_at.to_string(),
            completed_at: job.completed_at.map(|time| time.to_string()),
        }
    }
}
