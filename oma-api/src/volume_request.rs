//! What is asked for of volumes.

use oma_core::traits::Provisioning;
use oma_core::{ByteSize, ContextId, DiskKey, Endpoint, InstanceUuid, SnapshotId, VmPath};
use serde::{Deserialize, Serialize};

/// A VM and its disks as their source describes them, to be recorded: a volume is for a disk of a VM that is known.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct RecordVm {
    /// Its UUID at the source: the VM is found again by it and the endpoint, whatever its name and path are then.
    #[cfg_attr(feature = "server", schema(value_type = String, example = "423c5d2a-8a3b-4f51-9d1c-2f6a3b7c9e10"))]
    pub instance_uuid: InstanceUuid,
    /// The source, for instance the vCenter's name.
    #[cfg_attr(feature = "server", schema(value_type = String, example = "vcenter.example"))]
    pub endpoint: Endpoint,
    /// Its name, for readers.
    #[cfg_attr(feature = "server", schema(example = "web01"))]
    pub name: String,
    /// Its inventory path.
    #[cfg_attr(feature = "server", schema(value_type = String, example = "/DC/vm/web01"))]
    pub path: VmPath,
    /// Its disks; keys are unique.
    pub disks: Vec<RecordDisk>,
}

/// A disk of a VM to be recorded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct RecordDisk {
    /// Its key within the VM.
    #[cfg_attr(feature = "server", schema(value_type = String, example = "disk-2000"))]
    pub key: DiskKey,
    /// Its size in bytes, as reported by the source.
    #[cfg_attr(feature = "server", schema(value_type = u64, minimum = 1, example = 1_048_576))]
    pub capacity_bytes: ByteSize,
    /// Its label, for readers.
    #[serde(default)]
    pub label: String,
    /// Where it lies at the source, without secrets.
    #[serde(default)]
    pub location: String,
    /// Its unit number on the controller, if the source has controllers.
    #[serde(default)]
    pub unit_number: Option<u32>,
}

/// A volume to be made for a disk that has none.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct CreateVolume {
    /// The VM of the disk, by the id of its record.
    #[cfg_attr(feature = "server", schema(value_type = String))]
    pub context_id: ContextId,
    /// The disk.
    #[cfg_attr(feature = "server", schema(value_type = String, example = "disk-2000"))]
    pub disk_key: DiskKey,
    /// A name, for readers; without one it is made of the VM's name and the disk's key.
    #[serde(default)]
    pub name: Option<String>,
    /// Its size in bytes; a backend may round up. Without one it is the disk's size at the source; it is never less.
    #[serde(default)]
    #[cfg_attr(feature = "server", schema(value_type = Option<u64>, minimum = 1))]
    pub size: Option<ByteSize>,
    /// When its space is allocated.
    #[serde(default)]
    #[cfg_attr(feature = "server", schema(value_type = String, example = "thin"))]
    pub provisioning: Provisioning,
}

/// Where a volume is to be attached.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct AttachVolume {
    /// The cloud's id of the virtual machine: the one that the daemon runs in, which is meant as well when none is given.
    #[serde(default)]
    pub vm_id: Option<String>,
}

/// How large a volume is to become.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct ResizeVolume {
    /// Its size in bytes afterwards; a backend may round up.
    #[cfg_attr(feature = "server", schema(value_type = u64, minimum = 1))]
    pub size: ByteSize,
}

/// What is done with the deletion of a volume that is attached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum WhenAttached {
    /// The volume is detached first.
    #[default]
    Detach,
    /// It is refused, and the volume stays attached.
    Refuse,
}

impl WhenAttached {
    /// As the query of the route says it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Detach => "detach",
            Self::Refuse => "refuse",
        }
    }
}

/// What a volume is to hold again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct RevertVolume {
    /// A snapshot of it.
    #[cfg_attr(feature = "server", schema(value_type = String))]
    pub snapshot_id: SnapshotId,
}

/// Why something is called off.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct CallOff {
    /// Kept with the operation.
    #[serde(default)]
    pub reason: Option<String>,
}
