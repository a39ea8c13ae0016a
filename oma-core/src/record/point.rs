use serde::{Deserialize, Serialize};

use crate::state::PointStatus;
use crate::traits::SnapshotSpec;
use crate::{ChangeId, ContextId, DiskKey, Epoch, JobId, RecoveryPointId, Timestamp};

/// One volume of a recovery point.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PointVolume {
    /// What the source calls the point in time that the volume holds.
    pub change_id: ChangeId,
    /// Its snapshot: of which volume, disk and generation, for which job.
    pub snapshot: SnapshotSpec,
}

impl PointVolume {
    /// The disk.
    #[must_use]
    pub const fn key(&self) -> &DiskKey {
        &self.snapshot.tag.disk.key
    }
}

/// A recovery point to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecoveryPointSpec {
    /// Minted by the caller.
    pub id: RecoveryPointId,
    /// The volume of each disk of the job, with the snapshot that will be made of it.
    pub volumes: Vec<PointVolume>,
}

/// A snapshot of all volumes of a VM at one committed epoch (`recovery_points`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecoveryPoint {
    /// Its id.
    pub id: RecoveryPointId,
    /// The VM.
    pub context: ContextId,
    /// The job that made it.
    pub job: JobId,
    /// The epoch of that job.
    pub epoch: Epoch,
    /// How it stands.
    pub status: PointStatus,
    /// Its volumes.
    pub volumes: Vec<PointVolume>,
    /// Why it is deleted.
    pub reason: Option<String>,
    /// When it was recorded.
    pub created_at: Timestamp,
    /// When the record last changed.
    pub updated_at: Timestamp,
}

/// Why a recovery point is not wanted any more, and with it what must still be so when that is recorded: whoever judges by a
/// list judges by an old one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Needless {
    /// It was left unfinished.
    Unfinished,
    /// A policy does not keep it: it is ready, and at least so many newer ones of the VM are, and never less than one.
    Behind(u32),
    /// An operator does not want it, however it stands.
    Unwanted,
}

impl RecoveryPoint {
    /// Whether it was made from this spec.
    #[must_use]
    pub fn is_of(&self, spec: &RecoveryPointSpec) -> bool {
        self.id == spec.id && self.volumes == spec.volumes
    }
}
