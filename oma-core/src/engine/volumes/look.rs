//! What became of an operation, as the backend tells it without being asked to change anything.

use std::future;

use futures_util::TryStreamExt as _;

use super::service::VolumeServices;
use crate::record::{OperationSpec, VolumeFilter, VolumeRecord, VolumeTag};
use crate::state::OperationKind;
use crate::traits::{SnapshotSpec, Volume};
use crate::{Error, ErrorKind, InstanceId, Result, SnapshotId, VolumeId};

/// Whether an operation was done.
#[derive(Clone, Copy, Debug)]
pub(super) struct Look<'a> {
    pub(super) services: &'a VolumeServices,
    pub(super) spec: &'a OperationSpec,
}

/// What the backend told.
#[derive(Debug)]
pub(super) enum Looked {
    /// What is wanted is there.
    Done(Volume),
    /// Nothing was done.
    NotDone,
    /// It answers, and what was done cannot be told; why.
    Unclear(String),
}

/// What the records tell, before the backend is asked.
#[derive(Debug)]
pub(super) struct Known {
    instance: InstanceId,
    /// The volume that is changed, or the ids of all that were ever the disk's, of a create.
    of: Of,
}

#[derive(Debug)]
enum Of {
    Volume(VolumeRecord),
    Disk(Vec<VolumeId>),
}

impl Look<'_> {
    /// What the backend has now. Nothing is changed.
    pub(super) async fn look(&self) -> Result<Looked> {
        self.ask(&self.known().await?).await
    }

    /// What the store knows.
    pub(super) async fn known(&self) -> Result<Known> {
        let volumes = &self.services.volumes;
        let of = match self.spec.kind {
            OperationKind::Create => {
                let of_disk = |volume: &VolumeRecord| future::ready(volume.disk == self.spec.disk);
                let of_vm =
                    VolumeFilter { context: Some(self.spec.disk.context.clone()), ..VolumeFilter::default() };
                let ids = volumes.volumes(of_vm).try_filter(of_disk).map_ok(|volume| volume.id);
                Of::Disk(ids.try_collect().await?)
            }
            _ => Of::Volume(self.record().await?),
        };
        Ok(Known { instance: volumes.instance().await?, of })
    }

    /// What the backend answers; nobody else is asked. One that asks again by its id tells of a create, an attach, a detach and a
    /// revert that it was done, no description does: of an attached volume the disk may be away or be no disk to use (L05), and of
    /// one that the cloud has attached no disk may be here.
    pub(super) async fn ask(&self, known: &Known) -> Result<Looked> {
        match &known.of {
            Of::Disk(recorded) => self.find_unrecorded(&known.instance, recorded).await,
            Of::Volume(record) => {
                let done = self.find_done(&known.instance, record).await?;
                Ok(done.map_or(Looked::NotDone, Looked::Done))
            }
        }
    }

    async fn find_done(&self, instance: &InstanceId, record: &VolumeRecord) -> Result<Option<Volume>> {
        let found = self.services.backend.get(&record.id).await?;
        let is_ours = |tag: &VolumeTag| tag.instance == *instance && tag.disk == self.spec.disk;
        let wanted = self.spec.capacity;
        Ok(match self.spec.kind {
            OperationKind::Resize => found
                .filter(|found| found.tag.as_ref().is_some_and(is_ours))
                .filter(|volume| wanted.is_some_and(|size| volume.capacity >= size)),
            OperationKind::Delete => found.is_none().then(|| as_recorded(record)),
            OperationKind::Snapshot => {
                self.find_snapshot(record, self.snapshot_id()?).await?.map(|_| as_recorded(record))
            }
            OperationKind::DeleteSnapshot => {
                let left = self.find_snapshot(record, self.snapshot_id()?).await?;
                left.is_none().then(|| as_recorded(record))
            }
            OperationKind::Create | OperationKind::Attach | OperationKind::Detach | OperationKind::Revert => {
                None
            }
        })
    }

    /// Whether [`Look::ask`] can tell that it was done.
    pub(super) const fn is_seen(&self) -> bool {
        use OperationKind as K;
        matches!(self.spec.kind, K::Resize | K::Delete | K::Snapshot | K::DeleteSnapshot)
    }

    /// Whether the refused create made a volume all the same: then it is in doubt, for which operation made it cannot be told.
    async fn find_unrecorded(&self, instance: &InstanceId, recorded: &[VolumeId]) -> Result<Looked> {
        let mut found = self.services.backend.list(instance);
        while let Some(volume) = found.try_next().await? {
            let of_disk = volume.tag.as_ref().is_some_and(|tag| tag.disk == self.spec.disk);
            if of_disk && !recorded.contains(&volume.id) {
                let id = volume.id;
                return Ok(Looked::Unclear(format!(
                    "volume {id} of its disk is in no record, and may be what it made or what was abandoned before"
                )));
            }
        }
        Ok(Looked::NotDone)
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
