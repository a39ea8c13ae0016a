use oma_core::record::{Operation, VmContext, VolumeContent, VolumeRecord};
use oma_core::state::{OperationKind, OperationStatus, VolumeStatus};
use oma_core::{ByteSize, DiskKey, Epoch, Generation, JobId, OperationId, SnapshotId, VmPath, VolumeId};
use serde::{Deserialize, Serialize};

/// A volume as it is recorded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeRow {
    /// Its id in the backend.
    pub volume_id: VolumeId,
    /// Its name, for readers.
    pub name: String,
    /// The VM of its disk; `None` when that VM's record is gone.
    pub vm_path: Option<VmPath>,
    /// The disk that it is for.
    pub disk_key: DiskKey,
    /// Its size.
    pub capacity_bytes: ByteSize,
    /// How it stands.
    pub status: VolumeStatus,
    /// The epoch that it holds; `None` when it is blank or in the middle of one.
    pub epoch: Option<Epoch>,
    /// Whether it ever held one.
    pub held_epoch: bool,
    /// Its generation.
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
pub struct OperationRow {
    /// Its id: the idempotency key.
    pub operation_id: OperationId,
    /// What was to be done.
    pub kind: OperationKind,
    /// How it stands.
    pub status: OperationStatus,
    /// The volume; `None` while it is to be created.
    pub volume_id: Option<VolumeId>,
    /// The VM of its disk; `None` when that VM's record is gone.
    pub vm_path: Option<VmPath>,
    /// The disk.
    pub disk_key: DiskKey,
    /// The job that wanted it.
    pub job_id: JobId,
    /// The snapshot that it is about.
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
            volume_id: spec.volume.clone(),
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
