mod deletion;
mod list;
mod operation;
mod volume;

use std::time::Duration;

use async_trait::async_trait;
use futures_util::stream::BoxStream;
use oma_core::record::{
    ContentStamp, Lease, Operation, OperationFilter, OperationSpec, VolumeContent, VolumeFilter, VolumeRecord,
};
use oma_core::traits::{Volume, VolumeRegistry};
use oma_core::{DiskRef, Generation, InstanceId, OperationId, VolumeId, WorkerId};

use crate::db::{Row, vals};
use crate::error::{Result, StoreError};
use crate::migrate::INSTANCE;
use crate::record::{operation as operation_of, volume as volume_of};
use crate::sql::{meta, operations, volumes};
use crate::store::SqlStore;

impl SqlStore {
    async fn read_instance(&self) -> Result<InstanceId> {
        let value = |row: &Row| row.fields("oma_meta", "name").parse("value");
        let found = self.db.find(meta::GET, vals![INSTANCE], value).await?;
        found.ok_or_else(|| StoreError::missing("oma_meta row", INSTANCE))
    }
}

#[async_trait]
impl VolumeRegistry for SqlStore {
    async fn instance(&self) -> oma_core::Result<InstanceId> {
        self.read_instance().await.map_err(|error| error.at("read", "the deployment's id"))
    }

    async fn begin(&self, lease: &Lease, spec: &OperationSpec) -> oma_core::Result<Operation> {
        let begun = self.settled(|| self.begin_operation(lease, spec)).await;
        begun.map_err(|error| error.at("record operation", &spec.id))
    }

    async fn condemn(
        &self,
        lease: &Lease,
        spec: &OperationSpec,
        grace: Duration,
    ) -> oma_core::Result<Operation> {
        let condemned = self.settled(|| self.condemn_volume(lease, spec, grace)).await;
        condemned.map_err(|error| error.at("condemn volume by operation", &spec.id))
    }

    async fn execute(&self, lease: &Lease, id: &OperationId) -> oma_core::Result<Operation> {
        let executing = self.settled(|| self.execute_operation(lease, id)).await;
        executing.map_err(|error| error.at("execute operation", id))
    }

    async fn pardon(&self, lease: &Lease, id: &OperationId, reason: &str) -> oma_core::Result<Operation> {
        let pardoned = self.settled(|| self.pardon_volume(lease, id, reason)).await;
        pardoned.map_err(|error| error.at("call off operation", id))
    }

    async fn doubt(&self, lease: &Lease, id: &OperationId, why: &str) -> oma_core::Result<()> {
        let kept = self.settled(|| self.doubt_operation(lease, id, why)).await;
        kept.map_err(|error| error.at("keep a doubt about operation", id))
    }

    async fn operation(&self, id: &OperationId) -> oma_core::Result<Option<Operation>> {
        let found = self.db.find(operations::BY_ID, vals![id], operation_of).await;
        found.map_err(|error| error.at("read operation", id))
    }

    fn operations(&self, filter: OperationFilter) -> BoxStream<'_, oma_core::Result<Operation>> {
        self.list_operations(filter)
    }

    async fn unfinished(&self, disk: &DiskRef) -> oma_core::Result<Option<Operation>> {
        let found = self.db.find(operations::UNFINISHED, vals![disk.context, disk.key], operation_of).await;
        found.map_err(|error| error.at("find the unfinished operation of disk", disk))
    }

    async fn complete(
        &self,
        lease: &Lease,
        id: &OperationId,
        volume: &Volume,
        zeroed: bool,
    ) -> oma_core::Result<VolumeRecord> {
        let content = if zeroed { VolumeContent::Blank } else { VolumeContent::Inconsistent };
        let completed = self.settled(|| self.complete_operation(lease, id, volume, content)).await;
        completed.map_err(|error| error.at("complete operation", id))
    }

    async fn fail(&self, lease: &Lease, id: &OperationId, error: &str) -> oma_core::Result<()> {
        let failed = self.settled(|| self.fail_operation(lease, id, error)).await;
        failed.map_err(|error| error.at("fail operation", id))
    }

    async fn volume(&self, id: &VolumeId) -> oma_core::Result<Option<VolumeRecord>> {
        let found = self.db.find(volumes::BY_ID, vals![id], volume_of).await;
        found.map_err(|error| error.at("read volume", id))
    }

    async fn volume_of(&self, disk: &DiskRef) -> oma_core::Result<Option<VolumeRecord>> {
        let found = self.db.find(volumes::OF_DISK, vals![disk.context, disk.key], volume_of).await;
        found.map_err(|error| error.at("find the volume of disk", disk))
    }

    async fn volume_at(
        &self,
        machine: &WorkerId,
        device_path: &str,
    ) -> oma_core::Result<Option<VolumeRecord>> {
        let found = self.db.find(volumes::AT_DEVICE, vals![machine, device_path], volume_of).await;
        // MariaDB takes a path for the same that only ends in more blanks.
        let is_same = |volume: &VolumeRecord| volume.device_path.as_deref() == Some(device_path);
        found
            .map(|found| found.filter(is_same))
            .map_err(|error| error.at("find the volume of device", device_path))
    }

    fn volumes(&self, filter: VolumeFilter) -> BoxStream<'_, oma_core::Result<VolumeRecord>> {
        self.list_volumes(filter)
    }

    async fn mark_inconsistent(&self, lease: &Lease, id: &VolumeId) -> oma_core::Result<()> {
        let marked = self.settled(|| self.mark(lease, id)).await;
        marked.map_err(|error| error.at("mark as inconsistent volume", id))
    }

    async fn keep_stamp(&self, lease: &Lease, id: &VolumeId, stamp: &ContentStamp) -> oma_core::Result<()> {
        let kept = self.settled(|| self.stamp(lease, id, stamp)).await;
        kept.map_err(|error| error.at("keep the stamp of volume", id))
    }

    async fn advance_generation(&self, lease: &Lease, id: &VolumeId) -> oma_core::Result<Generation> {
        let advanced = self.settled(|| self.advance_volume(lease, id)).await;
        advanced.map_err(|error| error.at("advance the generation of volume", id))
    }

    async fn renew_generation(&self, lease: &Lease, id: &VolumeId) -> oma_core::Result<Generation> {
        let renewed = self.settled(|| self.renew_volume(lease, id)).await;
        renewed.map_err(|error| error.at("renew the generation of volume", id))
    }

    async fn distrust_zeroes(&self, lease: &Lease, id: &VolumeId) -> oma_core::Result<Generation> {
        let advanced = self.settled(|| self.distrust(lease, id)).await;
        advanced.map_err(|error| error.at("distrust zeroes of the disk of volume", id))
    }

    async fn forget(&self, lease: &Lease, id: &VolumeId) -> oma_core::Result<()> {
        let forgotten = self.settled(|| self.forget_volume(lease, id)).await;
        forgotten.map_err(|error| error.at("forget volume", id))
    }
}
