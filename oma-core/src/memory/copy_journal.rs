use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;

use crate::record::{CopyBasis, CopyEntry};
use crate::traits::CopyJournal;
use crate::{ByteSize, Error, ErrorKind, Extent, ExtentSet, Result};

/// The journal of a copy in memory; clones share it.
#[derive(Clone, Debug, Default)]
pub struct MemoryCopyJournal(Arc<Mutex<Option<CopyEntry>>>);

impl MemoryCopyJournal {
    fn entry(&self) -> MutexGuard<'_, Option<CopyEntry>> {
        // The entry is complete after every line that changes it.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl CopyJournal for MemoryCopyJournal {
    async fn load(&self) -> Result<Option<CopyEntry>> {
        Ok(self.entry().clone())
    }

    async fn begin(&self, basis: &CopyBasis, unrecorded: ByteSize) -> Result<()> {
        let mut entry = self.entry();
        let new =
            || CopyEntry { basis: basis.clone(), finished: ExtentSet::new(), unrecorded: ByteSize::ZERO };
        let entry = entry.get_or_insert_with(new);
        if let Some(difference) = entry.basis.difference(basis) {
            return Err(Error::new(ErrorKind::Conflict, "begin journal", "memory").because(difference));
        }
        entry.unrecorded += unrecorded;
        Ok(())
    }

    async fn record(&self, finished: Extent) -> Result<()> {
        match &mut *self.entry() {
            Some(entry) => {
                entry.finished.insert(finished);
                Ok(())
            }
            None => Err(Error::new(ErrorKind::NotFound, "write journal", "memory")),
        }
    }

    async fn forget(&self) -> Result<()> {
        match &mut *self.entry() {
            Some(entry) => {
                entry.forget();
                Ok(())
            }
            None => Err(Error::new(ErrorKind::NotFound, "write journal", "memory")),
        }
    }

    async fn end(&self) -> Result<()> {
        *self.entry() = None;
        Ok(())
    }
}
