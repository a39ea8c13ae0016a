use std::time::Duration;

use async_trait::async_trait;
use futures_util::stream::BoxStream;

use super::error::Refusal;
use super::{MemoryStore, State, behind, listed};
use crate::record::{
    ContentStamp, Lease, Operation, OperationFilter, OperationSpec, VolumeContent, VolumeFilter, VolumeRecord,
};
use crate::state::{OperationStatus, VolumeEvent, VolumeStatus};
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

    async fn condemn(&self, lease: &Lease, spec: &OperationSpec, grace: Duration) -> Result<Operation> {
        self.change("condemn volume by operation", &spec.id, |state, now| {
            state.condemn_volume(lease, spec, grace, now)
        })
    }

    async fn execute(&self, lease: &Lease, id: &OperationId) -> Result<Operation> {
        self.change("execute operation", id, |state, now| state.execute(lease, id, now))
    }

    async fn pardon(&self, lease: &Lease, id: &OperationId, reason: &str) -> Result<Operation> {
        self.change("call off operation", id, |state, now| state.pardon(lease, id, reason, now))
    }

    async fn doubt(&self, lease: &Lease, id: &OperationId, why: &str) -> Result<()> {
        self.change("keep a doubt about operation", id, |state, now| {
            let operation = &mut state.intent(lease, id)?.record;
            Refusal::unless_same(&operation.status, &OperationStatus::Executing)?;
            operation.error = Some(why.to_owned());
            operation.updated_at = now;
            Ok(())
        })
    }

    async fn operation(&self, id: &OperationId) -> Result<Option<Operation>> {
        Ok(self.state().operations.get(id).map(|intent| intent.record.clone()))
    }

    fn operations(&self, filter: OperationFilter) -> BoxStream<'_, Result<Operation>> {
        listed(self.state().operations_of(&filter))
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
        self.change("fail operation", id, |state, now| state.fail_operation(lease, id, error, now))
    }

    async fn volume(&self, id: &VolumeId) -> Result<Option<VolumeRecord>> {
        Ok(self.state().volumes.get(id).cloned())
    }

    async fn volume_of(&self, disk: &DiskRef) -> Result<Option<VolumeRecord>> {
        Ok(self.state().volume_of(disk).cloned())
    }

    async fn volume_at(&self, machine: &WorkerId, device_path: &str) -> Result<Option<VolumeRecord>> {
        Ok(self.state().volume_at(machine, device_path).cloned())
    }

    fn volumes(&self, filter: VolumeFilter) -> BoxStream<'_, Result<VolumeRecord>> {
        let state = self.state();
        let behind = behind(&state.volumes, filter.after.as_ref());
        listed(behind.filter(|volume| filter.lets_through(volume)).cloned().collect())
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

    async fn renew_generation(&self, lease: &Lease, id: &VolumeId) -> Result<Generation> {
        self.change("renew generation", id, |state, now| {
            state.linked_volume(lease, id)?;
            state.renewed_generation(id, now)
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

    fn volume_at(&self, machine: &WorkerId, device_path: &str) -> Option<&VolumeRecord> {
        let is_there = |volume: &&VolumeRecord| {
            volume.attached_to.as_ref() == Some(machine) && volume.device_path.as_deref() == Some(device_path)
        };
        self.volumes.values().find(is_there)
    }

    pub(super) fn created(
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
            held_epoch: false,
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

    pub(super) fn attached(
        &mut self,
        worker: &WorkerId,
        volume: &Volume,
        now: Timestamp,
    ) -> Result<VolumeRecord, Refusal> {
        let Some(path) = volume.device_path.clone() else {
            return Err(Refusal::Input("the volume is attached and has no device path"));
        };
        if let Some(other) = self.volume_at(worker, &path).filter(|other| other.id != volume.id) {
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

    pub(super) fn detached(&mut self, id: &VolumeId, now: Timestamp) -> Result<VolumeRecord, Refusal> {
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
    pub(super) fn next_generation(
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

    /// The next generation, for which everything counts that is known of the content.
    pub(super) fn renewed_generation(
        &mut self,
        id: &VolumeId,
        now: Timestamp,
    ) -> Result<Generation, Refusal> {
        let VolumeRecord { disk, generation: old, .. } = self.volume_mut(id)?.clone();
        let row = self.disk_mut(&disk);
        let next = row.generation.unwrap_or(old).next();
        row.generation = Some(next);
        if let Some(committed) = row.committed.as_mut().filter(|committed| committed.generation == old) {
            committed.generation = next;
        }
        if let Some(journal) = self.journals.get_mut(&disk).filter(|journal| journal.basis.generation == old)
        {
            journal.basis.generation = next;
        }
        let record = self.volume_mut(id)?;
        (record.generation, record.held_epoch, record.updated_at) = (next, true, now);
        Ok(next)
    }

    pub(super) fn remove_volume(&mut self, id: &VolumeId, now: Timestamp) {
        let Some(volume) = self.volumes.remove(id) else { return };
        self.gone.insert(id.clone(), volume.disk.clone());
        self.exports.retain(|_, export| export.volume != *id);
        let disk = &mut self.disk_mut(&volume.disk).record;
        if disk.volume.as_ref() == Some(id) {
            disk.volume = None;
            disk.updated_at = now;
        }
    }

    pub(super) fn volume_mut(&mut self, id: &VolumeId) -> Result<&mut VolumeRecord, Refusal> {
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
