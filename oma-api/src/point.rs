use oma_core::record::{RecoveryPoint, VmContext};
use oma_core::state::PointStatus;
use oma_core::{ChangeId, DiskKey, Epoch, JobId, RecoveryPointId, SnapshotId, VmPath, VolumeId};
use serde::{Deserialize, Serialize};

/// A recovery point.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PointRow {
    /// The point.
    pub point_id: RecoveryPointId,
    /// Its VM; `None` when the VM's record is gone.
    pub vm_path: Option<VmPath>,
    /// The job that made it.
    pub job_id: JobId,
    /// The epoch that it is of.
    pub epoch: Epoch,
    /// How it stands; volumes can go back to one that is `ready`.
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
pub struct PointDisk {
    /// The disk.
    pub disk_key: DiskKey,
    /// Its volume.
    pub volume_id: VolumeId,
    /// The snapshot of that volume.
    pub snapshot_id: SnapshotId,
    /// What the source called the point in time.
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
