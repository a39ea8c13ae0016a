mod stored;

use async_trait::async_trait;
use oma_core::record::{JournalEntry, Lease};
use oma_core::state::DiskEvent;
use oma_core::traits::ExtentJournal;
use oma_core::{ByteSize, DiskKey, DiskRef, Extent, Generation};

use self::stored::{Written, known, run, run_checksum};
use crate::db::{Tx, vals};
use crate::error::{Result, StoreError};
use crate::lease::{OwnDisk, guard_disk};
use crate::sql::{jobs, journals, vms};
use crate::store::SqlStore;

pub(crate) use self::stored::read;

impl SqlStore {
    async fn load_journal(&self, disk: &DiskRef) -> Result<Option<JournalEntry>> {
        let mut tx = self.db.snapshot().await?;
        let found = tx.find(journals::BY_DISK, vals![disk.context, disk.key], |row| Ok(row.clone())).await?;
        match found {
            None => Ok(None),
            Some(row) => read(&mut tx, &row).await.map(Some),
        }
    }

    async fn begin_journal(&self, lease: &Lease, key: &DiskKey, entry: &JournalEntry) -> Result<()> {
        let mut tx = self.begin().await?;
        let disk = guard_disk(&mut tx, lease, key).await?;
        let status = disk.record.status.next(DiskEvent::Start)?;
        let now = tx.now().await?;
        tx.execute(vms::START_DISK, vals![status, entry.scope().bytes(), now, disk.row]).await?;
        tx.execute(vms::SYNC_DISK, vals![status, entry.synced(), now, disk.row]).await?;
        replace(&mut tx, disk.row, &Written::new(entry)?).await?;
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
        let journal = known(&mut tx, disk.row).await?;
        let journal = journal.ok_or_else(|| StoreError::missing("journal of disk", key))?;
        insert_extent(&mut tx, disk.row, &journal, finished).await?;
        let status = disk.record.status.next(DiskEvent::Start)?;
        let now = tx.now().await?;
        tx.execute(vms::SYNC_DISK, vals![status, synced, now, disk.row]).await?;
        progress(&mut tx, lease).await?;
        tx.commit().await
    }
}

/// Writes a journal in place of any other of the disk.
async fn replace(tx: &mut Tx, disk: i64, written: &Written) -> Result<()> {
    let now = tx.now().await?;
    tx.execute(journals::DELETE, vals![disk]).await?;
    let count = i64::try_from(written.parts.len()).unwrap_or(i64::MAX);
    let values = vals![disk, written.basis, written.planned_parts, count, written.checksum, now];
    tx.execute(journals::INSERT, values).await?;
    for (number, part) in (0_i64..).zip(&written.parts) {
        tx.execute(journals::INSERT_PART, vals![disk, number, part]).await?;
    }
    Ok(())
}

/// The journal of a generation goes on with the next one of the same content. One that is damaged stays so: it proves nothing.
pub(crate) async fn renew_journal(
    tx: &mut Tx,
    disk: &OwnDisk,
    old: Generation,
    new: Generation,
) -> Result<()> {
    let DiskRef { context, key } = &disk.record.disk;
    let found = tx.find(journals::BY_DISK, vals![context, key], |row| Ok(row.clone())).await?;
    let Some(row) = found else { return Ok(()) };
    match read(tx, &row).await {
        Ok(mut entry) if entry.basis.generation == old => {
            entry.basis.generation = new;
            replace(tx, disk.row, &Written::new(&entry)?).await
        }
        Ok(_) | Err(StoreError::Row { .. }) => Ok(()),
        Err(error) => Err(error),
    }
}

/// Adds an extent; runs that it touches become one row with it, so the cost does not grow with the journal.
async fn insert_extent(tx: &mut Tx, disk: i64, journal: &str, finished: Extent) -> Result<()> {
    let (mut start, mut end) = (finished.offset(), finished.end());
    while let Some(row) = tx.find(journals::LAST_UP_TO, vals![disk, end], |row| Ok(row.clone())).await? {
        let known = run(&row, journal)?;
        if known.end() < start {
            break;
        }
        tx.execute(journals::DELETE_EXTENT, vals![disk, known.offset()]).await?;
        start = start.min(known.offset());
        end = end.max(known.end());
    }
    let checksum = run_checksum(journal, start, end);
    tx.execute(journals::INSERT_EXTENT, vals![disk, start, end, checksum]).await.map(|_| ())
}

async fn progress(tx: &mut Tx, lease: &Lease) -> Result<()> {
    tx.execute(jobs::PROGRESS, vals![lease.job, lease.fence, lease.worker]).await.map(|_| ())
}

#[async_trait]
impl ExtentJournal for SqlStore {
    async fn load(&self, disk: &DiskRef) -> oma_core::Result<Option<JournalEntry>> {
        self.load_journal(disk).await.map_err(|error| error.at("read the journal of disk", disk))
    }

    async fn begin(&self, lease: &Lease, key: &DiskKey, entry: &JournalEntry) -> oma_core::Result<()> {
        let begun = self.settled(|| self.begin_journal(lease, key, entry)).await;
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
