use oma_core::record::{CbtRecord, DiskAdvance, JobProgress, ReplicationJob, VmContext};
use oma_core::state::{JobKind, JobStatus, ReplicationType, Wanted};
use oma_core::{
    ByteSize, ChangeId, ContextId, DiskKey, Epoch, JobId, TargetName, Timestamp, VmPath, WorkerId,
};
use serde::{Deserialize, Serialize};

/// A job of the appliance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
pub struct ReplicationRow {
    /// The job.
    #[cfg_attr(feature = "server", schema(value_type = String))]
    pub job_id: JobId,
    /// The id of its VM's record.
    #[cfg_attr(feature = "server", schema(value_type = String))]
    pub context_id: ContextId,
    /// Its VM; `null` when the VM's record is gone.
    #[cfg_attr(feature = "server", schema(value_type = Option<String>))]
    pub vm_path: Option<VmPath>,
    /// What it does: `replicate`, `revert` or `operate`.
    #[cfg_attr(feature = "server", schema(value_type = String))]
    pub kind: JobKind,
    /// What was expected when it was recorded: `initial` or `incremental`.
    #[cfg_attr(feature = "server", schema(value_type = String))]
    pub replication_type: ReplicationType,
    /// How it stands.
    #[cfg_attr(feature = "server", schema(value_type = String))]
    pub status: JobStatus,
    /// What is wanted of it: `run`, `pause` or `cancel`.
    #[cfg_attr(feature = "server", schema(value_type = String))]
    pub wanted: Wanted,
    /// The epoch that it produces, if it replicates.
    #[cfg_attr(feature = "server", schema(value_type = u64))]
    pub epoch: Epoch,
    /// Its disks.
    #[cfg_attr(feature = "server", schema(value_type = Vec<String>))]
    pub disks: Vec<DiskKey>,
    /// Larger goes first.
    pub priority: i32,
    /// Where its volumes live, if that was said.
    #[cfg_attr(feature = "server", schema(value_type = Option<String>))]
    pub target: Option<TargetName>,
    /// Who drives it, if anybody does.
    #[cfg_attr(feature = "server", schema(value_type = Option<String>))]
    pub worker: Option<WorkerId>,
    /// Attempts that failed.
    pub attempts: u32,
    /// Why it failed or was cancelled; while it is live, why its last attempt failed.
    pub error: Option<String>,
    /// When it is attempted next, of one that waits for that.
    pub due_at: Option<String>,
    /// When it was recorded, RFC 3339 in UTC.
    pub created_at: String,
    /// When the record last changed.
    pub updated_at: String,
    /// When it ended.
    pub completed_at: Option<String>,
}

impl ReplicationRow {
    /// The row of a job.
    #[must_use]
    pub fn new(vm: Option<&VmContext>, job: &ReplicationJob) -> Self {
        let text = |time: Timestamp| time.to_string();
        Self {
            job_id: job.id.clone(),
            context_id: job.context.clone(),
            vm_path: vm.map(|vm| vm.path.clone()),
            kind: job.kind,
            replication_type: job.replication_type,
            status: job.status,
            wanted: job.wanted,
            epoch: job.epoch,
            disks: job.disks.clone(),
            priority: job.priority,
            target: job.target.clone(),
            worker: job.owner.clone(),
            attempts: job.attempts,
            error: job.error.clone(),
            due_at: job.due_at.filter(|_| job.owner.is_none()).map(text),
            created_at: text(job.created_at),
            updated_at: text(job.updated_at),
            completed_at: job.completed_at.map(text),
        }
    }
}

/// How far a job is, as whoever drives it told last. All counts are of durable bytes where they say so (L25).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
pub struct ProgressRow {
    /// The job.
    #[cfg_attr(feature = "server", schema(value_type = String))]
    pub job_id: JobId,
    /// How it stands.
    #[cfg_attr(feature = "server", schema(value_type = String))]
    pub status: JobStatus,
    /// The step that is under way, if one is.
    pub step: Option<String>,
    /// Bytes that the epoch has to cover, over all disks that are planned.
    #[cfg_attr(feature = "server", schema(value_type = u64))]
    pub total_bytes: ByteSize,
    /// Bytes of them that are durable at the target.
    #[cfg_attr(feature = "server", schema(value_type = u64))]
    pub durable_bytes: ByteSize,
    /// Its disks, as far as they are planned.
    pub disks: Vec<DiskProgressRow>,
    /// When it was told, RFC 3339 in UTC; `null` before anything was.
    pub told_at: Option<String>,
}

/// How far a disk of a job is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
pub struct DiskProgressRow {
    /// The disk.
    #[cfg_attr(feature = "server", schema(value_type = String))]
    pub disk_key: DiskKey,
    /// Bytes that the epoch has to cover: the disk, or its changed extents.
    #[cfg_attr(feature = "server", schema(value_type = u64))]
    pub total_bytes: ByteSize,
    /// Bytes of them that are covered.
    #[cfg_attr(feature = "server", schema(value_type = u64))]
    pub done_bytes: ByteSize,
    /// Bytes of them that are covered and durable at the target.
    #[cfg_attr(feature = "server", schema(value_type = u64))]
    pub durable_bytes: ByteSize,
    /// Bytes that were read from the source.
    #[cfg_attr(feature = "server", schema(value_type = u64))]
    pub read_bytes: ByteSize,
    /// Bytes that were written to the target, zeroes not counted.
    #[cfg_attr(feature = "server", schema(value_type = u64))]
    pub written_bytes: ByteSize,
    /// Bytes that were found to be zero.
    #[cfg_attr(feature = "server", schema(value_type = u64))]
    pub zero_bytes: ByteSize,
    /// Bytes that did not change, as the source says.
    #[cfg_attr(feature = "server", schema(value_type = u64))]
    pub unchanged_bytes: ByteSize,
    /// Durable bytes per second over the last half minute; `null` while nobody drives the job.
    #[cfg_attr(feature = "server", schema(value_type = Option<u64>))]
    pub bytes_per_second: Option<ByteSize>,
    /// Durable bytes per second since the copy of the disk began.
    #[cfg_attr(feature = "server", schema(value_type = Option<u64>))]
    pub mean_bytes_per_second: Option<ByteSize>,
    /// How long the rest takes at the rate of the last half minute; `null` where nothing moves.
    pub remaining_seconds: Option<u64>,
    /// Where most time was spent: `wait` (limits, memory), `read` (source, network; of a push the agent), `scan`, `write`, `flush`, `journal` (target) or `hash`.
    pub bottleneck: Option<String>,
}

impl ProgressRow {
    /// The row of a job.
    #[must_use]
    pub fn new(job: &ReplicationJob, told: Option<&JobProgress>) -> Self {
        let mut disks: Vec<_> = told.iter().flat_map(|told| &told.disks).map(DiskProgressRow::from).collect();
        // Nobody moves it: what was so of late is so no more.
        for disk in disks.iter_mut().filter(|_| job.owner.is_none()) {
            disk.bytes_per_second = None;
            disk.remaining_seconds = disk.remaining_seconds.filter(|rest| *rest == 0);
        }
        let sum = |count: fn(&DiskProgressRow) -> ByteSize| {
            ByteSize::new(disks.iter().map(|disk| count(disk).bytes()).sum())
        };
        Self {
            job_id: job.id.clone(),
            status: job.status,
            step: told.filter(|_| job.owner.is_some()).and_then(|told| told.step.clone()),
            total_bytes: sum(|disk| disk.total_bytes),
            durable_bytes: sum(|disk| disk.durable_bytes),
            disks,
            told_at: told.map(|told| told.at.to_string()),
        }
    }
}

impl From<&DiskAdvance> for DiskProgressRow {
    fn from(disk: &DiskAdvance) -> Self {
        Self {
            disk_key: disk.key.clone(),
            total_bytes: disk.total,
            done_bytes: disk.done,
            durable_bytes: disk.durable,
            read_bytes: disk.read,
            written_bytes: disk.written,
            zero_bytes: disk.zero,
            unchanged_bytes: disk.unchanged,
            bytes_per_second: disk.rate,
            mean_bytes_per_second: disk.mean_rate,
            remaining_seconds: disk.remaining.map(|rest| rest.as_secs()),
            bottleneck: disk.bottleneck.clone(),
        }
    }
}

/// The change id of a disk's last committed epoch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
pub struct ChangeIdAnswer {
    /// The VM.
    #[cfg_attr(feature = "server", schema(value_type = String))]
    pub vm_path: VmPath,
    /// The disk.
    #[cfg_attr(feature = "server", schema(value_type = String))]
    pub disk_id: DiskKey,
    /// The change id; `null` before the first epoch.
    #[cfg_attr(feature = "server", schema(value_type = Option<String>))]
    pub change_id: Option<ChangeId>,
    /// The same for a reader.
    pub message: String,
}

/// A change id that a program reports of a disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
pub struct RecordChangeId {
    /// The change id.
    #[cfg_attr(feature = "server", schema(value_type = String))]
    pub change_id: ChangeId,
    /// The disk; may be left out when the job has one only.
    #[serde(default)]
    #[cfg_attr(feature = "server", schema(value_type = Option<String>))]
    pub disk_id: Option<DiskKey>,
    /// The change id that it was copied from.
    #[serde(default)]
    #[cfg_attr(feature = "server", schema(value_type = Option<String>))]
    pub previous_change_id: Option<ChangeId>,
    /// The attempt that it was copied in: the `fence` that GET /replications/{job_id}/push told. Needed of a live job that an agent pushes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fence: Option<u64>,
}

/// What was copied of a disk at which change id (`cbt_history`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
pub struct CbtHistoryRow {
    /// The job.
    #[cfg_attr(feature = "server", schema(value_type = String))]
    pub job_id: JobId,
    /// The disk.
    #[cfg_attr(feature = "server", schema(value_type = String))]
    pub disk_id: DiskKey,
    /// The change id that the job copied up to.
    #[cfg_attr(feature = "server", schema(value_type = String))]
    pub change_id: ChangeId,
    /// The change id that it copied from.
    #[cfg_attr(feature = "server", schema(value_type = Option<String>))]
    pub previous_change_id: Option<ChangeId>,
    /// `initial` or `incremental`.
    #[cfg_attr(feature = "server", schema(value_type = String))]
    pub sync_type: ReplicationType,
    /// Extents that were copied.
    pub extents: u64,
    /// Bytes that were copied.
    #[cfg_attr(feature = "server", schema(value_type = u64))]
    pub bytes_transferred: ByteSize,
    /// Whether the epoch was committed.
    pub sync_success: bool,
    /// When the copy began, RFC 3339 in UTC.
    pub created_at: String,
}

impl From<&CbtRecord> for CbtHistoryRow {
    fn from(record: &CbtRecord) -> Self {
        Self {
            job_id: record.job.clone(),
            disk_id: record.disk.key.clone(),
            change_id: record.change_id.clone(),
            previous_change_id: record.previous.clone(),
            sync_type: record.sync_type,
            extents: record.extents,
            bytes_transferred: record.bytes_transferred,
            sync_success: record.success,
            created_at: record.created_at.to_string(),
        }
    }
}
