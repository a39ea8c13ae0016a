use async_trait::async_trait;

use super::error::Refusal;
use super::{MemoryStore, State};
use crate::record::{JournalEntry, Lease};
use crate::state::DiskEvent;
use crate::traits::ExtentJournal;
use crate::{ByteSize, DiskKey, DiskRef, Extent, Result, Timestamp};

#[async_trait]
impl ExtentJournal for MemoryStore {
    async fn load(&self, disk: &DiskRef) -> Result<Option<JournalEntry>> {
        Ok(self.state().journals.get(disk).cloned())
    }

    async fn begin(&self, lease: &Lease, key: &DiskKey, entry: &JournalEntry) -> Result<()> {
        self.change("begin journal", key, |state, now| {
            let disk = state.guard_disk(lease, key)?;
            state.note_sync(&disk, entry.synced(), now)?;
            state.journals.insert(disk, entry.clone());
            Ok(())
        })
    }

    async fn record(&self, lease: &Lease, key: &DiskKey, finished: Extent, synced: ByteSize) -> Result<()> {
        self.change("record finished extent", key, |state, now| {
            let disk = state.guard_disk(lease, key)?;
            if !state.journals.contains_key(&disk) {
                return Err(Refusal::unknown("journal of disk", key));
            }
            state.note_sync(&disk, synced, now)?;
            state.journals.entry(disk).and_modify(|entry| entry.finished.insert(finished));
            Ok(())
        })
    }
}

impl State {
    fn note_sync(&mut self, disk: &DiskRef, synced: ByteSize, now: Timestamp) -> Result<(), Refusal> {
        let record = &mut self.disk_mut(disk).record;
        record.status = record.status.next(DiskEvent::Start)?;
        record.bytes_synced = synced;
        record.updated_at = now;
        let job = record.job.clone();
        let of_job = self.disks.values().map(|disk| &disk.record).filter(|record| record.job == job);
        let bytes = of_job.fold(0_u64, |bytes, record| bytes.saturating_add(record.bytes_synced.bytes()));
        if let Some(job) = job.and_then(|job| self.jobs.get_mut(&job)) {
            job.bytes = ByteSize::new(bytes);
        }
        Ok(())
    }
}
