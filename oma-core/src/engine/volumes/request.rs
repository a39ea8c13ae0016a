use std::time::Duration;

use crate::engine::config::RetryConfig;
use crate::record::OperationSpec;
use crate::state::OperationKind;
use crate::traits::Provisioning;
use crate::{ByteSize, DiskRef, JobId, OperationId, SnapshotId, VolumeId};

/// A change of the volume of a disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VolumeRequest {
    /// Minted by the caller: the idempotency key. Asked again with it, nothing happens a second time.
    pub id: OperationId,
    /// The disk.
    pub disk: DiskRef,
    /// The volume that the caller means: should the disk have another one by then, nothing is done. `None` for whichever it has.
    pub volume: Option<VolumeId>,
    /// What is to be done with its volume.
    pub change: VolumeChange,
}

/// What is to be done with a volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum VolumeChange {
    /// Make it: the disk has none.
    Create {
        /// Its name, for readers.
        name: String,
        /// Its size; a backend may round up.
        capacity: ByteSize,
        /// When its space is allocated.
        provisioning: Provisioning,
    },
    /// Make it visible as a local device.
    Attach,
    /// Take the local device away.
    Detach,
    /// Make it larger.
    Resize {
        /// Its size afterwards; a backend may round up.
        capacity: ByteSize,
    },
    /// Destroy it: at once if it never held an epoch, else it is condemned for [`VolumesConfig::grace`] and can be pardoned
    /// meanwhile. It must be detached.
    Delete,
    /// Freeze what it holds, in a snapshot whose id the operation tells.
    Snapshot,
    /// Go back to a snapshot of it. It must be closed; no change id of before matches afterwards (L09).
    Revert {
        /// One of its snapshots.
        snapshot: SnapshotId,
    },
    /// Destroy a snapshot of it that such a request made.
    DeleteSnapshot {
        /// One of its snapshots.
        snapshot: SnapshotId,
    },
}

impl VolumeRequest {
    /// The intent to be recorded, for this job and this volume, and with the snapshot that is made if one is.
    pub(super) fn intent(
        &self,
        job: JobId,
        volume: Option<VolumeId>,
        made: Option<SnapshotId>,
    ) -> OperationSpec {
        use VolumeChange as C;
        let blank = |kind| OperationSpec {
            volume,
            ..OperationSpec::new(self.id.clone(), kind, self.disk.clone(), job)
        };
        match &self.change {
            C::Create { name, capacity, provisioning } => OperationSpec {
                name: Some(name.clone()),
                capacity: Some(*capacity),
                provisioning: Some(*provisioning),
                ..blank(OperationKind::Create)
            },
            C::Attach => blank(OperationKind::Attach),
            C::Detach => blank(OperationKind::Detach),
            C::Resize { capacity } => {
                OperationSpec { capacity: Some(*capacity), ..blank(OperationKind::Resize) }
            }
            C::Delete => blank(OperationKind::Delete),
            C::Snapshot => OperationSpec { snapshot: made, ..blank(OperationKind::Snapshot) },
            C::Revert { snapshot } => {
                OperationSpec { snapshot: Some(snapshot.clone()), ..blank(OperationKind::Revert) }
            }
            C::DeleteSnapshot { snapshot } => {
                OperationSpec { snapshot: Some(snapshot.clone()), ..blank(OperationKind::DeleteSnapshot) }
            }
        }
    }
}

/// How volumes are changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VolumesConfig {
    /// How long a lease lasts without renewal.
    pub lease: Duration,
    /// How long the backend may take for one answer; then it is asked again what became of it.
    pub answer_limit: Duration,
    /// How long a volume that held an epoch stays condemned before it is deleted.
    pub grace: Duration,
    /// How often and how patiently a call is tried again before the operation counts as in doubt, or as failed.
    pub retry: RetryConfig,
    /// How long an operation in doubt rests before the backend is asked again.
    pub doubt_pause: Duration,
}

impl Default for VolumesConfig {
    fn default() -> Self {
        Self {
            lease: Duration::from_secs(30),
            answer_limit: Duration::from_secs(900),
            grace: Duration::from_secs(7 * 24 * 3600),
            retry: RetryConfig::default(),
            doubt_pause: Duration::from_secs(10),
        }
    }
}
