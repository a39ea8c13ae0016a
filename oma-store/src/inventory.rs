use std::collections::BTreeSet;

use async_trait::async_trait;
use futures_util::stream::BoxStream;
use oma_core::record::{DiskRecord, SourceDisk, SourceIdentity, SourceVm, VmContext};
use oma_core::state::{ContextStatus, DiskStatus};
use oma_core::traits::Inventory;
use oma_core::{ByteSize, ContextId, DiskRef, Timestamp, VmPath};

use crate::cleanups::failover;
use crate::db::{Tx, vals};
use crate::error::{Result, StoreError};
use crate::job_store::{find_context, name};
use crate::lease::OwnDisk;
use crate::page::{PAGE, pages};
use crate::record::{context, disk};
use crate::sql::{cleanups, vms};
use crate::store::SqlStore;

impl SqlStore {
    async fn record_vm(&self, vm: &SourceVm) -> Result<VmContext> {
        check(&vm.disks)?;
        let mut tx = self.begin().await?;
        let now = tx.now().await?;
        let identity = vals![vm.identity.instance_uuid, vm.identity.endpoint];
        let id = match tx.find(vms::BY_IDENTITY, identity, context).await? {
            None => insert_vm(&mut tx, vm, now).await?,
            Some(known) => {
                if known.name != vm.name || known.path != vm.path {
                    tx.execute(vms::DISCOVER, vals![vm.name, vm.path, now, known.id]).await?;
                }
                known.id
            }
        };
        for disk in &vm.disks {
            record_disk(&mut tx, &id, disk, now).await?;
        }
        let recorded = find_context(&mut tx, &id).await?;
        tx.commit().await?;
        Ok(recorded)
    }

    async fn delete_vm(&self, id: &ContextId) -> Result<()> {
        let mut tx = self.begin().await?;
        // Whoever begins a job, and by it a volume or a point, waits for this row.
        tx.execute(vms::LOCK, vals![id]).await?;
        let Some(known) = tx.find(vms::CONTEXT, vals![id], context).await? else { return Ok(()) };
        if let Some(job) = known.current_job {
            return Err(StoreError::Conflict(format!(
                "the VM has the live job {job}; continue or end it first"
            )));
        }
        for (sql, what, first) in [
            (vms::VOLUME_OF, "volume", "delete it"),
            (vms::UNFINISHED_OF, "operation", "recover it"),
            (vms::EXPORT_OF, "export", "withdraw it"),
            (vms::POINT_OF, "recovery point", "drop it"),
            (vms::CLEANUP_OF, "cleanup", "let it end"),
        ] {
            if let Some(held) = tx.find(sql, vals![id], name).await? {
                return Err(StoreError::Conflict(format!("its {what} {held} is recorded; {first} first")));
            }
        }
        for failover in tx.all(cleanups::FAILOVERS, vals![id], failover).await? {
            if let Some(why) = failover.stays() {
                return Err(StoreError::Conflict(format!("of its failover {}: {why}", failover.id)));
            }
        }
        for sql in [vms::FORGET_OPERATIONS, vms::FORGET_VOLUMES, vms::REMOVE] {
            tx.execute(sql, vals![id]).await?;
        }
        tx.commit().await
    }

    async fn vm_page(&self, behind: Option<ContextId>) -> Result<Vec<VmContext>> {
        let behind = behind.map_or(String::new(), String::from);
        self.db.all(vms::PAGE, vals![behind, PAGE], context).await
    }
}

fn check(disks: &[SourceDisk]) -> Result<()> {
    let mut keys = BTreeSet::new();
    for disk in disks {
        let key = &disk.key;
        if !keys.insert(key) {
            return Err(StoreError::Invalid(format!("disk {key} is named twice; name each disk once")));
        }
        if disk.capacity == ByteSize::ZERO {
            return Err(StoreError::Invalid(format!("disk {key} has no byte; a disk has at least one")));
        }
    }
    Ok(())
}

async fn insert_vm(tx: &mut Tx, vm: &SourceVm, now: Timestamp) -> Result<ContextId> {
    let id = ContextId::mint();
    let values = vals![
        id,
        vm.identity.instance_uuid,
        vm.identity.endpoint,
        vm.name,
        vm.path,
        ContextStatus::Discovered,
        now,
        now,
        now,
    ];
    tx.execute(vms::INSERT, values).await?;
    Ok(id)
}

async fn record_disk(tx: &mut Tx, vm: &ContextId, disk: &SourceDisk, now: Timestamp) -> Result<()> {
    let SourceDisk { key, label, location, capacity, unit_number } = disk;
    let known = tx.find(vms::DISK, vals![vm, key], OwnDisk::read).await?;
    let Some(known) = known else {
        let values = vals![vm, key, location, label, capacity, unit_number, DiskStatus::Pending, now, now];
        return tx.execute(vms::INSERT_DISK, values).await.map(|_| ());
    };
    let DiskRecord { label: old_label, location: old_location, capacity: old, unit_number: old_unit, .. } =
        &known.record;
    if (label, location, capacity, unit_number) != (old_label, old_location, old, old_unit) {
        let values = vals![location, label, capacity, unit_number, now, known.row];
        tx.execute(vms::DISCOVER_DISK, values).await?;
    }
    Ok(())
}

#[async_trait]
impl Inventory for SqlStore {
    async fn record(&self, vm: &SourceVm) -> oma_core::Result<VmContext> {
        self.settled(|| self.record_vm(vm)).await.map_err(|error| error.at("record VM", &vm.path))
    }

    async fn context(&self, id: &ContextId) -> oma_core::Result<Option<VmContext>> {
        self.db.find(vms::CONTEXT, vals![id], context).await.map_err(|error| error.at("read VM", id))
    }

    async fn by_identity(&self, identity: &SourceIdentity) -> oma_core::Result<Option<VmContext>> {
        let values = vals![identity.instance_uuid, identity.endpoint];
        let found = self.db.find(vms::BY_IDENTITY, values, context).await;
        found.map_err(|error| error.at("find VM", &identity.instance_uuid))
    }

    async fn by_path(&self, path: &VmPath) -> oma_core::Result<Option<VmContext>> {
        self.db.find(vms::BY_PATH, vals![path], context).await.map_err(|error| error.at("find VM", path))
    }

    fn contexts(&self, after: Option<&ContextId>) -> BoxStream<'_, oma_core::Result<VmContext>> {
        let page = async move |behind| self.vm_page(behind).await.map_err(|error| error.at("list", "VMs"));
        pages(after.cloned(), |last: &VmContext| last.id.clone(), page)
    }

    async fn disk(&self, id: &DiskRef) -> oma_core::Result<Option<DiskRecord>> {
        let found = self.db.find(vms::DISK, vals![id.context, id.key], disk).await;
        found.map_err(|error| error.at("read disk", id))
    }

    async fn disks(&self, context: &ContextId) -> oma_core::Result<Vec<DiskRecord>> {
        let found = self.db.all(vms::DISKS, vals![context], disk).await;
        found.map_err(|error| error.at("list the disks of VM", context))
    }

    async fn remove_vm(&self, id: &ContextId) -> oma_core::Result<()> {
        self.settled(|| self.delete_vm(id)).await.map_err(|error| error.at("remove VM", id))
    }
}
