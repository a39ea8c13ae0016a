use oma_core::record::{Operation, VmContext, VolumeContent, VolumeRecord};
use oma_core::state::{OperationKind, OperationStatus, VolumeStatus};
use oma_core::traits::Snapshot;
use oma_core::{
    ByteSize, ContextId, DiskKey, Epoch, Generation, JobId, OperationId, SnapshotId, VmPath, VolumeId,
    WorkerId,
};
use serde::{Deserialize, Serialize};

/// A volume as it is recorded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
pub struct VolumeRow {
    /// Its id in the backend.
    #[cfg_attr(feature = "server", schema(value_type = String))]
    pub volume_id: VolumeId,
    /// Its name, for readers.
    pub name: String,
    /// The VM of its disk, by the id of its record.
    #[cfg_attr(feature = "server", schema(value_type = String))]
    pub context_id: ContextId,
    /// The VM of its disk; `None` when that VM's record is gone.
    #[cfg_attr(feature = "server", schema(value_type = Option<String>))]
    pub vm_path: Option<VmPath>,
    /// The disk that it is for.
    #[cfg_attr(feature = "server", schema(value_type = String))]
    pub disk_key: DiskKey,
    /// Its size.
    #[cfg_attr(feature = "server", schema(value_type = u64))]
    pub capacity_bytes: ByteSize,
    /// How it stands.
    #[cfg_attr(feature = "server", schema(value_type = String))]
    pub status: VolumeStatus,
    /// The epoch that it holds; `None` when it is blank or in the middle of one.
    #[cfg_attr(feature = "server", schema(value_type = Option<u64>))]
    pub epoch: Option<Epoch>,
    /// Whether it ever held one.
    pub held_epoch: bool,
    /// Its generation.
    #[cfg_attr(feature = "server", schema(value_type = u64))]
    pub generation: Generation,
    /// Its local device or file, while attached.
    pub device_path: Option<String>,
    /// When the record last changed, RFC 3339 in UTC.
    pub updated_at: String,
}

impl VolumeRow {
    /// The row of a volume.
    #[must_use]
    pub fn new(vm: Option<&VmContext>, volume: &VolumeRecord) -> Self {
        Self {
            volume_id: volume.id.clone(),
            name: volume.name.clone(),
            context_id: volume.disk.context.clone(),
            vm_path: vm.map(|vm| vm.path.clone()),
            disk_key: volume.disk.key.clone(),
            capacity_bytes: volume.capacity,
            status: volume.status,
            epoch: match volume.content {
                VolumeContent::Epoch(epoch) => Some(epoch),
                VolumeContent::Blank | VolumeContent::Inconsistent => None,
            },
            held_epoch: volume.held_epoch,
            generation: volume.generation,
            device_path: volume.device_path.clone(),
            updated_at: volume.updated_at.to_string(),
        }
    }
}

/// What was asked for of a volume, and what became of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
pub struct OperationRow {
    /// Its id: the idempotency key.
    #[cfg_attr(feature = "server", schema(value_type = String))]
    pub operation_id: OperationId,
    /// What was to be done.
    #[cfg_attr(feature = "server", schema(value_type = String))]
    pub kind: OperationKind,
    /// How it stands.
    #[cfg_attr(feature = "server", schema(value_type = String))]
    pub status: OperationStatus,
    /// The volume; `None` until it is created.
    #[cfg_attr(feature = "server", schema(value_type = Option<String>))]
    pub volume_id: Option<VolumeId>,
    /// The VM of its disk, by the id of its record.
    #[cfg_attr(feature = "server", schema(value_type = String))]
    pub context_id: ContextId,
    /// The VM of its disk; `None` when that VM's record is gone.
    #[cfg_attr(feature = "server", schema(value_type = Option<String>))]
    pub vm_path: Option<VmPath>,
    /// The disk.
    #[cfg_attr(feature = "server", schema(value_type = String))]
    pub disk_key: DiskKey,
    /// The job that wanted it.
    #[cfg_attr(feature = "server", schema(value_type = String))]
    pub job_id: JobId,
    /// The snapshot that it is about.
    #[cfg_attr(feature = "server", schema(value_type = Option<String>))]
    pub snapshot_id: Option<SnapshotId>,
    /// Why it failed or was called off; while it is executing, why nobody knows yet what the backend did.
    pub error: Option<String>,
    /// Not before then it is executed, while it is pending, RFC 3339 in UTC.
    pub due_at: Option<String>,
    /// When it was recorded, RFC 3339 in UTC.
    pub created_at: String,
    /// When the record last changed, RFC 3339 in UTC.
    pub updated_at: String,
}

impl OperationRow {
    /// The row of an operation.
    #[must_use]
    pub fn new(vm: Option<&VmContext>, operation: &Operation) -> Self {
        let spec = &operation.spec;
        Self {
            operation_id: spec.id.clone(),
            kind: spec.kind,
            status: operation.status,
            volume_id: spec.volume.clone().or_else(|| operation.made.clone()),
            context_id: spec.disk.context.clone(),
            vm_path: vm.map(|vm| vm.path.clone()),
            disk_key: spec.disk.key.clone(),
            job_id: spec.job.clone(),
            snapshot_id: spec.snapshot.clone(),
            error: operation.error.clone(),
            due_at: operation.due_at.map(|due_at| due_at.to_string()),
            created_at: operation.created_at.to_string(),
            updated_at: operation.updated_at.to_string(),
        }
    }
}

/// A snapshot of a volume.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
pub struct SnapshotRow {
    /// Its id.
    #[cfg_attr(feature = "server", schema(value_type = String))]
    pub snapshot_id: SnapshotId,
    /// The volume.
    #[cfg_attr(feature = "server", schema(value_type = String))]
    pub volume_id: VolumeId,
    /// Its name, for readers.
    pub name: String,
    /// The job that it was made for.
    #[cfg_attr(feature = "server", schema(value_type = String))]
    pub job_id: JobId,
    /// The size of the volume when it was made.
    #[cfg_attr(feature = "server", schema(value_type = u64))]
    pub capacity_bytes: ByteSize,
}

impl From<Snapshot> for SnapshotRow {
    fn from(snapshot: Snapshot) -> Self {
        let Snapshot { spec, name, capacity } = snapshot;
        Self {
            snapshot_id: spec.id,
            volume_id: spec.volume,
            name,
            job_id: spec.job,
            capacity_bytes: capacity,
        }
    }
}

/// The local device of an attached volume.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
pub struct DeviceRow {
    /// The volume.
    #[cfg_attr(feature = "server", schema(value_type = String))]
    pub volume_id: VolumeId,
    /// Its local device or file.
    pub device_path: String,
    /// The worker that sees it; on another machine the path means nothing, or another disk.
    #[cfg_attr(feature = "server", schema(value_type = Option<String>))]
    pub attached_to: Option<WorkerId>,
    /// The size of the volume.
    #[cfg_attr(feature = "server", schema(value_type = u64))]
    pub capacity_bytes: ByteSize,
    /// When the record last changed, RFC 3339 in UTC.
    pub updated_at: String,
}

impl DeviceRow {
    /// The row of a volume; `None` when it is not attached.
    #[must_use]
    pub fn of(volume: &VolumeRecord) -> Option<Self> {
        Some(Self {
            volume_id: volume.id.clone(),
            device_path: volume.device_path.clone()?,
            attached_to: volume.attached_to.clone(),
            capacity_bytes: volume.capacity,
            updated_at: volume.updated_at.to_string(),
        })
    }
}
