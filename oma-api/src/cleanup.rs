use std::collections::BTreeMap;

use oma_core::record::{Cleanup, CleanupItem, CleanupItemKind, CleanupStep, KeepVolumes};
use oma_core::state::{CleanupStatus, CleanupStepStatus, JobStatus};
use oma_core::{CleanupId, ContextId, FailoverJobId, JobId, OperationId, VmPath, WorkerId};
use serde::{Deserialize, Serialize};

/// A job to be cleaned up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct PlanCleanup {
    /// The job; it has ended.
    #[cfg_attr(feature = "server", schema(value_type = String, example = "job-20250821-075220-abcdef"))]
    pub job_id: JobId,
    /// The failover job whose record goes with it.
    #[cfg_attr(feature = "server", schema(value_type = Option<String>, example = "failover-20250821-123456"))]
    #[serde(default)]
    pub failover_job_id: Option<FailoverJobId>,
    /// What becomes of volumes that hold or held an epoch: `keep`, or `condemn` them, to be deleted after a while in which that can be
    /// called off.
    #[cfg_attr(feature = "server", schema(value_type = String, pattern = "^(keep|condemn)$", example = "keep"))]
    #[serde(default)]
    pub volumes: KeepVolumes,
}

/// A cleanup: what was found, what is done in which order, and how far it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
pub struct CleanupRow {
    /// Its id.
    #[cfg_attr(feature = "server", schema(value_type = String))]
    pub cleanup_id: CleanupId,
    /// The job.
    #[cfg_attr(feature = "server", schema(value_type = String))]
    pub job_id: JobId,
    /// How the job stood when this was planned; `None` when only leftovers of it were recorded.
    #[cfg_attr(feature = "server", schema(value_type = Option<String>))]
    pub job_status: Option<JobStatus>,
    /// Its VM, by the id of its record.
    #[cfg_attr(feature = "server", schema(value_type = String))]
    pub context_id: ContextId,
    /// Its VM.
    #[cfg_attr(feature = "server", schema(value_type = String))]
    pub vm_path: VmPath,
    /// The failover job that goes with it.
    #[cfg_attr(feature = "server", schema(value_type = Option<String>))]
    pub failover_job_id: Option<FailoverJobId>,
    /// What becomes of volumes that hold or held an epoch: `keep` or `condemn`.
    #[cfg_attr(feature = "server", schema(value_type = String))]
    pub volumes: KeepVolumes,
    /// The worker that carries it out, and no other.
    #[cfg_attr(feature = "server", schema(value_type = String))]
    pub worker: WorkerId,
    /// How it stands: `planned`, `executing`, `completed` or `refused`.
    #[cfg_attr(feature = "server", schema(value_type = String))]
    pub status: CleanupStatus,
    /// The same for equal plans and no others.
    pub digest: String,
    /// What is to be done first. While there is any, it cannot be executed.
    pub first: Vec<String>,
    /// What there is, and what of it stays.
    pub items: Vec<CleanupItemRow>,
    /// What is done, in this order.
    pub steps: Vec<CleanupStepRow>,
    /// What was found left of each kind, once it is completed.
    pub left: Option<BTreeMap<String, u64>>,
    /// Why it was refused.
    pub error: Option<String>,
    /// When it was planned, RFC 3339 in UTC.
    pub created_at: String,
    /// When the record last changed, RFC 3339 in UTC.
    pub updated_at: String,
}

/// One thing that a plan found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
pub struct CleanupItemRow {
    /// What it is: `job`, `export`, `served_export`, `recovery_point`, `snapshot`, `volume`, `device`, `orphan`, `former_volume`,
    /// `operation` or `failover`.
    #[cfg_attr(feature = "server", schema(value_type = String))]
    pub kind: CleanupItemKind,
    /// Its id or name.
    pub id: String,
    /// What was found of it.
    pub detail: String,
    /// Why it stays; `None`: a step removes it.
    pub protected: Option<String>,
}

/// A step of a cleanup.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
pub struct CleanupStepRow {
    /// What it does, in one word.
    pub name: String,
    /// What it does, in a sentence.
    pub about: String,
    /// How it stands: `pending`, `executing`, `done`, `failed` or `refused`.
    #[cfg_attr(feature = "server", schema(value_type = String))]
    pub status: CleanupStepStatus,
    /// Why it failed or was refused.
    pub error: Option<String>,
    /// How often it failed. It is tried again.
    pub failures: u32,
    /// The operation that carries it out.
    #[cfg_attr(feature = "server", schema(value_type = Option<String>))]
    pub operation_id: Option<OperationId>,
    /// When it was last told of, RFC 3339 in UTC.
    pub updated_at: String,
}

impl From<&Cleanup> for CleanupRow {
    fn from(cleanup: &Cleanup) -> Self {
        let plan = &cleanup.spec.plan;
        let left = cleanup
            .left
            .map(|left| left.counts().into_iter().map(|(name, count)| (name.to_owned(), count)).collect());
        Self {
            cleanup_id: cleanup.spec.id.clone(),
            job_id: plan.job.clone(),
            job_status: plan.job_status,
            context_id: plan.context.clone(),
            vm_path: plan.vm.clone(),
            failover_job_id: plan.failover_job.clone(),
            volumes: plan.volumes,
            worker: cleanup.spec.worker.clone(),
            status: cleanup.status,
            digest: plan.digest(),
            first: plan.first.clone(),
            items: plan.items.iter().map(CleanupItemRow::from).collect(),
            steps: cleanup.steps.iter().map(CleanupStepRow::from).collect(),
            left,
            error: cleanup.error.clone(),
            created_at: cleanup.created_at.to_string(),
            updated_at: cleanup.updated_at.to_string(),
        }
    }
}

impl From<&CleanupItem> for CleanupItemRow {
    fn from(item: &CleanupItem) -> Self {
        let CleanupItem { kind, id, detail, protected } = item.clone();
        Self { kind, id, detail, protected }
    }
}

impl From<&CleanupStep> for CleanupStepRow {
    fn from(step: &CleanupStep) -> Self {
        Self {
            name: step.action.label().to_owned(),
            about: step.action.to_string(),
            status: step.status,
            error: step.error.clone(),
            failures: step.failures,
            operation_id: step.operation.clone(),
            updated_at: step.updated_at.to_string(),
        }
    }
}
