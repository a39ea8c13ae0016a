use std::collections::BTreeSet;

use async_trait::async_trait;
use futures_util::stream::BoxStream;

use super::error::Refusal;
use super::{Disk, MemoryStore, State, behind, listed};
use crate::record::{Cleanup, DiskRecord, SourceDisk, SourceIdentity, SourceVm, VmContext};
use crate::state::{CleanupStatus, ContextStatus, DiskStatus};
use crate::traits::Inventory;
use crate::{ByteSize, ContextId, DiskRef, Epoch, JobId, Result, Timestamp, VmPath};

#[cfg(test)]
impl MemoryStore {
    /// Puts a VM into a state that no call of this crate leads to yet.
    pub(crate) fn stands(&self, context: &ContextId, status: ContextStatus) {
        self.state().contexts.get_mut(context).expect("a VM that is known").status = status;
    }
}

#[async_trait]
impl Inventory for MemoryStore {
    async fn record(&self, vm: &SourceVm) -> Result<VmContext> {
        self.change("record VM", &vm.path, |state, now| state.record_vm(vm, now))
    }

    async fn context(&self, id: &ContextId) -> Result<Option<VmContext>> {
        Ok(self.state().contexts.get(id).cloned())
    }

    async fn by_identity(&self, identity: &SourceIdentity) -> Result<Option<VmContext>> {
        Ok(self.state().contexts.values().find(|context| context.identity == *identity).cloned())
    }

    async fn by_path(&self, path: &VmPath) -> Result<Option<VmContext>> {
        let state = self.state();
        let there = state.contexts.values().filter(|context| context.path == *path);
        Ok(there.max_by_key(|context| (context.created_at, &context.id)).cloned())
    }

    fn contexts(&self, after: Option<&ContextId>) -> BoxStream<'_, Result<VmContext>> {
        listed(behind(&self.state().contexts, after).cloned().collect())
    }

    async fn disk(&self, disk: &DiskRef) -> Result<Option<DiskRecord>> {
        Ok(self.state().disks.get(disk).map(|disk| disk.record.clone()))
    }

    async fn disks(&self, context: &ContextId) -> Result<Vec<DiskRecord>> {
        let state = self.state();
        let disks = state.disks.values().map(|disk| &disk.record);
        Ok(disks.filter(|record| record.disk.context == *context).cloned().collect())
    }

    async fn remove_vm(&self, id: &ContextId) -> Result<()> {
        self.change("remove VM", id, |state, _| state.remove_vm(id))
    }
}

impl State {
    fn record_vm(&mut self, vm: &SourceVm, now: Timestamp) -> Result<VmContext, Refusal> {
        check(&vm.disks)?;
        let known = self.contexts.values().find(|context| context.identity == vm.identity);
        let mut context = known.cloned().unwrap_or_else(|| discovered(vm, now));
        if context.name != vm.name || context.path != vm.path {
            context.name.clone_from(&vm.name);
            context.path.clone_from(&vm.path);
            context.updated_at = now;
        }
        self.contexts.insert(context.id.clone(), context.clone());
        for disk in &vm.disks {
            self.record_disk(DiskRef { context: context.id.clone(), key: disk.key.clone() }, disk, now);
        }
        Ok(context)
    }

    fn record_disk(&mut self, id: DiskRef, disk: &SourceDisk, now: Timestamp) {
        let row = self.disks.entry(id).or_insert_with_key(|id| Disk::new(id.clone(), now));
        let before = row.record.clone();
        row.record.label.clone_from(&disk.label);
        row.record.location.clone_from(&disk.location);
        row.record.capacity = disk.capacity;
        row.record.unit_number = disk.unit_number;
        if row.record != before {
            row.record.updated_at = now;
        }
    }
}

impl State {
    fn remove_vm(&mut self, id: &ContextId) -> Result<(), Refusal> {
        let Some(vm) = self.contexts.get(id) else { return Ok(()) };
        if let Some(job) = &vm.current_job {
            return Err(Refusal::LiveJob(job.clone()));
        }
        if let Some(held) = self.held_by(id) {
            return Err(Refusal::InUse(held));
        }
        let jobs: BTreeSet<JobId> = self
            .jobs
            .values()
            .filter(|job| job.record.context == *id)
            .map(|job| job.record.id.clone())
            .collect();
        for job in &jobs {
            self.forget_job(job);
        }
        self.history.retain(|record| record.disk.context != *id);
        self.journals.retain(|disk, _| disk.context != *id);
        self.operations.retain(|_, intent| intent.record.spec.disk.context != *id);
        self.gone.retain(|_, disk| disk.context != *id);
        self.cleanups.retain(|cleanup| cleanup.spec.plan.context != *id);
        self.failovers.retain(|_, failover| failover.context != *id);
        self.disks.retain(|disk, _| disk.context != *id);
        self.contexts.remove(id);
        Ok(())
    }

    /// What is there of a VM, if anything is.
    fn held_by(&self, id: &ContextId) -> Option<String> {
        let mut volumes = self.volumes.values().filter(|volume| volume.disk.context == *id);
        if let Some(volume) = volumes.next() {
            return Some(format!("its volume {} is {}; delete it first", volume.id, volume.status));
        }
        let mut operations = self.operations.values().map(|intent| &intent.record);
        if let Some(operation) =
            operations.find(|one| one.spec.disk.context == *id && !one.status.is_terminal())
        {
            return Some(format!("its operation {} is unfinished; recover it first", operation.spec.id));
        }
        if let Some(export) = self.exports.values().find(|export| export.disk.context == *id) {
            return Some(format!("its export {} is recorded; withdraw it first", export.name));
        }
        if let Some(point) = self.points.values().find(|point| point.context == *id) {
            return Some(format!("its recovery point {} is recorded; drop it first", point.id));
        }
        let is_under_way = |cleanup: &&Cleanup| {
            cleanup.spec.plan.context == *id && cleanup.status == CleanupStatus::Executing
        };
        if let Some(cleanup) = self.cleanups.iter().find(is_under_way) {
            return Some(format!("cleanup {} is being carried out; let it end first", cleanup.spec.id));
        }
        let mut failovers = self.failovers.values().filter(|failover| failover.context == *id);
        failovers.find_map(|failover| Some(format!("of its failover {}: {}", failover.id, failover.stays()?)))
    }
}

fn check(disks: &[SourceDisk]) -> Result<(), Refusal> {
    let mut keys = BTreeSet::new();
    if let Some(disk) = disks.iter().find(|disk| !keys.insert(&disk.key)) {
        return Err(Refusal::DiskTwice(disk.key.clone()));
    }
    let empty = disks.iter().find(|disk| disk.capacity == ByteSize::ZERO);
    empty.map_or(Ok(()), |disk| Err(Refusal::EmptyDisk(disk.key.clone())))
}

fn discovered(vm: &SourceVm, now: Timestamp) -> VmContext {
    VmContext {
        id: ContextId::mint(),
        identity: vm.identity.clone(),
        name: vm.name.clone(),
        path: vm.path.clone(),
        status: ContextStatus::Discovered,
        epoch: Epoch::FIRST,
        current_job: None,
        created_at: now,
        updated_at: now,
    }
}

impl Disk {
    fn new(disk: DiskRef, now: Timestamp) -> Self {
        let record = DiskRecord {
            disk,
            job: None,
            label: String::new(),
            location: String::new(),
            capacity: ByteSize::ZERO,
            unit_number: None,
            volume: None,
            change_id: None,
            epoch: Epoch::FIRST,
            zeroes_broken: false,
            status: DiskStatus::Pending,
            bytes_synced: ByteSize::ZERO,
            updated_at: now,
        };
        Self { record, committed: None, generation: None }
    }
}
