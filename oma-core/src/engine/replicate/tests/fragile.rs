use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use crate::memory::MemoryStore;
use crate::record::{JournalEntry, Lease};
use crate::traits::ExtentJournal;
use crate::{ByteSize, DiskKey, DiskRef, Error, ErrorKind, Extent, Result};

/// A journal that can be damaged, and whose calls can kill.
#[derive(Debug)]
pub(super) struct Fragile {
    store: Arc<MemoryStore>,
    damaged: Mutex<BTreeSet<DiskKey>>,
    /// Dies before or after one of the next calls; 0 is never.
    dies: AtomicUsize,
    /// Calls that changed something.
    calls: AtomicU64,
}

impl Fragile {
    pub(super) fn new(store: Arc<MemoryStore>) -> Arc<Self> {
        Arc::new(Self {
            store,
            damaged: Mutex::default(),
            dies: AtomicUsize::new(0),
            calls: AtomicU64::new(0),
        })
    }

    pub(super) fn damage(&self, key: DiskKey) {
        self.damaged.lock().unwrap().insert(key);
    }

    /// Lets the `nth` moment be the last, counting one before and one after each call that changes something.
    pub(super) fn die_at(&self, nth: usize) {
        self.dies.store(nth, Ordering::SeqCst);
    }

    /// How many calls changed something so far.
    pub(super) fn calls(&self) -> u64 {
        self.calls.load(Ordering::SeqCst)
    }

    fn moment(&self) {
        let left = self.dies.load(Ordering::SeqCst);
        self.dies.store(left.saturating_sub(1), Ordering::SeqCst);
        if left == 1 {
            std::panic::resume_unwind(Box::new("killed"));
        }
    }
}

#[async_trait::async_trait]
impl ExtentJournal for Fragile {
    async fn load(&self, disk: &DiskRef) -> Result<Option<JournalEntry>> {
        if self.damaged.lock().unwrap().contains(&disk.key) {
            return Err(Error::new(ErrorKind::Corrupt, "read journal", disk));
        }
        self.store.load(disk).await
    }

    async fn begin(&self, lease: &Lease, key: &DiskKey, entry: &JournalEntry) -> Result<()> {
        self.moment();
        self.calls.fetch_add(1, Ordering::SeqCst);
        ExtentJournal::begin(&*self.store, lease, key, entry).await?;
        self.damaged.lock().unwrap().remove(key);
        self.moment();
        Ok(())
    }

    async fn record(&self, lease: &Lease, key: &DiskKey, finished: Extent, synced: ByteSize) -> Result<()> {
        self.moment();
        self.calls.fetch_add(1, Ordering::SeqCst);
        ExtentJournal::record(&*self.store, lease, key, finished, synced).await?;
        self.moment();
        Ok(())
    }
}
