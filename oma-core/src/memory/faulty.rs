use std::fs::File;
use std::future::poll_fn;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Arc, Condvar, LazyLock, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};

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
    hashed: Option<ReadManner>,
    far: Option<Extent>,
    told: Option<Vec<BlockStatus>>,
    stalled: Option<Extent>,
    in_place: bool,
    shares: Option<MemoryDevice>,
    all: bool,
    count: u64,
    devices: usize,
    waiting: Vec<Waker>,
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
            hashed: None,
            far: None,
            told: None,
            stalled: None,
            in_place: false,
            shares: None,
            all: false,
            count: 0,
            devices: 0,
            waiting: Vec::new(),
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

    /// Does not answer a read or a share that touches an extent, until another extent is named, or [none](Faults::clear).
    pub fn stall_reads_in(&self, extent: Extent) {
        self.plan().stalls = Some(extent);
        self.changed();
    }

    /// Waits until the call that was the last to be kept waiting is one that touches an extent.
    pub async fn until_stalled_in(&self, extent: Extent) {
        self.until(|plan| touches(plan.stalled, Some(extent))).await;
    }

    /// Waits until there is no device any more that fails as this says: nobody uses one, in no thread either.
    pub async fn until_unused(&self) {
        self.until(|plan| plan.devices == 0).await;
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

    /// Hashes as a device does that is read like that.
    pub fn hash_as(&self, manner: ReadManner) {
        self.plan().hashed = Some(manner);
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
        (plan.flush_stalls, plan.hashed) = (false, None);
        (plan.stalls, plan.short, plan.hidden, plan.far) = (None, None, None, None);
        plan.told = None;
        drop(plan);
        self.changed();
    }

    /// How many calls were made to fail.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.plan().count
    }

    /// Lets all look again that wait.
    fn changed(&self) {
        self.0.changed.notify_all();
        let waiting = std::mem::take(&mut self.plan().waiting);
        waiting.into_iter().for_each(Waker::wake);
    }

    async fn until(&self, is_so: impl Fn(&Plan) -> bool) {
        poll_fn(|cx| {
            let mut plan = self.plan();
            if is_so(&plan) {
                return Poll::Ready(());
            }
            plan.waiting.push(cx.waker().clone());
            Poll::Pending
        })
        .await;
    }

    /// Notes a call that is kept waiting, and tells whether it is.
    fn stalls(&self, extent: Option<Extent>) -> bool {
        let mut plan = self.plan();
        let stalls = touches(plan.stalls, extent);
        if stalls {
            plan.stalled = extent;
            drop(plan);
            self.changed();
        }
        stalls
    }

    /// Keeps a call waiting, on the runtime.
    async fn stall(&self, extent: Option<Extent>) {
        if self.stalls(extent) {
            self.until(|plan| !touches(plan.stalls, extent)).await;
        }
    }

    /// Keeps a call waiting, with its thread.
    fn stall_thread(&self, extent: Option<Extent>) {
        if self.stalls(extent) {
            let stalls = |plan: &mut Plan| touches(plan.stalls, extent);
            drop(self.0.changed.wait_while(self.plan(), stalls));
        }
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
        faults.plan().devices += 1;
        Self { inner, faults }
    }
}

impl Drop for FaultyDevice {
    fn drop(&mut self) {
        self.faults.plan().devices -= 1;
        self.faults.changed();
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
        self.faults.stall(extent).await;
        let short = touches(self.faults.plan().short, extent);
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
        self.faults.stall_thread(extent);
        let plan = self.faults.plan();
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
        self.faults.stall_thread(Some(extent));
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
        found.manner = self.faults.plan().hashed.unwrap_or(found.manner);
        Ok(found)
    }
}

#[cfg(test)]
mod tests;
