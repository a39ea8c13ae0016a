//! Volumes, their operations, and the VMs that they are for.

mod change;
mod health;
mod look;
mod operations;
mod reconcile;
mod snapshots;
mod vms;

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

pub(super) use self::health::Standing;
use oma_core::engine::{CancellationToken, Reconciler, VolumeService};
use oma_core::record::{Operation, VmContext, VolumeRecord};
use oma_core::traits::Inventory;
use oma_core::{ContextId, DiskRef, Error, ErrorKind, VolumeId};
use utoipa_axum::router::OpenApiRouter;

use super::problem::Answer;
use crate::{OperationRow, VolumeRow};

/// What the routes of volumes work with.
#[derive(Clone, Debug)]
pub struct VolumeRoutes {
    /// Changes volumes.
    pub service: VolumeService,
    /// VMs and disks.
    pub inventory: Arc<dyn Inventory>,
    /// Compares records and backend.
    pub reconciler: Reconciler,
    /// The cloud's id of the virtual machine that this process runs in, where it is known.
    pub machine: Option<String>,
    /// Cancelled when the daemon is to end: nobody is kept waiting any longer.
    pub stop: CancellationToken,
}

/// The group.
pub(super) fn group(routes: VolumeRoutes) -> OpenApiRouter {
    OpenApiRouter::new()
        .merge(change::group())
        .merge(look::group())
        .merge(operations::group())
        .merge(reconcile::group())
        .merge(snapshots::group())
        .merge(vms::group())
        .with_state(routes)
}

/// What needs no token.
pub(super) fn open(routes: VolumeRoutes) -> OpenApiRouter {
    health::open().with_state(routes)
}

impl VolumeRoutes {
    async fn volume(&self, id: &VolumeId) -> Answer<VolumeRecord> {
        let found = self.service.services().volumes.volume(id).await?;
        Ok(found.ok_or_else(|| {
            Error::new(ErrorKind::NotFound, "find volume", id)
                .because("there is no record of it; GET /volumes lists what there is")
        })?)
    }

    /// Whether the device of a volume is one of this machine. On another one its path means nothing, or another disk.
    fn sees(&self, volume: &VolumeRecord) -> bool {
        volume.attached_to.as_ref() == Some(self.service.worker())
    }

    /// The VMs of a page.
    async fn vms<'a>(
        &self,
        ids: impl Iterator<Item = &'a ContextId>,
    ) -> Answer<HashMap<ContextId, VmContext>> {
        let ids: BTreeSet<&ContextId> = ids.collect();
        let mut vms = HashMap::new();
        for id in ids {
            vms.extend(self.inventory.context(id).await?.map(|vm| (id.clone(), vm)));
        }
        Ok(vms)
    }

    async fn volume_row(&self, volume: &VolumeRecord) -> Answer<VolumeRow> {
        let vm = self.inventory.context(&volume.disk.context).await?;
        Ok(VolumeRow::new(vm.as_ref(), volume))
    }

    async fn operation_row(&self, operation: &Operation) -> Answer<OperationRow> {
        let DiskRef { context, .. } = &operation.spec.disk;
        let vm = self.inventory.context(context).await?;
        Ok(OperationRow::new(vm.as_ref(), operation))
    }
}
