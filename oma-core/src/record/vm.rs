use serde::{Deserialize, Serialize};

use crate::state::{ContextStatus, DiskStatus};
use crate::{
    ByteSize, ChangeId, ContextId, DiskKey, DiskRef, Endpoint, Epoch, InstanceUuid, JobId, Timestamp, VmPath,
    VolumeId,
};

/// Who a VM is: never its name alone.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct SourceIdentity {
    /// Instance UUID at the source.
    pub instance_uuid: InstanceUuid,
    /// The source.
    pub endpoint: Endpoint,
}

/// A VM as its source describes it now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceVm {
    /// Who it is.
    pub identity: SourceIdentity,
    /// Its name, for readers.
    pub name: String,
    /// Its inventory path.
    pub path: VmPath,
    /// Its disks; keys are unique.
    pub disks: Vec<SourceDisk>,
}

/// A disk as its source describes it now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceDisk {
    /// Its key within the VM.
    pub key: DiskKey,
    /// Its label, for readers.
    pub label: String,
    /// Where it lies at the source (a VMDK path, a file, an NBD URI), without secrets.
    pub location: String,
    /// Its size in bytes, as reported by the source (L13).
    pub capacity: ByteSize,
    /// Its unit number on the controller, if the source has controllers.
    pub unit_number: Option<u32>,
}

/// The lasting record of a VM (`vm_replication_contexts`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VmContext {
    /// Its id.
    pub id: ContextId,
    /// Who it is at the source.
    pub identity: SourceIdentity,
    /// Its name when it was last discovered.
    pub name: String,
    /// Its path when it was last discovered.
    pub path: VmPath,
    /// How it stands.
    pub status: ContextStatus,
    /// The last committed epoch.
    pub epoch: Epoch,
    /// The live job, if there is one.
    pub current_job: Option<JobId>,
    /// When it was first discovered.
    pub created_at: Timestamp,
    /// When the record last changed.
    pub updated_at: Timestamp,
}

/// The lasting record of a disk (`vm_disks`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskRecord {
    /// Which disk.
    pub disk: DiskRef,
    /// The last job that took it up; `None` until a job did.
    pub job: Option<JobId>,
    /// Its label at the source.
    pub label: String,
    /// Where it lies at the source.
    pub location: String,
    /// Its size at the source.
    pub capacity: ByteSize,
    /// Its unit number at the source.
    pub unit_number: Option<u32>,
    /// Its volume, by the recorded link and nothing else (L03).
    pub volume: Option<VolumeId>,
    /// The change id of the last committed epoch.
    pub change_id: Option<ChangeId>,
    /// The epoch of that change id.
    pub epoch: Epoch,
    /// Its source once promised zeroes where it held data: no such promise of it is believed any more (L10).
    pub zeroes_broken: bool,
    /// How it stands in its job.
    pub status: DiskStatus,
    /// Bytes of this job that are durable at the target (L25).
    pub bytes_synced: ByteSize,
    /// When the record last changed.
    pub updated_at: Timestamp,
}
