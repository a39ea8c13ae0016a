use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};

use crate::traits::{
    BlockDevice, BlockStatus, BlockStatusKind, DeviceInfo, Durability, HashedLeaves, InPlace, LeafHasher,
    ReadFrom, ReadManner, Zeroing,
};
use crate::tree::leaf_hashes;
use crate::{Error, ErrorKind, Extent, ExtentSet, Result, Retry};

/// A call of a block device that can be made to fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceCall {
    /// `read_at`.
    Read,
    /// `write_at`.
    Write,
    /// `write_zeroes` and `zero_fast`.
    Zero,
    /// `trim`.
    Trim,
    /// `flush`.
    Flush,
    /// `cache`.
    Cache,
    /// `block_status`.
    Status,
}

impl DeviceCall {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Zero => "write zeroes",
            Self::Trim => "trim",
            Self::Flush => "flush",
            Self::Cache => "cache",
            Self::Status => "ask for block status",
        }
    }
}

/// What is to fail, and how. Clones share it, so a test keeps one and the devices have the others.
///
/// ```
/// use oma_core::memory::{DeviceCall, Faults};
/// use oma_core::{ErrorKind, Retry};
///
/// let faults = Faults::new(ErrorKind::Unavailable, Retry::Later);
/// faults.fail_nth(DeviceCall::Write, 3); // two writes succeed, the third fails, all after it succeed
/// assert_eq!(faults.count(), 0);
/// ```
#[derive(Clone, Debug)]
pub struct Faults(Arc<Mutex<Plan>>);

#[derive(Debug)]
struct Plan {
    kind: ErrorKind,
    retry: Retry,
    nth: Vec<(DeviceCall, u64)>,
    reads: Option<Extent>,
    stalls: Option<Extent>,
    short: Option<Extent>,
    hidden: Option<Extent>,
    flush_stalls: bool,
    cached: bool,
    all: bool,
    count: u64,
}

impl Default for Faults {
    /// Nothing fails; what is made to fail is `Unavailable` and may be tried again.
    fn default() -> Self {
        Self::new(ErrorKind::Unavailable, Retry::Later)
    }
}

impl Faults {
    /// Nothing fails yet; what is made to fail, fails like this.
    #[must_use]
    pub fn new(kind: ErrorKind, retry: Retry) -> Self {
        Self(Arc::new(Mutex::new(Plan {
            kind,
            retry,
            nth: Vec::new(),
            reads: None,
            stalls: None,
            short: None,
            hidden: None,
            flush_stalls: false,
            cached: false,
            all: false,
            count: 0,
        })))
    }

    /// Changes how it fails.
    pub fn fail_as(&self, kind: ErrorKind, retry: Retry) {
        let mut plan = self.plan();
        (plan.kind, plan.retry) = (kind, retry);
    }

    /// Fails one call: the `nth` of its sort from now on, 1 being the next.
    pub fn fail_nth(&self, call: DeviceCall, nth: u64) {
        self.plan().nth.push((call, nth.max(1)));
    }

    /// Fails every read that touches an extent.
    pub fn fail_reads_in(&self, extent: Extent) {
        self.plan().reads = Some(extent);
    }

    /// Never answers a read that touches an extent.
    pub fn stall_reads_in(&self, extent: Extent) {
        self.plan().stalls = Some(extent);
    }

    /// Answers a byte too few to every read that touches an extent, which no device may.
    pub fn shorten_reads_in(&self, extent: Extent) {
        self.plan().short = Some(extent);
    }

    /// Tells that an extent is a hole, whatever it holds.
    pub fn hide(&self, extent: Extent) {
        self.plan().hidden = Some(extent);
    }

    /// Never answers a flush.
    pub fn stall_flushes(&self) {
        self.plan().flush_stalls = true;
    }

    /// Hashes as a device does that can only be read through a cache.
    pub fn hash_through_cache(&self) {
        self.plan().cached = true;
    }

    /// Fails every call.
    pub fn fail_all(&self) {
        self.plan().all = true;
    }

    /// Lets everything succeed again.
    pub fn clear(&self) {
        let mut plan = self.plan();
        plan.nth.clear();
        (plan.reads, plan.all) = (None, false);
        (plan.flush_stalls, plan.cached) = (false, false);
        (plan.stalls, plan.short, plan.hidden) = (None, None, None);
    }

    /// How many calls were made to fail.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.plan().count
    }

    fn plan(&self) -> MutexGuard<'_, Plan> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn check(&self, call: DeviceCall, extent: Option<Extent>, info: &DeviceInfo) -> Result<()> {
        let mut plan = self.plan();
        let touched = plan.reads.is_some_and(|bad| extent.is_some_and(|e| e.intersection(bad).is_some()));
        let mut fails = plan.all || (call == DeviceCall::Read && touched);
        plan.nth.retain_mut(|(sort, left)| {
            *left -= u64::from(*sort == call && *left > 0);
            fails |= *left == 0;
            *left > 0
        });
        if !fails {
            return Ok(());
        }
        plan.count += 1;
        Err(Error::new(plan.kind, call.as_str(), &info.identity)
            .because("a fault was injected here")
            .with_retry(plan.retry))
    }
}

/// A device that fails as its [`Faults`] say and otherwise does what the inner one does.
///
/// A call that fails did nothing.
#[derive(Debug)]
pub struct FaultyDevice {
    inner: Arc<dyn BlockDevice>,
    faults: Faults,
}

impl FaultyDevice {
    /// Wraps a device.
    #[must_use]
    pub fn new(inner: Arc<dyn BlockDevice>, faults: Faults) -> Self {
        Self { inner, faults }
    }
}

#[async_trait]
impl BlockDevice for FaultyDevice {
    fn info(&self) -> &DeviceInfo {
        self.inner.info()
    }

    async fn read_at(&self, offset: u64, buffer: BytesMut) -> Result<BytesMut> {
        let length = u64::try_from(buffer.len()).expect("a buffer is smaller than 2^64");
        let extent = Extent::new(offset, length).ok();
        self.faults.check(DeviceCall::Read, extent, self.info())?;
        let touches =
            |bad: Option<Extent>| bad.zip(extent).is_some_and(|(bad, e)| bad.intersection(e).is_some());
        let (stalls, short) = {
            let plan = self.faults.plan();
            (touches(plan.stalls), touches(plan.short))
        };
        if stalls {
            return std::future::pending().await;
        }
        let mut data = self.inner.read_at(offset, buffer).await?;
        data.truncate(data.len() - usize::from(short));
        Ok(data)
    }

    async fn write_at(&self, offset: u64, data: Bytes, durability: Durability) -> Result<()> {
        self.faults.check(DeviceCall::Write, None, self.info())?;
        self.inner.write_at(offset, data, durability).await
    }

    async fn write_zeroes(&self, extent: Extent, zeroing: Zeroing, durability: Durability) -> Result<()> {
        self.faults.check(DeviceCall::Zero, None, self.info())?;
        self.inner.write_zeroes(extent, zeroing, durability).await
    }

    async fn zero_fast(&self, extent: Extent, zeroing: Zeroing, durability: Durability) -> Result<()> {
        self.faults.check(DeviceCall::Zero, None, self.info())?;
        self.inner.zero_fast(extent, zeroing, durability).await
    }

    async fn trim(&self, extent: Extent) -> Result<()> {
        self.faults.check(DeviceCall::Trim, None, self.info())?;
        self.inner.trim(extent).await
    }

    async fn flush(&self) -> Result<()> {
        self.faults.check(DeviceCall::Flush, None, self.info())?;
        if self.faults.plan().flush_stalls {
            return std::future::pending().await;
        }
        self.inner.flush().await
    }

    async fn cache(&self, extent: Extent) -> Result<()> {
        self.faults.check(DeviceCall::Cache, None, self.info())?;
        self.inner.cache(extent).await
    }

    async fn block_status(&self, extent: Extent) -> Result<Vec<BlockStatus>> {
        self.faults.check(DeviceCall::Status, None, self.info())?;
        let found = self.inner.block_status(extent).await?;
        let hidden: ExtentSet = self.faults.plan().hidden.into_iter().collect();
        let told = |status: BlockStatus| {
            hidden.runs(status.extent).map(move |(extent, hides)| match hides {
                true => BlockStatus { extent, kind: BlockStatusKind::Hole },
                false => BlockStatus { extent, ..status },
            })
        };
        Ok(found.into_iter().flat_map(told).collect())
    }

    fn in_place(&self) -> Option<&dyn InPlace> {
        None
    }

    fn leaf_hasher(&self) -> Option<&dyn LeafHasher> {
        self.inner.leaf_hasher().map(|_| -> &dyn LeafHasher { self })
    }
}

#[async_trait]
impl LeafHasher for FaultyDevice {
    async fn leaf_hashes(&self, extent: Extent, from: ReadFrom) -> Result<HashedLeaves> {
        self.faults.check(DeviceCall::Read, Some(extent), self.info())?;
        let mut found = leaf_hashes(&*self.inner, extent, from).await?;
        if self.faults.plan().cached {
            found.manner = ReadManner::ThroughCache;
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ByteSize;
    use crate::memory::MemoryDevice;

    #[tokio::test]
    async fn the_nth_call_fails_once_and_does_nothing() {
        let memory = MemoryDevice::new("m", ByteSize::kib(64));
        let faults = Faults::new(ErrorKind::NoSpace, Retry::Never);
        let device = FaultyDevice::new(Arc::new(memory.clone()), faults.clone());
        faults.fail_nth(DeviceCall::Write, 2);
        let write = || device.write_at(0, Bytes::from_static(b"x"), Durability::Cached);
        write().await.unwrap();
        assert_eq!(write().await.unwrap_err().kind(), ErrorKind::NoSpace);
        write().await.unwrap();
        assert_eq!((memory.calls().writes, faults.count()), (2, 1));
    }

    #[tokio::test]
    async fn reads_of_a_bad_extent_fail_until_cleared() {
        let memory = MemoryDevice::new("m", ByteSize::kib(64));
        let faults = Faults::default();
        let device = FaultyDevice::new(Arc::new(memory), faults.clone());
        faults.fail_reads_in(Extent::new(4096, 1).unwrap());
        device.read_at(0, BytesMut::zeroed(4096)).await.unwrap();
        assert_eq!(device.read_at(4000, BytesMut::zeroed(100)).await.unwrap_err().retry(), Retry::Later);
        faults.clear();
        device.read_at(4000, BytesMut::zeroed(100)).await.unwrap();
    }
}
