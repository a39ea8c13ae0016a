//! One operation, as the backend does it: each may be done twice, and the second time asks what became of the first.

use std::sync::atomic::{AtomicBool, Ordering};

use futures_util::TryStreamExt as _;

use super::look::{Look, Looked, as_recorded};
use super::service::VolumeServices;
use crate::record::{Lease, Operation, OperationSpec, VolumeRecord, VolumeTag};
use crate::state::{JobKind, OperationKind};
use crate::traits::{Access, Snapshot, SnapshotSpec, Snapshots, Volume, VolumeSpec};
use crate::{DiskRef, Error, ErrorKind, Generation, OperationId, Result, VolumeId};

/// An operation under the lease of its job.
#[derive(Debug)]
pub(super) struct Act<'a> {
    pub(super) services: &'a VolumeServices,
    pub(super) lease: &'a Lease,
    pub(super) spec: &'a OperationSpec,
    look: Look<'a>,
    /// Whether the content of before has ended, of a revert.
    has_ended_content: AtomicBool,
}

impl<'a> Act<'a> {
    pub(super) const fn new(services: &'a VolumeServices, lease: &'a Lease, spec: &'a OperationSpec) -> Self {
        Self {
            services,
            lease,
            spec,
            look: Look { services, spec },
            has_ended_content: AtomicBool::new(false),
        }
    }

    /// As [`Look::look`].
    pub(super) async fn look(&self) -> Result<Looked> {
        self.look.look().await
    }

    /// As [`Look::is_seen`].
    pub(super) const fn is_seen(&self) -> bool {
        self.look.is_seen()
    }

    /// Has the backend do it, once. The answer is how the volume is afterwards.
    pub(super) async fn call(&self) -> Result<Volume> {
        if self.spec.kind == OperationKind::Create {
            return self.create().await;
        }
        let record = self.look.record().await?;
        let tag = self.tag(record.generation).await?;
        let answer = self.change(&record, &tag).await;
        match answer {
            // Whoever began the newest generation may have died before the volume bore its mark.
            Err(error) if error.kind() == ErrorKind::PermissionDenied => {
                let found = self.services.backend.get(&record.id).await?;
                let older =
                    |found: &VolumeTag| VolumeTag { generation: tag.generation, ..found.clone() } == tag;
                match found.and_then(|found| found.tag) {
                    Some(found) if older(&found) && found.generation < tag.generation => {
                        self.services.backend.retag(&record.id, &tag).await?;
                        self.change(&record, &tag).await
                    }
                    _ => Err(error),
                }
            }
            answer => answer,
        }
    }

    /// Records the result. A volume whose generation that made is marked with it.
    pub(super) async fn complete(&self, volume: &Volume) -> Result<()> {
        let zeroed =
            self.spec.kind == OperationKind::Create && self.services.backend.capabilities().zeroed_on_create;
        let record = self.services.volumes.complete(self.lease, &self.spec.id, volume, zeroed).await?;
        match &volume.tag {
            Some(tag) if tag.generation == record.generation => Ok(()),
            _ => self.mark().await,
        }
    }

    /// Has the disk's volume bear the generation that its record has, when the operation gave it a new one.
    pub(super) async fn mark(&self) -> Result<()> {
        if !matches!(self.spec.kind, OperationKind::Create | OperationKind::Revert) {
            return Ok(());
        }
        match self.services.volumes.volume_of(&self.spec.disk).await? {
            None => Ok(()),
            Some(record) => {
                let tag = self.tag(record.generation).await?;
                self.services.backend.retag(&record.id, &tag).await
            }
        }
    }

    async fn create(&self) -> Result<Volume> {
        let missing = || Error::new(ErrorKind::Internal, "find the size that operation wants", &self.spec.id);
        let spec = VolumeSpec {
            operation: self.spec.id.clone(),
            tag: self.tag(Generation::FIRST).await?,
            // Intents of earlier versions have none.
            name: self.spec.name.clone().unwrap_or_else(|| self.spec.disk.key.to_string()),
            capacity: self.spec.capacity.ok_or_else(missing)?,
            provisioning: self.spec.provisioning.unwrap_or_default(),
        };
        self.services.backend.create(&spec).await
    }

    async fn change(&self, record: &VolumeRecord, tag: &VolumeTag) -> Result<Volume> {
        let (backend, id) = (&self.services.backend, &record.id);
        match self.spec.kind {
            OperationKind::Create => self.create().await,
            OperationKind::Attach => backend.attach(id, tag).await,
            OperationKind::Detach => backend.detach(id, tag).await,
            OperationKind::Resize => {
                let capacity = self.spec.capacity.unwrap_or(record.capacity);
                backend.resize(id, tag, capacity).await
            }
            OperationKind::Delete => self.delete(record, tag).await,
            OperationKind::Snapshot => self.snapshot(record, tag).await,
            OperationKind::Revert => self.revert(record).await,
            OperationKind::DeleteSnapshot => self.delete_snapshot(record).await,
        }
    }

    async fn snapshot(&self, record: &VolumeRecord, tag: &VolumeTag) -> Result<Volume> {
        let id = self.look.snapshot_id()?;
        if self.look.find_snapshot(record, id).await?.is_none() {
            let (volume, job) = (record.id.clone(), self.spec.job.clone());
            let spec = SnapshotSpec { id: id.clone(), volume, tag: tag.clone(), job };
            self.services.backend.snapshot(&spec).await?;
        }
        Ok(as_recorded(record))
    }

    /// The generation ends before the content is touched: a crash in between leaves none that is believed (L09).
    async fn revert(&self, record: &VolumeRecord) -> Result<Volume> {
        let id = self.look.snapshot_id()?;
        let found = self.look.find_snapshot(record, id).await?;
        let snapshot = found.ok_or_else(|| Error::new(ErrorKind::NotFound, "revert to snapshot", id))?;
        let tag = if self.has_ended_content.load(Ordering::Relaxed) {
            self.tag(record.generation).await?
        } else {
            self.check_possible(record, &snapshot).await?;
            let generation = self.services.volumes.advance_generation(self.lease, &record.id).await?;
            self.has_ended_content.store(true, Ordering::Relaxed);
            self.tag(generation).await?
        };
        self.services.backend.retag(&record.id, &tag).await?;
        self.services.backend.revert(&record.id, &tag, &snapshot).await
    }

    /// What could stand in the way of a revert is looked at before the epoch is given up for it.
    async fn check_possible(&self, record: &VolumeRecord, snapshot: &SnapshotSpec) -> Result<()> {
        self.services.backend.open_snapshot(snapshot).await?;
        let tag = self.tag(record.generation).await?;
        match self.services.backend.open(&record.id, &tag, Access::ReadWrite).await {
            // One that is not attached is open nowhere.
            Err(error) if error.kind() != ErrorKind::Conflict => Err(error),
            Ok(_) | Err(_) => Ok(()),
        }
    }

    /// Only what a job that operates has made is deleted so (L20): the others belong to recovery points.
    async fn delete_snapshot(&self, record: &VolumeRecord) -> Result<Volume> {
        let id = self.look.snapshot_id()?;
        if let Some(snapshot) = self.look.find_snapshot(record, id).await? {
            let job = self.services.jobs.get(&snapshot.job).await?;
            if job.is_none_or(|job| job.kind != JobKind::Operate) {
                let reason = format!("job {} made it for a recovery point; delete that one", snapshot.job);
                return Err(Error::new(ErrorKind::PermissionDenied, "delete snapshot", id).because(reason));
            }
            self.services.backend.delete_snapshot(&snapshot).await?;
        }
        Ok(as_recorded(record))
    }

    /// Under the lease, so that none is made any more.
    async fn delete(&self, record: &VolumeRecord, tag: &VolumeTag) -> Result<Volume> {
        refuse_snapshots(self.services, &record.id).await?;
        self.services.backend.delete(&record.id, tag).await.map(|()| as_recorded(record))
    }

    async fn tag(&self, generation: Generation) -> Result<VolumeTag> {
        let instance = self.services.volumes.instance().await?;
        Ok(VolumeTag { instance, disk: self.spec.disk.clone(), generation })
    }
}

/// The operation as it is recorded now.
pub(super) async fn operation(services: &VolumeServices, id: &OperationId) -> Result<Operation> {
    let found = services.volumes.operation(id).await?;
    found.ok_or_else(|| Error::new(ErrorKind::NotFound, "find operation", id))
}

/// Refuses a volume that has a snapshot of no recovery point: nobody would find that without its volume.
pub(super) async fn refuse_snapshots(services: &VolumeServices, volume: &VolumeId) -> Result<()> {
    if services.backend.capabilities().snapshots == Snapshots::None {
        return Ok(());
    }
    let mut snapshots = services.backend.snapshots(volume);
    while let Some(Snapshot { spec, .. }) = snapshots.try_next().await? {
        let job = services.jobs.get(&spec.job).await?;
        if job.is_some_and(|job| job.kind == JobKind::Operate) {
            let reason = format!("it has snapshot {}; delete that first", spec.id);
            return Err(Error::new(ErrorKind::Conflict, "delete volume", volume).because(reason));
        }
    }
    Ok(())
}

/// Has the volume of a disk bear the generation that its record has, once that was renewed ([`VolumeRegistry::renew_generation`]).
///
/// [`VolumeRegistry::renew_generation`]: crate::traits::VolumeRegistry::renew_generation
pub(super) async fn mark_renewed(services: &VolumeServices, disk: &DiskRef) -> Result<()> {
    let Some(record) = services.volumes.volume_of(disk).await?.filter(|record| record.held_epoch) else {
        return Ok(());
    };
    let instance = services.volumes.instance().await?;
    let tag = VolumeTag { instance, disk: disk.clone(), generation: record.generation };
    match services.backend.get(&record.id).await? {
        Some(found) if found.tag.as_ref() != Some(&tag) => services.backend.retag(&record.id, &tag).await,
        _ => Ok(()),
    }
}
