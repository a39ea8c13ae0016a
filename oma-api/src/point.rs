use oma_core::record::{RecoveryPoint, VmContext};
use oma_core::state::PointStatus;
use oma_core::{ChangeId, DiskKey, Epoch, JobId, RecoveryPointId, SnapshotId, VmPath, VolumeId};
use serde::{Deserialize, Serialize};

/// A recovery point.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
pub struct PointRow {
    /// The point.
    #[cfg_attr(feature = "server", schema(value_type = String))]
    pub point_id: RecoveryPointId,
    /// Its VM; `null` when the VM's record is gone.
    #[cfg_attr(feature = "server", schema(value_type = Option<String>))]
    pub vm_path: Option<VmPath>,
    /// The job that made it.
    #[cfg_attr(feature = "server", schema(value_type = String))]
    pub job_id: JobId,
    /// The epoch that it is of.
    #[cfg_attr(feature = "server", schema(value_type = u64))]
    pub epoch: Epoch,
    /// How it stands: `creating`, `taken`, `ready` or `deleting`; volumes can go back to one that is `ready`.
    #[cfg_attr(feature = "server", schema(value_type = String))]
    pub status: PointStatus,
    /// Why it is deleted.
    pub reason: Option<String>,
    /// When it was made, RFC 3339 in UTC.
    pub created_at: String,
    /// Its disks.
    pub disks: Vec<PointDisk>,
}

/// One disk of a recovery point.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
pub struct PointDisk {
    /// The disk.
    #[cfg_attr(feature = "server", schema(value_type = String))]
    pub disk_key: DiskKey,
    /// Its volume.
    #[cfg_attr(feature = "server", schema(value_type = String))]
    pub volume_id: VolumeId,
    /// The snapshot of that volume.
    #[cfg_attr(feature = "server", schema(value_type = String))]
    pub snapshot_id: SnapshotId,
    /// What the source called the point in time.
    #[cfg_attr(feature = "server", schema(value_type = String))]
    pub change_id: ChangeId,
}

impl PointRow {
    /// The row of a point.
    #[must_use]
    pub fn new(vm: Option<&VmContext>, point: &RecoveryPoint) -> Self {
        let disks = point.volumes.iter().map(|volume| PointDisk {
            disk_key: volume.key().clone(),
            volume_id: volume.snapshot.volume.clone(),
            snapshot_id: volume.snapshot.id.clone(),
            change_id: volume.change_id.clone(),
        });
        Self {
            point_id: point.id.clone(),
            vm_path: vm.map(|vm| vm.path.clone()),
            job_id: point.job.clone(),
            epoch: point.epoch,
            status: point.status,
            reason: point.reason.clone(),
            created_at: point.created_at.to_string(),
            disks: disks.collect(),
        }
    }
}
