//! A volume as an agent has it: what it may write, what it wrote, and what of that is durable.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use tokio::sync::RwLock;
use tokio::time::Instant;

use super::meter::Meter;
use crate::engine::explain::StageTimes;
use crate::traits::{BlockDevice, BlockStatus, DeviceInfo, Durability, InPlace, LeafHasher, Zeroing};
use crate::{ByteSize, Error, ErrorKind, Extent, ExtentSet, Result};

/// Stands between an export and its volume.
///
/// Nothing is written outside the scope of the epoch, because the next run knows of nothing else that was overwritten; nothing that is
/// finished, because it is believed; and nothing once it is sealed. What is durable is what was written before a flush of the volume that
/// succeeded, whoever asked for it (L25).
#[derive(Debug)]
pub(in crate::engine) struct PushedDevice {
    inner: Arc<dyn BlockDevice>,
    info: DeviceInfo,
    scope: ExtentSet,
    /// The end of the disk, up to that of its last block.
    tail: Option<Extent>,
    /// Held by every change under way.
    gate: RwLock<Gate>,
    /// Held alone by a flush, together by durable writes: an error that one of them is told, another one is not.
    syncing: RwLock<()>,
    seen: Mutex<Seen>,
    /// Somebody wrote after it was sealed.
    late: AtomicBool,
    /// A flush or a durable write failed: what was to be durable may be lost, however later ones end.
    in_doubt: AtomicBool,
    calls: AtomicU64,
    meter: Meter,
}

/// What is written no more.
#[derive(Debug)]
struct Gate {
    /// Nothing at all.
    is_sealed: bool,
    /// But for these extents: they hold what the point in time has.
    finished: ExtentSet,
}

#[derive(Debug, Default)]
struct Seen {
    written: ByteSize,
    writes: u64,
    /// What may have been written, also by a write that is under way.
    touched: ExtentSet,
    /// Written since the last flush that succeeded.
    pending: ExtentSet,
    durable: ExtentSet,
    /// When it was called last.
    last_call: Option<Instant>,
}

/// What went through a device.
#[derive(Clone, Debug)]
pub(in crate::engine) struct Pushed {
    /// Bytes written, zeroes not counted.
    pub(in crate::engine) written: ByteSize,
    /// Writes.
    pub(in crate::engine) writes: u64,
    /// Written and not flushed.
    pub(in crate::engine) pending: ExtentSet,
    /// Written and flushed.
    pub(in crate::engine) durable: ExtentSet,
}

impl PushedDevice {
    /// The first bytes of a volume, as many as the disk has; written only within the scope, but for what of it is finished.
    pub(in crate::engine) fn new(
        inner: Arc<dyn BlockDevice>,
        capacity: ByteSize,
        scope: ExtentSet,
        finished: ExtentSet,
    ) -> Self {
        let info = inner.info();
        let unit = u64::from(info.block_sizes.minimum.max(1));
        let whole = ByteSize::new(capacity.bytes().next_multiple_of(unit)).min(info.capacity);
        let info = DeviceInfo { capacity: whole, ..info.clone() };
        // The last block of a disk that does not consist of whole ones belongs to its last byte.
        let tail = Extent::between(capacity.bytes(), whole.bytes());
        let (scope, finished) = (with_tail(scope, tail), with_tail(finished, tail));
        Self {
            inner,
            info,
            scope,
            tail,
            gate: RwLock::new(Gate { is_sealed: false, finished }),
            syncing: RwLock::default(),
            seen: Mutex::default(),
            late: AtomicBool::new(false),
            in_doubt: AtomicBool::new(false),
            calls: AtomicU64::new(0),
            meter: Meter::default(),
        }
    }

    /// Where time went since the first call.
    pub(in crate::engine) fn times(&self) -> StageTimes {
        self.meter.times()
    }

    /// Lets nobody write any more, waits for writes under way, and makes durable all that was written.
    pub(in crate::engine) async fn seal(&self) -> Result<()> {
        self.gate.write().await.is_sealed = true;
        self.flush().await
    }

    /// Lets nobody write these extents any more, waits for writes under way, and makes durable all that was written.
    pub(in crate::engine) async fn finish(&self, extents: &ExtentSet) -> Result<()> {
        let extents = with_tail(extents.clone(), self.tail);
        self.gate.write().await.finished.extend(extents.iter());
        self.flush().await
    }

    /// Whether somebody wanted to write after it was sealed.
    pub(in crate::engine) fn was_late(&self) -> bool {
        self.late.load(Ordering::Acquire)
    }

    /// Whether a flush, or a durable write, failed.
    pub(in crate::engine) fn is_in_doubt(&self) -> bool {
        self.in_doubt.load(Ordering::Acquire)
    }

    /// Grows with each call of a client.
    pub(in crate::engine) fn calls(&self) -> u64 {
        self.calls.load(Ordering::Relaxed)
    }

    /// When it was called last.
    pub(in crate::engine) fn last_call(&self) -> Option<Instant> {
        self.seen().last_call
    }

    /// What went through so far.
    pub(in crate::engine) fn pushed(&self) -> Pushed {
        let seen = self.seen();
        let (pending, durable) = (seen.pending.clone(), seen.durable.clone());
        Pushed { written: seen.written, writes: seen.writes, pending, durable }
    }

    /// Whether anything may have been written but for these extents.
    pub(in crate::engine) fn was_touched_beside(&self, finished: &ExtentSet) -> bool {
        !self.seen().touched.difference(finished).is_empty()
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn called(&self) {
        self.calls.fetch_add(1, Ordering::Relaxed);
        self.seen().last_call = Some(Instant::now());
    }

    fn refused(&self, what: &'static str, extent: Extent, reason: &'static str) -> Error {
        let part = format!("{extent} of {}", self.info.identity);
        Error::new(ErrorKind::PermissionDenied, what, part).because(reason)
    }

    /// Refuses what may not be written.
    fn allow(&self, gate: &Gate, what: &'static str, extent: Extent) -> Result<()> {
        if !self.scope.gaps(extent).is_empty() {
            let reason = "it does not belong to this epoch; write what the job says is to be copied";
            return Err(self.refused(what, extent, reason));
        }
        if gate.is_sealed {
            self.late.store(true, Ordering::Release);
            return Err(self.refused(what, extent, "the disk was reported to be complete"));
        }
        // A block that is finished in part is written as a whole.
        let unit = u64::from(self.info.block_sizes.minimum.max(1));
        let has_block = |part: &Extent| part.offset().next_multiple_of(unit) < part.end() / unit * unit;
        if gate.finished.within(extent).iter().any(has_block) {
            let reason = "some of it is finished; look again and write `work` only, or cancel the job and begin another";
            return Err(self.refused(what, extent, reason));
        }
        Ok(())
    }

    /// Makes a change that is to be durable when it answers; one that fails leaves doubt.
    async fn durably(&self, change: impl Future<Output = Result<()>> + Send) -> Result<()> {
        let _beside = self.syncing.read().await;
        let dropped = Doubt(&self.in_doubt);
        let changed = change.await;
        std::mem::forget(dropped);
        // What is not done at all loses nothing.
        let was_tried = |error: &Error| !matches!(error.kind(), ErrorKind::Unsupported | ErrorKind::Invalid);
        if changed.as_ref().is_err_and(was_tried) {
            self.in_doubt.store(true, Ordering::Release);
        }
        changed
    }

    /// Makes a change that is allowed, and notes it.
    async fn change(
        &self,
        what: &'static str,
        (extent, data): (Option<Extent>, u64),
        durability: Durability,
        change: impl Future<Output = Result<()>> + Send,
    ) -> Result<()> {
        self.called();
        let gate = self.gate.read().await;
        if let Some(extent) = extent {
            self.allow(&gate, what, extent)?;
            self.seen().touched.insert(extent);
        }
        let writing = self.meter.write();
        let changed = match durability {
            Durability::Cached => change.await,
            Durability::Durable => self.durably(change).await,
        };
        drop(writing);
        if let Some(extent) = extent {
            // One that failed may have been done in part.
            let mut seen = self.seen();
            seen.pending.insert(extent);
            seen.written += ByteSize::new(data);
            seen.writes += 1;
        }
        drop(gate);
        changed
    }
}

/// A flush, or a durable write, that nobody waited for may have failed unseen.
struct Doubt<'a>(&'a AtomicBool);

impl Drop for Doubt<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

/// With the rest of the last block, where they reach the end of the disk.
fn with_tail(mut extents: ExtentSet, tail: Option<Extent>) -> ExtentSet {
    let reached = |tail: &Extent| extents.last().is_some_and(|last| last.end() == tail.offset());
    let tail = tail.filter(reached);
    extents.extend(tail);
    extents
}

fn extent_of(offset: u64, length: usize) -> Option<Extent> {
    u64::try_from(length).ok().and_then(|length| Extent::new(offset, length).ok())
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl BlockDevice for PushedDevice {
    fn info(&self) -> &DeviceInfo {
        &self.info
    }

    async fn read_at(&self, offset: u64, buffer: BytesMut) -> Result<BytesMut> {
        self.called();
        self.inner.read_at(offset, buffer).await
    }

    async fn write_at(&self, offset: u64, data: Bytes, durability: Durability) -> Result<()> {
        let extent = extent_of(offset, data.len());
        let bytes = extent.map_or(0, Extent::length);
        let write = self.inner.write_at(offset, data, durability);
        self.change("write", (extent, bytes), durability, write).await
    }

    async fn write_zeroes(&self, extent: Extent, zeroing: Zeroing, durability: Durability) -> Result<()> {
        let zeroes = self.inner.write_zeroes(extent, zeroing, durability);
        self.change("write zeroes to", (Some(extent), 0), durability, zeroes).await
    }

    async fn zero_fast(&self, extent: Extent, zeroing: Zeroing, durability: Durability) -> Result<()> {
        let zeroes = self.inner.zero_fast(extent, zeroing, durability);
        self.change("write zeroes to", (Some(extent), 0), durability, zeroes).await
    }

    async fn trim(&self, extent: Extent) -> Result<()> {
        self.change("trim", (Some(extent), 0), Durability::Cached, self.inner.trim(extent)).await
    }

    async fn flush(&self) -> Result<()> {
        self.called();
        // A flush beside this one may be told of what this one was to make durable.
        let _alone = self.syncing.write().await;
        if self.is_in_doubt() {
            let reason = "an earlier flush or durable write failed, so what was written before may be lost; the job begins its attempt anew";
            return Err(Error::new(ErrorKind::Unavailable, "flush", &self.info.identity).because(reason));
        }
        // What is written while it is flushed is not known to be durable.
        let pending = std::mem::take(&mut self.seen().pending);
        let dropped = Doubt(&self.in_doubt);
        let flushing = self.meter.flush();
        let flushed = self.inner.flush().await;
        drop(flushing);
        std::mem::forget(dropped);
        let mut seen = self.seen();
        match flushed {
            Ok(()) => seen.durable.extend(pending.iter()),
            Err(_) => {
                seen.pending.extend(pending.iter());
                // The system may have dropped what it could not write: another flush would succeed without it.
                self.in_doubt.store(true, Ordering::Release);
            }
        }
        drop(seen);
        flushed
    }

    async fn cache(&self, extent: Extent) -> Result<()> {
        self.called();
        self.inner.cache(extent).await
    }

    async fn block_status(&self, extent: Extent) -> Result<Vec<BlockStatus>> {
        self.called();
        self.inner.block_status(extent).await
    }

    /// Nothing goes past what is noted here.
    fn in_place(&self) -> Option<&dyn InPlace> {
        None
    }

    fn leaf_hasher(&self) -> Option<&dyn LeafHasher> {
        self.called();
        self.inner.leaf_hasher()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::{DeviceCall, Faults, FaultyDevice, MemoryDevice};

    const BLOCK: usize = 4096;

    fn extent(offset: u64, length: u64) -> Extent {
        Extent::new(offset, length).unwrap()
    }

    fn device(scope: &[Extent]) -> (PushedDevice, MemoryDevice) {
        let volume = MemoryDevice::new("volume", ByteSize::mib(2));
        let scope = scope.iter().copied().collect();
        let inner = Arc::new(volume.clone());
        (PushedDevice::new(inner, ByteSize::mib(1), scope, ExtentSet::new()), volume)
    }

    fn data() -> Bytes {
        vec![7; BLOCK].into()
    }

    #[tokio::test]
    async fn l25_durable_is_what_was_written_before_a_flush() {
        let (device, _) = device(&[extent(0, 1 << 20)]);
        device.write_at(0, data(), Durability::Cached).await.unwrap();
        assert!(device.pushed().durable.is_empty());
        device.flush().await.unwrap();
        device.write_at(8192, data(), Durability::Cached).await.unwrap();
        let pushed = device.pushed();
        assert_eq!((pushed.durable.bytes(), pushed.pending.bytes()), (ByteSize::kib(4), ByteSize::kib(4)));
        assert_eq!((pushed.written, pushed.writes), (ByteSize::kib(8), 2));
    }

    #[tokio::test]
    async fn l25_a_flush_that_failed_makes_nothing_durable_and_leaves_doubt() {
        let faults = Faults::default();
        let volume = FaultyDevice::new(Arc::new(MemoryDevice::new("v", ByteSize::mib(1))), faults.clone());
        let whole = [extent(0, 1 << 20)].into_iter().collect();
        let device = PushedDevice::new(Arc::new(volume), ByteSize::mib(1), whole, ExtentSet::new());
        device.write_at(0, data(), Durability::Cached).await.unwrap();
        faults.fail_from(DeviceCall::Flush, 1);
        device.flush().await.unwrap_err();
        let pushed = device.pushed();
        assert_eq!((pushed.durable.bytes(), pushed.pending.bytes()), (ByteSize::ZERO, ByteSize::kib(4)));
        assert!(device.is_in_doubt());
        faults.clear();
        device.seal().await.unwrap_err();
    }

    #[tokio::test]
    async fn l25_a_durable_write_that_failed_leaves_doubt() {
        let faults = Faults::default();
        let volume = FaultyDevice::new(Arc::new(MemoryDevice::new("v", ByteSize::mib(1))), faults.clone());
        let whole = [extent(0, 1 << 20)].into_iter().collect();
        let device = PushedDevice::new(Arc::new(volume), ByteSize::mib(1), whole, ExtentSet::new());
        faults.fail_nth(DeviceCall::Write, 2);
        device.write_at(0, data(), Durability::Durable).await.unwrap();
        assert!(!device.is_in_doubt());
        device.write_at(0, data(), Durability::Durable).await.unwrap_err();
        // It may have been told of what was written before; a flush would succeed without that.
        assert!(device.is_in_doubt());
        device.flush().await.unwrap_err();
        assert!(device.pushed().durable.is_empty());
    }

    #[tokio::test]
    async fn l08_what_is_finished_is_not_overwritten() {
        let volume = MemoryDevice::new("volume", ByteSize::mib(1));
        let (whole, before) = ([extent(0, 1 << 20)].into_iter().collect(), extent(65_536, 4096));
        let finished = [before].into_iter().collect();
        let device = PushedDevice::new(Arc::new(volume.clone()), ByteSize::mib(1), whole, finished);
        device.write_at(0, data(), Durability::Cached).await.unwrap();
        device.finish(&[extent(0, 4096)].into_iter().collect()).await.unwrap();
        assert_eq!(device.pushed().durable.bytes(), ByteSize::kib(4));
        for asked in [extent(0, 4096), extent(0, 8192), extent(1024, 512), before, extent(0, 1 << 20)] {
            let length = usize::try_from(asked.length()).unwrap();
            for refused in [
                device.write_at(asked.offset(), vec![0; length].into(), Durability::Cached).await,
                device.write_zeroes(asked, Zeroing::Punch, Durability::Cached).await,
                device.zero_fast(asked, Zeroing::Punch, Durability::Cached).await,
                device.trim(asked).await,
            ] {
                assert_eq!(refused.unwrap_err().kind(), ErrorKind::PermissionDenied, "{asked}");
            }
        }
        assert!(volume.bytes()[..BLOCK].iter().all(|byte| *byte == 7));
        assert!(!device.was_late(), "it is refused, and harmed nothing");
        device.write_at(4096, data(), Durability::Cached).await.unwrap();
    }

    #[tokio::test]
    async fn nothing_is_written_that_is_not_of_the_epoch_or_of_the_disk() {
        let (device, volume) = device(&[extent(0, 4096), extent(8192, 4096)]);
        assert_eq!(device.info().capacity, ByteSize::mib(1));
        for (offset, length) in [(4096, 4096), (0, 8192), (1 << 20, 4096)] {
            let asked = extent(offset, length);
            let length = usize::try_from(length).unwrap();
            for refused in [
                device.write_at(offset, vec![1; length].into(), Durability::Cached).await,
                device.write_zeroes(asked, Zeroing::Punch, Durability::Cached).await,
                device.zero_fast(asked, Zeroing::Punch, Durability::Cached).await,
                device.trim(asked).await,
            ] {
                assert_eq!(refused.unwrap_err().kind(), ErrorKind::PermissionDenied, "{asked}");
            }
        }
        assert!(volume.bytes().iter().all(|byte| *byte == 0));
        device.write_at(8192, data(), Durability::Cached).await.unwrap();
    }

    #[tokio::test]
    async fn l23_what_is_sealed_is_durable_and_written_no_more() {
        let (device, volume) = device(&[extent(0, 1 << 20)]);
        device.write_at(0, data(), Durability::Cached).await.unwrap();
        device.seal().await.unwrap();
        assert!(device.pushed().pending.is_empty() && !device.was_late());
        device.write_at(4096, data(), Durability::Cached).await.unwrap_err();
        assert!(device.was_late());
        assert_eq!(volume.bytes()[4096], 0);
        // To look at it is no harm.
        assert_eq!(device.read_at(0, BytesMut::zeroed(BLOCK)).await.unwrap()[0], 7);
    }
}
