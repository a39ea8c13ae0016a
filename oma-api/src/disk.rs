use oma_core::record::{DiskRecord, VmContext, VolumeContent, VolumeRecord};
use oma_core::state::DiskStatus;
use oma_core::{ByteSize, ChangeId, DiskKey, Epoch, Generation, JobId, VmPath, VolumeId};
use serde::{Deserialize, Serialize};

/// A disk, its volume and how far it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
pub struct DiskRow {
    /// The VM.
    #[cfg_attr(feature = "server", schema(value_type = String))]
    pub vm_path: VmPath,
    /// The disk.
    #[cfg_attr(feature = "server", schema(value_type = String))]
    pub disk_key: DiskKey,
    /// Where it lies at the source, without secrets.
    pub source: String,
    /// Its size at the source.
    #[cfg_attr(feature = "server", schema(value_type = u64))]
    pub capacity_bytes: ByteSize,
    /// Its volume's local device or file, while attached.
    pub volume_path: Option<String>,
    /// Its volume.
    #[cfg_attr(feature = "server", schema(value_type = Option<String>))]
    pub volume_id: Option<VolumeId>,
    /// Whether the volume holds exactly the epoch; `false` in mid-epoch and without a volume.
    pub consistent: bool,
    /// The change id of the last committed epoch.
    #[cfg_attr(feature = "server", schema(value_type = Option<String>))]
    pub change_id: Option<ChangeId>,
    /// The last committed epoch; 0 before the first.
    #[cfg_attr(feature = "server", schema(value_type = u64))]
    pub epoch: Epoch,
    /// The volume's generation.
    #[cfg_attr(feature = "server", schema(value_type = Option<u64>))]
    pub generation: Option<Generation>,
    /// How the disk stands in its last job.
    #[cfg_attr(feature = "server", schema(value_type = String))]
    pub sync_status: DiskStatus,
    /// Bytes of that job that are durable at the target.
    #[cfg_attr(feature = "server", schema(value_type = u64))]
    pub bytes_synced: ByteSize,
    /// The last job that took the disk up.
    #[cfg_attr(feature = "server", schema(value_type = Option<String>))]
    pub job_id: Option<JobId>,
    /// When the record last changed, RFC 3339 in UTC.
    pub updated_at: String,
}

impl DiskRow {
    /// The row of a disk; `volume` is the one that the disk is linked to.
    #[must_use]
    pub fn new(vm: &VmContext, disk: &DiskRecord, volume: Option<&VolumeRecord>) -> Self {
        Self {
            vm_path: vm.path.clone(),
            disk_key: disk.disk.key.clone(),
            source: disk.location.clone(),
            capacity_bytes: disk.capacity,
            volume_path: volume.and_then(|volume| volume.device_path.clone()),
            volume_id: disk.volume.clone(),
            consistent: volume.is_some_and(|volume| matches!(volume.content, VolumeContent::Epoch(_))),
            change_id: disk.change_id.clone(),
            epoch: disk.epoch,
            generation: volume.map(|volume| volume.generation),
            sync_status: disk.status,
            bytes_synced: disk.bytes_synced,
            job_id: disk.job.clone(),
            updated_at: disk.updated_at.to_string(),
        }
    }
}
