//! A source that is waited for only so long, and believed only as far as it can be checked.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};

use super::config::ReplicateConfig;
use super::zeroes::flaw;
use crate::record::SourceVm;
use crate::traits::{
    BlockDevice, BlockStatus, Changes, DeviceInfo, DiskSource, Durability, HashedLeaves, InPlace, LeafHasher,
    PointInTime, ReadFrom, Zeroing,
};
use crate::{ChangeId, DiskKey, Error, ErrorKind, Extent, JobId, PointId, Result, Retry, VmPath};

/// Ends calls that take too long, and checks what reads and block status answer. Everything else goes through.
#[derive(Debug)]
pub(super) struct GuardedSource {
    inner: Arc<dyn DiskSource>,
    answer: Duration,
    read: Duration,
}

impl GuardedSource {
    pub(super) fn new(inner: Arc<dyn DiskSource>, config: &ReplicateConfig) -> Self {
        Self { inner, answer: config.answer_limit, read: config.read_limit }
    }

    async fn within<T>(
        &self,
        what: &'static str,
        of: &(impl ToString + Sync),
        call: impl Future<Output = Result<T>> + Send,
    ) -> Result<T> {
        within(self.answer, call).await.unwrap_or_else(|| Err(too_late(what, of, self.answer)))
    }
}

/// `None` when it takes longer.
async fn within<T>(limit: Duration, call: impl Future<Output = T>) -> Option<T> {
    tokio::time::timeout(limit, call).await.ok()
}

pub(super) fn too_late(what: &'static str, of: &impl ToString, limit: Duration) -> Error {
    Error::new(ErrorKind::Unavailable, what, of.to_string())
        .because(format!("the source did not answer within {} s", limit.as_secs_f64()))
        // It was waited for long enough; what hangs is not asked again in this run.
        .with_retry(Retry::Exhausted)
}

#[async_trait]
impl DiskSource for GuardedSource {
    async fn discover(&self, vm: &VmPath) -> Result<SourceVm> {
        self.within("discover VM", vm, self.inner.discover(vm)).await
    }

    async fn freeze(&self, vm: &VmPath, job: &JobId) -> Result<PointInTime> {
        self.within("freeze VM", vm, self.inner.freeze(vm, job)).await
    }

    async fn changed(&self, point: &PointId, key: &DiskKey, since: &ChangeId) -> Result<Changes> {
        self.within("ask for changes", key, self.inner.changed(point, key, since)).await
    }

    async fn committed(&self, point: &PointId, key: &DiskKey, change_id: &ChangeId) -> Result<()> {
        self.within("tell of an epoch", key, self.inner.committed(point, key, change_id)).await
    }

    async fn open(&self, point: &PointId, key: &DiskKey) -> Result<Arc<dyn BlockDevice>> {
        let inner = self.within("open disk", key, self.inner.open(point, key)).await?;
        Ok(Arc::new(GuardedDevice { inner, read: self.read }))
    }

    async fn confirm(&self, point: &PointInTime) -> Result<()> {
        self.within("confirm point in time", &point.id, self.inner.confirm(point)).await
    }

    async fn release(&self, point: &PointId) -> Result<()> {
        self.within("release point in time", point, self.inner.release(point)).await
    }

    async fn release_job(&self, job: &JobId) -> Result<()> {
        self.within("release point in time", job, self.inner.release_job(job)).await
    }
}

/// A disk of a guarded source. Calls in place are not guarded: whoever has a thread make them waits for the thread only so long.
#[derive(Debug)]
pub(super) struct GuardedDevice {
    inner: Arc<dyn BlockDevice>,
    read: Duration,
}

impl GuardedDevice {
    pub(super) fn new(inner: Arc<dyn BlockDevice>, config: &ReplicateConfig) -> Self {
        Self { inner, read: config.read_limit }
    }

    /// A call on an extent, which every error names.
    async fn on<T>(
        &self,
        what: &'static str,
        extent: Extent,
        call: impl Future<Output = Result<T>> + Send,
    ) -> Result<T> {
        match within(self.read, call).await {
            Some(Ok(answer)) => Ok(answer),
            Some(Err(error)) => Err(Error::new(error.kind(), what, self.part(extent))
                .with_retry(error.retry())
                .with_source(error)),
            None => Err(too_late(what, &self.part(extent), self.read)),
        }
    }

    fn part(&self, extent: Extent) -> String {
        format!("{extent} of {}", self.info().identity)
    }

    fn lies(&self, what: &'static str, extent: Extent, reason: String) -> Error {
        Error::new(ErrorKind::Corrupt, what, self.part(extent)).because(reason)
    }
}

#[async_trait]
impl BlockDevice for GuardedDevice {
    fn info(&self) -> &DeviceInfo {
        self.inner.info()
    }

    async fn read_at(&self, offset: u64, buffer: BytesMut) -> Result<BytesMut> {
        let wanted = buffer.len();
        let Some(extent) = u64::try_from(wanted).ok().and_then(|length| Extent::new(offset, length).ok())
        else {
            return self.inner.read_at(offset, buffer).await;
        };
        let data = self.on("read", extent, self.inner.read_at(offset, buffer)).await?;
        if data.len() == wanted {
            return Ok(data);
        }
        Err(self.lies("read", extent, format!("it answered {} of {wanted} bytes", data.len())))
    }

    async fn write_at(&self, offset: u64, data: Bytes, durability: Durability) -> Result<()> {
        self.inner.write_at(offset, data, durability).await
    }

    async fn write_zeroes(&self, extent: Extent, zeroing: Zeroing, durability: Durability) -> Result<()> {
        self.inner.write_zeroes(extent, zeroing, durability).await
    }

    async fn zero_fast(&self, extent: Extent, zeroing: Zeroing, durability: Durability) -> Result<()> {
        self.inner.zero_fast(extent, zeroing, durability).await
    }

    async fn trim(&self, extent: Extent) -> Result<()> {
        self.inner.trim(extent).await
    }

    async fn flush(&self) -> Result<()> {
        self.inner.flush().await
    }

    async fn cache(&self, extent: Extent) -> Result<()> {
        self.on("cache", extent, self.inner.cache(extent)).await
    }

    async fn block_status(&self, extent: Extent) -> Result<Vec<BlockStatus>> {
        const WHAT: &str = "ask for block status";
        let found = self.on(WHAT, extent, self.inner.block_status(extent)).await?;
        match flaw(extent, &found) {
            None => Ok(found),
            Some(flaw) => Err(self.lies(WHAT, extent, flaw)),
        }
    }

    fn in_place(&self) -> Option<&dyn InPlace> {
        self.inner.in_place()
    }

    fn leaf_hasher(&self) -> Option<&dyn LeafHasher> {
        self.inner.leaf_hasher().map(|_| -> &dyn LeafHasher { self })
    }
}

#[async_trait]
impl LeafHasher for GuardedDevice {
    async fn leaf_hashes(&self, extent: Extent, from: ReadFrom) -> Result<HashedLeaves> {
        self.on("hash", extent, crate::tree::leaf_hashes(&*self.inner, extent, from)).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ByteSize;
    use crate::memory::{Faults, FaultyDevice, MemoryDevice};
    use crate::traits::BlockStatusKind;

    fn hole(offset: u64, length: u64) -> BlockStatus {
        BlockStatus { extent: Extent::new(offset, length).unwrap(), kind: BlockStatusKind::Hole }
    }

    /// An extent that nobody tells of would be left out of a copy, or one told twice copied wrongly.
    #[tokio::test]
    async fn l10_block_status_with_gaps_out_of_order_beyond_or_of_nothing_is_refused() {
        let (faults, inner) = (Faults::default(), MemoryDevice::new("m", ByteSize::mib(1)));
        let inner = Arc::new(FaultyDevice::new(Arc::new(inner), faults.clone()));
        let device = GuardedDevice::new(inner, &ReplicateConfig::default());
        let asked = Extent::new(4096, 65_536).unwrap();
        for told in [
            vec![],
            vec![hole(8192, 4096)],
            vec![hole(0, 8192)],
            vec![hole(4096, 4096), hole(12_288, 4096)],
            vec![hole(4096, 8192), hole(8192, 4096)],
            vec![hole(4096, 65_537)],
        ] {
            faults.tell(told.clone());
            let error = device.block_status(asked).await.expect_err("no device may answer so");
            assert_eq!(error.kind(), ErrorKind::Corrupt, "{told:?}");
            assert!(error.chain().contains("4096+65536"), "{}", error.chain());
        }
        // It may end early.
        faults.tell(vec![hole(4096, 4096), hole(8192, 4096)]);
        assert_eq!(device.block_status(asked).await.unwrap().len(), 2);
    }
}
