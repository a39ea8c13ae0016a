use async_trait::async_trait;
use futures_util::stream::BoxStream;

use super::error::Refusal;
use super::{Intent, MemoryStore, State, listed};
use crate::record::{ContentStamp, Lease, Operation, OperationSpec, VolumeContent, VolumeRecord};
use crate::state::{OperationEvent, OperationKind, OperationStatus, VolumeEvent, VolumeStatus};
use crate::traits::{Volume, VolumeRegistry};
use crate::{DiskRef, Generation, InstanceId, OperationId, Result, Timestamp, VolumeId, WorkerId};

#[async_trait]
impl VolumeRegistry for MemoryStore {
    async fn instance(&self) -> Result<InstanceId> {
        Ok(self.state().instance.clone())
    }

    async fn begin(&self, lease: &Lease, spec: &OperationSpec) -> Result<Operation> {
        self.change("record operation", &spec.id, |state, now| state.begin_operation(lease, spec, now))
    }

    async fn operation(&self, id: &OperationId) -> Result<Option<Operation>> {
        Ok(self.state().operations.get(id).map(|intent| intent.record.clone()))
    }

    async fn unfinished(&self, disk: &DiskRef) -> Result<Option<Operation>> {
        Ok(self.state().unfinished(disk).cloned())
    }

    async fn complete(
        &self,
        lease: &Lease,
        id: &OperationId,
        volume: &Volume,
        zeroed: bool,
    ) -> Result<VolumeRecord> {
        let content = if zeroed { VolumeContent::Blank } else { VolumeContent::Inconsistent };
        self.change("complete operation", id, |state, now| state.complete(lease, id, volume, content, now))
    }

    async fn fail(&self, lease: &Lease, id: &OperationId, error: &str) -> Result<()> {
        self.change("fail operation", id, |state, now| {
            let operation = &mut state.intent(lease, id)?.record;
            if operation.status != OperationStatus::Failed {
                operation.status = operation.status.next(OperationEvent::Fail)?;
                operation.error = Some(error.to_owned());
                operation.updated_at = now;
            }
            Ok(())
        })
    }

    async fn volume(&self, id: &VolumeId) -> Result<Option<VolumeRecord>> {
        Ok(self.state().volumes.get(id).cloned())
    }

    async fn volume_of(&self, disk: &DiskRef) -> Result<Option<VolumeRecord>> {
        Ok(self.state().volume_of(disk).cloned())
    }

    fn volumes(&self) -> BoxStream<'_, Result<VolumeRecord>> {
        listed(self.state().volumes.values().cloned().collect())
    }

    async fn mark_inconsistent(&self, lease: &Lease, id: &VolumeId) -> Result<()> {
        self.change("mark volume inconsistent", id, |state, now| {
            let volume = state.linked_volume(lease, id)?;
            volume.content = VolumeContent::Inconsistent;
            volume.stamp = None;
            volume.updated_at = now;
            state.give_up_points(&lease.job, now);
            Ok(())
        })
    }

    async fn keep_stamp(&self, lease: &Lease, id: &VolumeId, stamp: &ContentStamp) -> Result<()> {
        self.change("keep the stamp of volume", id, |state, now| {
            let volume = state.linked_volume(lease, id)?;
            if let VolumeContent::Epoch(epoch) = volume.content {
                return Err(Refusal::differs("a volume that holds no epoch", format!("epoch {epoch}")));
            }
            volume.stamp = Some(stamp.clone());
            volume.updated_at = now;
            Ok(())
        })
    }

    async fn advance_generation(&self, lease: &Lease, id: &VolumeId) -> Result<Generation> {
        self.change("advance generation", id, |state, now| {
            let disk = state.linked_volume(lease, id)?.disk.clone();
            Ok(state.next_generation(&disk, id, now)?.generation)
        })
    }

    async fn distrust_zeroes(&self, lease: &Lease, id: &VolumeId) -> Result<Generation> {
        self.change("distrust zeroes", id, |state, now| {
            let disk = state.linked_volume(lease, id)?.disk.clone();
            let record = &mut state.disk_mut(&disk).record;
            (record.zeroes_broken, record.updated_at) = (true, now);
            Ok(state.next_generation(&disk, id, now)?.generation)
        })
    }

    async fn forget(&self, lease: &Lease, id: &VolumeId) -> Result<()> {
        self.change("forget volume", id, |state, now| {
            state.guard(lease)?;
            let Some(volume) = state.volumes.get(id) else { return Ok(()) };
            if !state.is_of(lease, &volume.disk) {
                return Err(Refusal::unknown("volume of this job", id));
            }
            state.remove_volume(id, now);
            Ok(())
        })
    }
}

impl State {
    pub(super) fn volume_of(&self, disk: &DiskRef) -> Option<&VolumeRecord> {
        let link = self.disks.get(disk)?.record.volume.as_ref()?;
        self.volumes.get(link)
    }

    fn unfinished(&self, disk: &DiskRef) -> Option<&Operation> {
        let mut operations = self.operations.values().map(|intent| &intent.record);
        operations.find(|operation| operation.spec.disk == *disk && !operation.status.is_terminal())
    }

    fn begin_operation(
        &mut self,
        lease: &Lease,
        spec: &OperationSpec,
        now: Timestamp,
    ) -> Result<Operation, Refusal> {
        self.guard(lease)?;
        if let Some(known) = self.operations.get(&spec.id) {
            let same = known.record.spec == *spec;
            return same.then(|| known.record.clone()).ok_or(Refusal::OtherSpec);
        }
        self.check_operation(lease, spec)?;
        let record = Operation {
            spec: spec.clone(),
            status: OperationStatus::Executing,
            error: None,
            created_at: now,
            updated_at: now,
        };
        self.operations.insert(spec.id.clone(), Intent { record: record.clone(), answer: None });
        Ok(record)
    }

    fn check_operation(&self, lease: &Lease, spec: &OperationSpec) -> Result<(), Refusal> {
        if spec.job != lease.job {
            return Err(Refusal::Input("the operation names another job than the lease"));
        }
        if !self.is_of(lease, &spec.disk) {
            return Err(Refusal::unknown("disk of this job", &spec.disk));
        }
        let made_for = |id| self.volumes.get(id).is_some_and(|volume| volume.disk == spec.disk);
        match &spec.volume {
            None if spec.kind != OperationKind::Create => {
                return Err(Refusal::Input("the operation names no volume; only a create may"));
            }
            Some(id) if !made_for(id) => return Err(Refusal::unknown("volume of this disk", id)),
            _ => {}
        }
        let live = self.unfinished(&spec.disk);
        live.map_or(Ok(()), |live| Err(Refusal::LiveOperation(live.spec.id.clone())))
    }

    /// An operation on a disk of the lease's job.
    fn intent(&mut self, lease: &Lease, id: &OperationId) -> Result<&mut Intent, Refusal> {
        self.guard(lease)?;
        let disk = self.operations.get(id).map(|intent| &intent.record.spec.disk);
        if !disk.is_some_and(|disk| self.is_of(lease, disk)) {
            return Err(Refusal::unknown("operation of this job", id));
        }
        self.operations.get_mut(id).ok_or_else(|| Refusal::unknown("operation", id))
    }

    fn complete(
        &mut self,
        lease: &Lease,
        id: &OperationId,
        volume: &Volume,
        content: VolumeContent,
        now: Timestamp,
    ) -> Result<VolumeRecord, Refusal> {
        let intent = self.intent(lease, id)?;
        if let Some(answer) = &intent.answer {
            return Ok(answer.clone());
        }
        let spec = intent.record.spec.clone();
        let status = intent.record.status.next(OperationEvent::Complete)?;
        if spec.volume.as_ref().is_some_and(|named| *named != volume.id) {
            return Err(Refusal::Input("the operation names another volume"));
        }
        let answer = match spec.kind {
            OperationKind::Create => self.created(&spec.disk, volume, content, now)?,
            OperationKind::Attach => self.attached(&lease.worker, volume, now)?,
            OperationKind::Detach => self.detached(&volume.id, now)?,
            OperationKind::Resize => {
                let record = self.volume_mut(&volume.id)?;
                record.capacity = volume.capacity;
                record.updated_at = now;
                record.clone()
            }
            OperationKind::Snapshot => self.volume_mut(&volume.id)?.clone(),
            OperationKind::Revert => self.next_generation(&spec.disk, &volume.id, now)?,
            OperationKind::Delete => {
                let last = self.volume_mut(&volume.id)?.clone();
                self.remove_volume(&volume.id, now);
                let status = VolumeStatus::Deleted;
                VolumeRecord { status, device_path: None, attached_to: None, updated_at: now, ..last }
            }
        };
        let intent = self.intent(lease, id)?;
        intent.record.status = status;
        intent.record.updated_at = now;
        intent.answer = Some(answer.clone());
        Ok(answer)
    }

    fn created(
        &mut self,
        disk: &DiskRef,
        volume: &Volume,
        content: VolumeContent,
        now: Timestamp,
    ) -> Result<VolumeRecord, Refusal> {
        let known = self.volumes.get(&volume.id).map(|known| &known.disk);
        if let Some(other) = known.or_else(|| self.gone.get(&volume.id)) {
            Refusal::unless_same(other, disk)?;
        }
        let row = self.disk_mut(disk);
        let generation = row.generation.map_or(Generation::FIRST, Generation::next);
        row.generation = Some(generation);
        row.record.volume = Some(volume.id.clone());
        row.record.updated_at = now;
        let record = VolumeRecord {
            id: volume.id.clone(),
            name: volume.name.clone(),
            disk: disk.clone(),
            capacity: volume.capacity,
            generation,
            content,
            stamp: None,
            status: VolumeStatus::Created,
            device_path: None,
            attached_to: None,
            updated_at: now,
        };
        // One of this id that was there before is attached nowhere now, so nothing of it is exported.
        self.exports.retain(|_, export| export.volume != volume.id);
        self.volumes.insert(volume.id.clone(), record.clone());
        Ok(record)
    }

    fn attached(
        &mut self,
        worker: &WorkerId,
        volume: &Volume,
        now: Timestamp,
    ) -> Result<VolumeRecord, Refusal> {
        let Some(path) = volume.device_path.clone() else {
            return Err(Refusal::Input("the volume is attached and has no device path"));
        };
        let here = |other: &&VolumeRecord| {
            other.id != volume.id
                && other.attached_to.as_ref() == Some(worker)
                && other.device_path.as_ref() == Some(&path)
        };
        if let Some(other) = self.volumes.values().find(here) {
            return Err(Refusal::PathTaken { path, volume: other.id.clone() });
        }
        let record = self.volume_mut(&volume.id)?;
        // Attached once more, perhaps elsewhere, after this machine was restarted.
        if record.status != VolumeStatus::Attached {
            record.status = record.status.next(VolumeEvent::Attach)?;
        }
        record.device_path = Some(path);
        record.attached_to = Some(worker.clone());
        record.updated_at = now;
        Ok(record.clone())
    }

    fn detached(&mut self, id: &VolumeId, now: Timestamp) -> Result<VolumeRecord, Refusal> {
        let record = self.volume_mut(id)?;
        if record.status != VolumeStatus::Detached {
            record.status = record.status.next(VolumeEvent::Detach)?;
        }
        record.device_path = None;
        record.attached_to = None;
        record.updated_at = now;
        let record = record.clone();
        self.exports.retain(|_, export| export.volume != *id);
        Ok(record)
    }

    /// What the content was is not what it is any more (L09).
    fn next_generation(
        &mut self,
        disk: &DiskRef,
        id: &VolumeId,
        now: Timestamp,
    ) -> Result<VolumeRecord, Refusal> {
        let largest = self.disk_mut(disk).generation;
        let record = self.volume_mut(id)?;
        record.generation = largest.unwrap_or(record.generation).next();
        record.content = VolumeContent::Inconsistent;
        record.stamp = None;
        record.updated_at = now;
        let record = record.clone();
        self.disk_mut(disk).generation = Some(record.generation);
        Ok(record)
    }

    fn remove_volume(&mut self, id: &VolumeId, now: Timestamp) {
        let Some(volume) = self.volumes.remove(id) else { return };
        self.gone.insert(id.clone(), volume.disk.clone());
        self.exports.retain(|_, export| export.volume != *id);
        let disk = &mut self.disk_mut(&volume.disk).record;
        if disk.volume.as_ref() == Some(id) {
            disk.volume = None;
            disk.updated_at = now;
        }
    }

    fn volume_mut(&mut self, id: &VolumeId) -> Result<&mut VolumeRecord, Refusal> {
        self.volumes.get_mut(id).ok_or_else(|| Refusal::unknown("volume", id))
    }

    /// The volume that a disk of the lease's job has now.
    fn linked_volume(&mut self, lease: &Lease, id: &VolumeId) -> Result<&mut VolumeRecord, Refusal> {
        let job = &self.guard(lease)?.record;
        let linked = job.disk_refs().any(|disk| self.volume_of(&disk).is_some_and(|volume| volume.id == *id));
        let volume = self.volumes.get_mut(id).filter(|_| linked);
        volume.ok_or_else(|| Refusal::unknown("volume of this job", id))
    }
}
