use crate::state::ExportStatus;
use crate::{DiskRef, ExportName, JobId, Timestamp, VolumeId};

/// A volume served under a name (`nbd_exports`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExportRecord {
    /// Its name, unique in the deployment.
    pub name: ExportName,
    /// The job that claims the volume (L24).
    pub job: JobId,
    /// The disk.
    pub disk: DiskRef,
    /// The volume.
    pub volume: VolumeId,
    /// How it stands.
    pub status: ExportStatus,
    /// When the record last changed.
    pub updated_at: Timestamp,
}
