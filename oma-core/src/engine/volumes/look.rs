//! What became of an operation, as the backend tells it without being asked to change anything.

use futures_util::TryStreamExt as _;

use super::service::VolumeServices;
use crate::record::{OperationSpec, VolumeRecord, VolumeTag};
use crate::state::OperationKind;
use crate::traits::{SnapshotSpec, Volume};
use crate::{Error, ErrorKind, Result, Retry, SnapshotId, VolumeId};

/// Whether an operation was done.
#[derive(Clone, Copy, Debug)]
pub(super) struct Look<'a> {
    pub(super) services: &'a VolumeServices,
    pub(super) spec: &'a OperationSpec,
}

impl Look<'_> {
    /// What the backend has now, if that is what is wanted; `None` when nothing was done. Nothing is changed.
    ///
    /// Of an attach and a detach only the call itself tells that it was done: what it looks at besides, as whether the cloud still
    /// has the volume attached while no disk is here, and whether the disk that is here may be used (L05), no description tells.
    pub(super) async fn look(&self) -> Result<Option<Volume>> {
        if self.spec.kind == OperationKind::Create {
            return self.look_for_unrecorded().await.map(|()| None);
        }
        let record = self.record().await?;
        let found = self.services.backend.get(&record.id).await?;
        let instance = self.services.volumes.instance().await?;
        let is_ours = |tag: &VolumeTag| tag.instance == instance && tag.disk == self.spec.disk;
        let ours = found.clone().filter(|found| found.tag.as_ref().is_some_and(is_ours));
        let wanted = self.spec.capacity;
        Ok(match self.spec.kind {
            OperationKind::Resize => ours.filter(|volume| wanted.is_some_and(|size| volume.capacity >= size)),
            OperationKind::Delete => found.is_none().then(|| as_recorded(&record)),
            OperationKind::Snapshot => {
                self.find_snapshot(&record, self.snapshot_id()?).await?.map(|_| as_recorded(&record))
            }
            OperationKind::DeleteSnapshot => {
                let left = self.find_snapshot(&record, self.snapshot_id()?).await?;
                left.is_none().then(|| as_recorded(&record))
            }
            OperationKind::Create | OperationKind::Attach | OperationKind::Detach | OperationKind::Revert => {
                None
            }
        })
    }

    /// Whether the refused create made a volume all the same: then it is in doubt, for which operation made it cannot be told.
    async fn look_for_unrecorded(&self) -> Result<()> {
        let instance = self.services.volumes.instance().await?;
        let mut found = self.services.backend.list(&instance);
        while let Some(volume) = found.try_next().await? {
            let of_disk = volume.tag.as_ref().is_some_and(|tag| tag.disk == self.spec.disk);
            if of_disk && self.services.volumes.volume(&volume.id).await?.is_none() {
                let reason = format!("volume {} of its disk is in no record", volume.id);
                let error = Error::new(ErrorKind::Unavailable, "tell what became of", &self.spec.id);
                return Err(error.because(reason).with_retry(Retry::Later));
            }
        }
        Ok(())
    }

    pub(super) async fn find_snapshot(
        &self,
        record: &VolumeRecord,
        id: &SnapshotId,
    ) -> Result<Option<SnapshotSpec>> {
        find_snapshot(self.services, &record.id, id).await
    }

    pub(super) fn snapshot_id(&self) -> Result<&SnapshotId> {
        let missing = || Error::new(ErrorKind::Internal, "find the snapshot of", &self.spec.id);
        self.spec.snapshot.as_ref().ok_or_else(missing)
    }

    pub(super) async fn record(&self) -> Result<VolumeRecord> {
        let missing = || Error::new(ErrorKind::NotFound, "find the volume of operation", &self.spec.id);
        let id = self.spec.volume.as_ref().ok_or_else(missing)?;
        self.services.volumes.volume(id).await?.ok_or_else(missing)
    }
}

/// The snapshot of a volume with this id, if the backend has it.
pub(super) async fn find_snapshot(
    services: &VolumeServices,
    volume: &VolumeId,
    id: &SnapshotId,
) -> Result<Option<SnapshotSpec>> {
    let mut snapshots = services.backend.snapshots(volume);
    while let Some(snapshot) = snapshots.try_next().await? {
        if snapshot.spec.id == *id {
            return Ok(Some(snapshot.spec));
        }
    }
    Ok(None)
}

/// A volume of which the backend answered nothing.
pub(super) fn as_recorded(record: &VolumeRecord) -> Volume {
    Volume {
        id: record.id.clone(),
        name: record.name.clone(),
        capacity: record.capacity,
        tag: None,
        device_path: record.device_path.clone(),
    }
}
