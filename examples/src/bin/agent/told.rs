//! The journal of a copy that the appliance keeps.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use oma_api::client::Appliance;
use oma_core::record::{CopyBasis, CopyEntry};
use oma_core::traits::CopyJournal;
use oma_core::{ByteSize, DiskKey, Extent, ExtentSet, JobId, Result};

/// Tells the appliance what is finished. What it had was left out of what is to be copied: there is nothing to load.
#[derive(Debug)]
pub(crate) struct Told {
    pub(crate) api: Arc<Appliance>,
    pub(crate) job: JobId,
    pub(crate) disk: DiskKey,
    /// The attempt.
    pub(crate) fence: u64,
    /// Set once something is finished.
    pub(crate) moved: Arc<AtomicBool>,
    /// The end of the disk: a device may be a little larger.
    pub(crate) capacity: ByteSize,
}

#[async_trait]
impl CopyJournal for Told {
    async fn load(&self) -> Result<Option<CopyEntry>> {
        Ok(None)
    }

    async fn begin(&self, _basis: &CopyBasis, _unrecorded: ByteSize) -> Result<()> {
        Ok(())
    }

    async fn record(&self, finished: Extent) -> Result<()> {
        let end = finished.end().min(self.capacity.bytes());
        let extents: ExtentSet = Extent::between(finished.offset(), end).into_iter().collect();
        if extents.is_empty() {
            return Ok(());
        }
        self.api.finished(&self.job, &self.disk, self.fence, extents).await?;
        self.moved.store(true, Ordering::Relaxed);
        Ok(())
    }

    async fn forget(&self) -> Result<()> {
        Ok(())
    }

    async fn end(&self) -> Result<()> {
        Ok(())
    }
}
