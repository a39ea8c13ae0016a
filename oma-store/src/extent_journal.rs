use async_trait::async_trait;
use oma_core::record::{JournalBasis, JournalEntry, Lease};
use oma_core::state::DiskEvent;
use oma_core::traits::ExtentJournal;
use oma_core::{ByteSize, DiskKey, DiskRef, Extent, ExtentSet};

use crate::db::{Row, Tx, vals};
use crate::error::{Result, StoreError};
use crate::lease::guard_disk;
use crate::sql::{jobs, journals, vms};
use crate::store::SqlStore;

impl SqlStore {
    async fn load_journal(&self, disk: &DiskRef) -> Result<Option<JournalEntry>> {
        let mut tx = self.db.snapshot().await?;
        let found = tx.find(journals::BY_DISK, vals![disk.context, disk.key], entry).await?;
        let Some((id, mut entry)) = found else {
            return Ok(None);
        };
        entry.finished = tx.all(journals::EXTENTS, vals![id], extent).await?.into_iter().collect();
        Ok(Some(entry))
    }

    async fn begin_journal(
        &self,
        lease: &Lease,
        key: &DiskKey,
        basis: &JournalBasis,
        planned: &ExtentSet,
    ) -> Result<()> {
        let mut tx = self.begin().await?;
        let disk = guard_disk(&mut tx, lease, key).await?;
        let status = disk.record.status.next(DiskEvent::Start)?;
        let now = tx.now().await?;
        let bytes = if basis.base.is_none() { basis.capacity } else { planned.bytes() };
        tx.execute(vms::START_DISK, vals![status, bytes, now, disk.row]).await?;
        tx.execute(journals::DELETE, vals![disk.row]).await?;
        let (basis, planned) = (serde_json::to_string(basis)?, serde_json::to_string(planned)?);
        tx.execute(journals::INSERT, vals![disk.row, basis, planned, now]).await?;
        progress(&mut tx, lease).await?;
        tx.commit().await
    }

    async fn record_finished(
        &self,
        lease: &Lease,
        key: &DiskKey,
        finished: Extent,
        synced: ByteSize,
    ) -> Result<()> {
        let mut tx = self.begin().await?;
        let disk = guard_disk(&mut tx, lease, key).await?;
        let exists = tx.find(journals::EXISTS, vals![disk.row], |_| Ok(())).await?;
        exists.ok_or_else(|| StoreError::missing("journal of disk", key))?;
        insert_extent(&mut tx, disk.row, finished).await?;
        let status = disk.record.status.next(DiskEvent::Start)?;
        let now = tx.now().await?;
        tx.execute(vms::SYNC_DISK, vals![status, synced, now, disk.row]).await?;
        progress(&mut tx, lease).await?;
        tx.commit().await
    }
}

/// Adds an extent; runs that it touches become one row with it, so the cost does not grow with the journal.
async fn insert_extent(tx: &mut Tx, disk: i64, finished: Extent) -> Result<()> {
    let (mut start, mut end) = (finished.offset(), finished.end());
    while let Some(known) = tx.find(journals::LAST_UP_TO, vals![disk, end], extent).await? {
        if known.end() < start {
            break;
        }
        tx.execute(journals::DELETE_EXTENT, vals![disk, known.offset()]).await?;
        start = start.min(known.offset());
        end = end.max(known.end());
    }
    tx.execute(journals::INSERT_EXTENT, vals![disk, start, end]).await.map(|_| ())
}

/// A journal without its finished extents, and the number of its disk.
pub(crate) fn entry(row: &Row) -> Result<(i64, JournalEntry)> {
    let fields = row.fields("disk_journals", "vm_disk_id");
    let (basis, planned) = (fields.json("basis")?, fields.json("planned")?);
    Ok((fields.int("vm_disk_id")?, JournalEntry { basis, planned, finished: ExtentSet::new() }))
}

fn extent(row: &Row) -> Result<Extent> {
    let fields = row.fields("disk_journal_extents", "vm_disk_id");
    let (start, end) = (fields.count("start_offset")?, fields.count("end_offset")?);
    Extent::between(start, end).ok_or_else(|| fields.damaged("end_offset", "it is not behind start_offset"))
}

async fn progress(tx: &mut Tx, lease: &Lease) -> Result<()> {
    tx.execute(jobs::PROGRESS, vals![lease.job, lease.fence, lease.worker]).await.map(|_| ())
}

#[async_trait]
impl ExtentJournal for SqlStore {
    async fn load(&self, disk: &DiskRef) -> oma_core::Result<Option<JournalEntry>> {
        self.load_journal(disk).await.map_err(|error| error.at("read the journal of disk", disk))
    }

    async fn begin(
        &self,
        lease: &Lease,
        key: &DiskKey,
        basis: &JournalBasis,
        planned: &ExtentSet,
    ) -> oma_core::Result<()> {
        let begun = self.settled(|| self.begin_journal(lease, key, basis, planned)).await;
        begun.map_err(|error| error.at("begin the journal of disk", key))
    }

    async fn record(
        &self,
        lease: &Lease,
        key: &DiskKey,
        finished: Extent,
        synced: ByteSize,
    ) -> oma_core::Result<()> {
        let recorded = self.settled(|| self.record_finished(lease, key, finished, synced)).await;
        recorded.map_err(|error| error.at("record what is finished of disk", key))
    }
}
