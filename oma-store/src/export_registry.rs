use async_trait::async_trait;
use futures_util::stream::BoxStream;
use oma_core::record::{ExportRecord, Lease};
use oma_core::state::{ExportEvent, ExportStatus, VolumeStatus};
use oma_core::traits::ExportRegistry;
use oma_core::{DiskKey, ExportName, VolumeId};

use crate::db::{Tx, vals};
use crate::error::{Result, StoreError};
use crate::lease::{guard, guard_disk};
use crate::page::{PAGE, pages};
use crate::record::{export, volume as volume_of};
use crate::sql::{exports, volumes};
use crate::store::SqlStore;

impl SqlStore {
    async fn begin_export(
        &self,
        lease: &Lease,
        name: &ExportName,
        key: &DiskKey,
        volume: &VolumeId,
    ) -> Result<ExportRecord> {
        let mut tx = self.begin().await?;
        let disk = guard_disk(&mut tx, lease, key).await?;
        let id = &disk.record.disk;
        let linked = tx.find(volumes::OF_DISK, vals![id.context, id.key], volume_of).await?;
        let attached =
            linked.filter(|linked| linked.status == VolumeStatus::Attached && linked.id == *volume);
        let path =
            attached.ok_or_else(|| StoreError::missing("attached volume of this disk", volume))?.device_path;
        let (now, status) = (tx.now().await?, ExportStatus::Starting);
        match find(&mut tx, name).await? {
            Some(taken) if taken.disk != *id || taken.volume != *volume => {
                return Err(StoreError::exists("export", name));
            }
            Some(_) => {
                tx.execute(exports::RESTART, vals![lease.job, path, status, now, name]).await?;
            }
            None => {
                let values = vals![name, lease.job, disk.row, volume, path, status, now, now];
                tx.execute(exports::INSERT, values).await?;
            }
        }
        let begun = must_find(&mut tx, name).await?;
        tx.commit().await?;
        Ok(begun)
    }

    async fn advance_export(
        &self,
        lease: &Lease,
        name: &ExportName,
        event: ExportEvent,
    ) -> Result<ExportRecord> {
        let mut tx = self.begin().await?;
        guard(&mut tx, lease).await?;
        let known = find(&mut tx, name).await?.filter(|known| known.job == lease.job);
        let known = known.ok_or_else(|| StoreError::missing("export of this job", name))?;
        let status = known.status.next(event)?;
        let now = tx.now().await?;
        tx.execute(exports::SET_STATUS, vals![status, now, name]).await?;
        let advanced = must_find(&mut tx, name).await?;
        tx.commit().await?;
        Ok(advanced)
    }

    async fn remove_export(&self, name: &ExportName) -> Result<()> {
        let mut tx = self.begin().await?;
        let Some(known) = find(&mut tx, name).await? else {
            return Ok(());
        };
        if known.status != ExportStatus::Stopped {
            return Err(StoreError::Conflict(format!("it is {}; withdraw it first", known.status)));
        }
        // It may have been started over since it was read.
        if tx.execute(exports::DELETE, vals![name, ExportStatus::Stopped]).await? == 0 {
            return Err(StoreError::Conflict("it was started over; withdraw it first".to_owned()));
        }
        tx.commit().await
    }

    async fn export_page(&self, behind: Option<ExportName>) -> Result<Vec<ExportRecord>> {
        let behind = behind.map_or(String::new(), String::from);
        self.db.all(exports::PAGE, vals![behind, PAGE], export).await
    }
}

async fn find(tx: &mut Tx, name: &ExportName) -> Result<Option<ExportRecord>> {
    tx.find(exports::BY_NAME, vals![name], export).await
}

async fn must_find(tx: &mut Tx, name: &ExportName) -> Result<ExportRecord> {
    find(tx, name).await?.ok_or_else(|| StoreError::missing("export", name))
}

#[async_trait]
impl ExportRegistry for SqlStore {
    async fn begin(
        &self,
        lease: &Lease,
        name: &ExportName,
        key: &DiskKey,
        volume: &VolumeId,
    ) -> oma_core::Result<ExportRecord> {
        let begun = self.settled(|| self.begin_export(lease, name, key, volume)).await;
        begun.map_err(|error| error.at("record export", name))
    }

    async fn advance(
        &self,
        lease: &Lease,
        name: &ExportName,
        event: ExportEvent,
    ) -> oma_core::Result<ExportRecord> {
        let advanced = self.settled(|| self.advance_export(lease, name, event)).await;
        advanced.map_err(|error| error.at("advance export", name))
    }

    async fn export(&self, name: &ExportName) -> oma_core::Result<Option<ExportRecord>> {
        let found = self.db.find(exports::BY_NAME, vals![name], export).await;
        found.map_err(|error| error.at("read export", name))
    }

    fn exports(&self) -> BoxStream<'_, oma_core::Result<ExportRecord>> {
        let page =
            async move |behind| self.export_page(behind).await.map_err(|error| error.at("list", "exports"));
        pages(None, |last: &ExportRecord| last.name.clone(), page)
    }

    async fn remove(&self, name: &ExportName) -> oma_core::Result<()> {
        self.settled(|| self.remove_export(name)).await.map_err(|error| error.at("remove export", name))
    }
}
