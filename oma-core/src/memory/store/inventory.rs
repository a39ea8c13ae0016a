use std::collections::BTreeSet;

use async_trait::async_trait;
use futures_util::stream::BoxStream;

use super::error::Refusal;
use super::{Disk, MemoryStore, State, behind, listed};
use crate::record::{DiskRecord, SourceDisk, SourceIdentity, SourceVm, VmContext};
use crate::state::{ContextStatus, DiskStatus};
use crate::traits::Inventory;
use crate::{ByteSize, ContextId, DiskRef, Epoch, Result, Timestamp, VmPath};

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
