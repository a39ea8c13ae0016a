use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Arc, Condvar, LazyLock, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};

use crate::memory::MemoryDevice;
use crate::traits::{
    BlockDevice, BlockStatus, BlockStatusKind, DeviceInfo, Durability, HashedLeaves, InPlace, LeafHasher,
    ReadFrom, ReadManner, Zeroing,
};
use crate::tree::leaf_hashes;
use crate::{Error, ErrorKind, Extent, ExtentSet, Result, Retry};

/// Stands for the file of a device in memory.
static NO_FILE: LazyLock<File> = LazyLock::new(|| File::open("/dev/null").expect("every machine has it"));

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
pub struct Faults(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    plan: Mutex<Plan>,
    changed: Condvar,
}

#[derive(Debug)]
struct Plan {
    kind: ErrorKind,
    retry: Retry,
    nth: Vec<(DeviceCall, u64)>,
    from: Option<(DeviceCall, u64)>,
    reads: Option<Extent>,
    stalls: Option<Extent>,
    short: Option<Extent>,
    hidden: Option<Extent>,
    flush_stalls: bool,
    cached: bool,
    far: Option<Extent>,
    told: Option<Vec<BlockStatus>>,
    stalled: Option<Extent>,
    in_place: bool,
    shares: Option<MemoryDevice>,
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
        let plan = Plan {
            kind,
            retry,
            nth: Vec::new(),
            from: None,
            reads: None,
            stalls: None,
            short: None,
            hidden: None,
            flush_stalls: false,
            cached: false,
            far: None,
            told: None,
            stalled: None,
            in_place: false,
            shares: None,
            all: false,
            count: 0,
        };
        Self(Arc::new(Shared { plan: Mutex::new(plan), changed: Condvar::new() }))
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

    /// Fails every call of a sort from the `nth` on, 1 being the next, as a disk does that is full.
    pub fn fail_from(&self, call: DeviceCall, nth: u64) {
        self.plan().from = Some((call, nth.max(1)));
    }

    /// Fails every read that touches an extent.
    pub fn fail_reads_in(&self, extent: Extent) {
        self.plan().reads = Some(extent);
    }

    /// Does not answer a read that touches an extent; one in place is answered once another extent is named, or
    /// [none](Faults::clear).
    pub fn stall_reads_in(&self, extent: Extent) {
        self.plan().stalls = Some(extent);
        self.0.changed.notify_all();
    }

    /// The read in place that was the last to be kept waiting.
    #[must_use]
    pub fn stalled(&self) -> Option<Extent> {
        self.plan().stalled
    }

    /// Answers a byte too few to every read that touches an extent, which no device may. In place that cannot be said: such a
    /// read asks to be made in the other way.
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

    /// Tells whoever reads in place that the content of an extent is not near.
    pub fn move_away(&self, extent: Extent) {
        self.plan().far = Some(extent);
    }

    /// Answers every question for block status with this, which no device may.
    pub fn tell(&self, status: Vec<BlockStatus>) {
        self.plan().told = Some(status);
    }

    /// Lets devices be used in place, as far as the inner ones can. Not cleared.
    pub fn pass_in_place(&self) {
        self.plan().in_place = true;
    }

    /// Lets devices share the blocks of this one, in place, as files of one file system do: a share counts as a write. Not cleared.
    pub fn share_blocks_of(&self, source: MemoryDevice) {
        self.plan().shares = Some(source);
    }

    /// Fails every call.
    pub fn fail_all(&self) {
        self.plan().all = true;
    }

    /// Lets everything succeed again.
    pub fn clear(&self) {
        let mut plan = self.plan();
        plan.nth.clear();
        (plan.from, plan.reads, plan.all) = (None, None, false);
        (plan.flush_stalls, plan.cached) = (false, false);
        (plan.stalls, plan.short, plan.hidden, plan.far) = (None, None, None, None);
        plan.told = None;
        self.0.changed.notify_all();
    }

    /// How many calls were made to fail.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.plan().count
    }

    fn plan(&self) -> MutexGuard<'_, Plan> {
        self.0.plan.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn check(&self, call: DeviceCall, extent: Option<Extent>, info: &DeviceInfo) -> Result<()> {
        let mut plan = self.plan();
        let mut fails = plan.all || (call == DeviceCall::Read && touches(plan.reads, extent));
        if let Some((sort, left)) = &mut plan.from
            && *sort == call
        {
            *left = left.saturating_sub(1);
            fails |= *left == 0;
        }
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
        let extent = extent(offset, &buffer);
        self.faults.check(DeviceCall::Read, extent, self.info())?;
        let (stalls, short) = {
            let plan = self.faults.plan();
            (touches(plan.stalls, extent), touches(plan.short, extent))
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
        if let Some(told) = self.faults.plan().told.clone() {
            return Ok(told);
        }
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
        let inner = self.inner.in_place().filter(|_| self.faults.plan().in_place);
        inner.map(|_| -> &dyn InPlace { self })
    }

    fn leaf_hasher(&self) -> Option<&dyn LeafHasher> {
        self.inner.leaf_hasher().map(|_| -> &dyn LeafHasher { self })
    }
}

impl FaultyDevice {
    /// The inner device in place, once a read may be made there; `None` when it must be made in the other way.
    fn readable(&self, offset: u64, buffer: &[u8]) -> Result<Option<&dyn InPlace>> {
        let extent = extent(offset, buffer);
        self.faults.check(DeviceCall::Read, extent, self.info())?;
        let mut plan = self.faults.plan();
        while touches(plan.stalls, extent) {
            plan.stalled = extent;
            plan = self.faults.0.changed.wait(plan).unwrap_or_else(PoisonError::into_inner);
        }
        let near = !touches(plan.far, extent) && !touches(plan.short, extent);
        Ok(self.inner.in_place().filter(|_| near))
    }
}

impl InPlace for FaultyDevice {
    fn read(&self, offset: u64, buffer: &mut [u8]) -> Result<bool> {
        self.readable(offset, buffer)?.map_or(Ok(false), |inner| inner.read(offset, buffer))
    }

    fn read_waiting(&self, offset: u64, buffer: &mut [u8]) -> Result<bool> {
        self.readable(offset, buffer)?.map_or(Ok(false), |inner| inner.read_waiting(offset, buffer))
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<()> {
        self.faults.check(DeviceCall::Write, None, self.info())?;
        self.inner.in_place().expect("it was there when this device's own was asked for").write(offset, data)
    }

    fn write_out(&self, extent: Extent) {
        if let Some(inner) = self.inner.in_place() {
            inner.write_out(extent);
        }
    }

    fn lend(&self, _extent: Extent) -> Option<BorrowedFd<'_>> {
        None
    }

    fn file(&self) -> Option<BorrowedFd<'_>> {
        self.faults.plan().shares.as_ref().map(|_| NO_FILE.as_fd())
    }

    fn share(&self, extent: Extent, _from: BorrowedFd<'_>) -> Result<bool> {
        let Some(source) = self.faults.plan().shares.clone() else { return Ok(false) };
        let mut data = vec![0; usize::try_from(extent.length()).expect("memory holds no more")];
        InPlace::read(&source, extent.offset(), &mut data)?;
        self.write(extent.offset(), &data)?;
        Ok(true)
    }
}

fn extent(offset: u64, buffer: &[u8]) -> Option<Extent> {
    Extent::new(offset, u64::try_from(buffer.len()).expect("a buffer is smaller than 2^64")).ok()
}

fn touches(bad: Option<Extent>, extent: Option<Extent>) -> bool {
    bad.zip(extent).is_some_and(|(bad, extent)| bad.intersection(extent).is_some())
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
