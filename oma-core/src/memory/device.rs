use std::os::fd::BorrowedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};

use super::pages::{PAGE, Pages};
use crate::traits::{
    Access, BlockDevice, BlockSizes, BlockStatus, DeviceIdentity, DeviceInfo, Durability, HashedLeaves,
    InPlace, LeafHasher, ReadFrom, ReadManner, Zeroing,
};
use crate::tree::{AT_ONCE, LEAF, LeafHash, LeafRun, push_run, zero_run};
use crate::{ByteSize, Error, ErrorKind, Extent, ExtentSet, Result};

/// A sparse disk in memory.
///
/// A clone is another handle on the same content. It knows which pages were written, so block status tells holes,
/// zeroes and data apart.
#[derive(Clone, Debug)]
pub struct MemoryDevice {
    info: DeviceInfo,
    content: Arc<Mutex<Content>>,
}

/// How many calls a device answered with success, through all its handles, and how many bytes they carried.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DeviceCalls {
    /// Calls of `read_at`.
    pub reads: u64,
    /// Bytes read.
    pub bytes_read: u64,
    /// Calls of `write_at`.
    pub writes: u64,
    /// Bytes written.
    pub bytes_written: u64,
    /// Calls of `write_zeroes`.
    pub zeroes: u64,
    /// Bytes zeroed.
    pub bytes_zeroed: u64,
    /// Calls of `zero_fast`.
    pub fast_zeroes: u64,
    /// Calls of `trim`.
    pub trims: u64,
    /// Calls of `flush`.
    pub flushes: u64,
    /// Calls of `cache`.
    pub caches: u64,
    /// Calls of `block_status`.
    pub statuses: u64,
}

#[derive(Debug, Default)]
pub(super) struct Content {
    pages: Pages,
    calls: DeviceCalls,
    /// Where the medium ends before the capacity does.
    end: Option<u64>,
    unflushed: ExtentSet,
    /// Bytes changed since the last [`Content::freeze`].
    changed: ExtentSet,
    /// Grows with every change.
    version: u64,
}

impl MemoryDevice {
    /// A disk of `capacity` bytes, all of it a hole.
    #[must_use]
    pub fn new(identity: impl Into<String>, capacity: ByteSize) -> Self {
        Self::of(identity.into(), capacity, Content::default())
    }

    /// Another handle on the same content that only reads.
    #[must_use]
    pub fn read_only(&self) -> Self {
        let mut other = self.clone();
        other.info.access = Access::ReadOnly;
        other
    }

    /// Another handle on the same content with a capacity of its own; what it has more reads as zero.
    #[must_use]
    pub fn with_capacity(&self, capacity: ByteSize) -> Self {
        let mut other = self.clone();
        other.info.capacity = capacity;
        other
    }

    /// Another handle on the same content that tells something else of itself, e.g. that it cannot zero fast, and is it.
    #[must_use]
    pub fn with_info(&self, change: impl FnOnce(&mut DeviceInfo)) -> Self {
        let mut other = self.clone();
        change(&mut other.info);
        other
    }

    /// Lets the medium end at `end`, whatever the capacity says: reads beyond answer `Corrupt`.
    pub fn cut(&self, end: u64) {
        self.content().end = Some(end);
    }

    /// What was called so far.
    #[must_use]
    pub fn calls(&self) -> DeviceCalls {
        self.content().calls
    }

    /// The bytes that were changed and not made durable since.
    #[must_use]
    pub fn unflushed(&self) -> ExtentSet {
        self.content().unflushed.clone()
    }

    /// All bytes, for comparisons; not counted as a call.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        let length = usize::try_from(self.info.capacity.bytes()).expect("memory holds no more than usize");
        let mut bytes = vec![0; length];
        if let Some(all) = Extent::between(0, self.info.capacity.bytes()) {
            self.content().pages.read(all, &mut bytes);
        }
        bytes
    }

    /// Writes one byte to a part, as content that was there before anybody came.
    pub(super) fn fill(&self, part: Option<Extent>, byte: u8) {
        if let Some(part) = part {
            let bytes = vec![byte; usize::try_from(part.length()).expect("memory holds no more than usize")];
            self.content().pages.write(part, &bytes);
        }
    }

    /// A number that grows with every change of the content.
    pub(super) fn version(&self) -> u64 {
        self.content().version
    }

    /// A read-only copy of `content`, which is this device's, locked.
    pub(super) fn snapshot(&self, identity: String, content: &Content) -> Self {
        let copy = Content { pages: content.pages.clone(), end: content.end, ..Content::default() };
        Self::of(identity, self.info.capacity, copy).read_only()
    }

    /// The content becomes that of another device, beside all calls; what the other does not reach reads as zero.
    pub(super) fn become_equal(&self, other: &Self) {
        let pages = other.content().pages.clone();
        let mut content = self.content();
        content.pages = pages;
        content.unflushed = ExtentSet::new();
        content.note_changed(Extent::between(0, self.info.capacity.bytes()));
        content.version += 1;
    }

    pub(super) fn content(&self) -> MutexGuard<'_, Content> {
        // Every change of the content is complete before anything can panic.
        self.content.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the medium ends within an extent, or before it.
    fn ends_in(&self, extent: Extent) -> bool {
        self.content().end.is_some_and(|end| extent.end() > end)
    }

    fn write_with(&self, offset: u64, data: &[u8], durability: Durability) -> Result<()> {
        let Some(extent) = self.info.check_change("write", offset, length(data))? else { return Ok(()) };
        let mut content = self.content();
        content.pages.write(extent, data);
        content.note(extent, durability);
        content.calls.writes += 1;
        content.calls.bytes_written += extent.length();
        Ok(())
    }

    fn of(identity: String, capacity: ByteSize, content: Content) -> Self {
        let preferred = u32::try_from(PAGE).expect("a page is small");
        let info = DeviceInfo {
            identity: DeviceIdentity(identity),
            capacity,
            block_sizes: BlockSizes { minimum: 1, preferred, maximum: 1 << 30 },
            access: Access::ReadWrite,
            can_trim: true,
            can_block_status: true,
            can_cache: true,
            can_zero_fast: true,
            is_rotational: false,
        };
        Self { info, content: Arc::new(Mutex::new(content)) }
    }
}

impl Content {
    /// Takes the bytes changed since it was called last.
    pub(super) fn take_changed(&mut self) -> ExtentSet {
        std::mem::take(&mut self.changed)
    }

    /// Adds bytes that changed without a call.
    pub(super) fn note_changed(&mut self, extent: Option<Extent>) {
        self.changed.extend(extent);
    }

    fn note(&mut self, extent: Extent, durability: Durability) {
        self.version += 1;
        self.changed.insert(extent);
        match durability {
            Durability::Cached => self.unflushed.insert(extent),
            Durability::Durable => {
                self.unflushed = self.unflushed.difference(&ExtentSet::from_iter([extent]));
            }
        }
    }
}

#[async_trait]
impl BlockDevice for MemoryDevice {
    fn info(&self) -> &DeviceInfo {
        &self.info
    }

    async fn read_at(&self, offset: u64, mut buffer: BytesMut) -> Result<BytesMut> {
        self.read(offset, &mut buffer)?;
        Ok(buffer)
    }

    async fn write_at(&self, offset: u64, data: Bytes, durability: Durability) -> Result<()> {
        self.write_with(offset, &data, durability)
    }

    async fn write_zeroes(&self, extent: Extent, zeroing: Zeroing, durability: Durability) -> Result<()> {
        self.info.check_change("write zeroes", extent.offset(), extent.length())?;
        let mut content = self.content();
        match zeroing {
            Zeroing::Punch => content.pages.punch(extent),
            Zeroing::Allocate => content.pages.zero(extent),
        }
        content.note(extent, durability);
        content.calls.zeroes += 1;
        content.calls.bytes_zeroed += extent.length();
        Ok(())
    }

    async fn zero_fast(&self, extent: Extent, zeroing: Zeroing, durability: Durability) -> Result<()> {
        self.info.check_change("write zeroes fast", extent.offset(), extent.length())?;
        if !self.info.can_zero_fast {
            return Err(Error::new(ErrorKind::Unsupported, "write zeroes fast", &self.info.identity)
                .because("it cannot zero faster than write"));
        }
        self.write_zeroes(extent, zeroing, durability).await?;
        self.content().calls.fast_zeroes += 1;
        Ok(())
    }

    async fn trim(&self, extent: Extent) -> Result<()> {
        self.info.check_change("trim", extent.offset(), extent.length())?;
        let mut content = self.content();
        content.pages.punch(extent);
        content.note(extent, Durability::Cached);
        content.calls.trims += 1;
        Ok(())
    }

    async fn flush(&self) -> Result<()> {
        let mut content = self.content();
        content.unflushed = ExtentSet::new();
        content.calls.flushes += 1;
        Ok(())
    }

    async fn cache(&self, extent: Extent) -> Result<()> {
        self.info.check("cache", extent.offset(), extent.length())?;
        self.content().calls.caches += 1;
        Ok(())
    }

    async fn block_status(&self, extent: Extent) -> Result<Vec<BlockStatus>> {
        self.info.check("ask for block status", extent.offset(), extent.length())?;
        let mut content = self.content();
        content.calls.statuses += 1;
        Ok(content.pages.status(extent))
    }

    fn in_place(&self) -> Option<&dyn InPlace> {
        Some(self)
    }

    fn leaf_hasher(&self) -> Option<&dyn LeafHasher> {
        Some(self)
    }
}

#[async_trait]
impl LeafHasher for MemoryDevice {
    async fn leaf_hashes(&self, extent: Extent, _from: ReadFrom) -> Result<HashedLeaves> {
        self.info.check("hash", extent.offset(), extent.length())?;
        let mut runs = Vec::new();
        let mut rest = Some(extent);
        let mut read = 0;
        while let Some(asked) = rest.filter(|_| read < AT_ONCE) {
            let status = self.content().pages.status(asked);
            let hole = status.first().filter(|first| first.kind.reads_zero());
            let run = match hole.and_then(|hole| zero_run(asked, hole.extent.end())) {
                Some(run) if !self.ends_in(run.extent) => run,
                _ => {
                    let leaf = asked.pieces(LEAF).next().unwrap_or(asked);
                    let mut bytes = vec![0; usize::try_from(leaf.length()).expect("a leaf fits memory")];
                    self.read(leaf.offset(), &mut bytes)?;
                    read += leaf.length();
                    LeafRun { extent: leaf, hash: LeafHash::of(&bytes) }
                }
            };
            rest = Extent::between(run.extent.end(), extent.end());
            push_run(run, &mut runs);
        }
        Ok(HashedLeaves { runs, manner: ReadManner::InMemory })
    }
}

impl InPlace for MemoryDevice {
    fn read(&self, offset: u64, buffer: &mut [u8]) -> Result<bool> {
        let Some(extent) = self.info.check("read", offset, length(buffer))? else { return Ok(true) };
        let mut content = self.content();
        if let Some(end) = content.end.filter(|end| extent.end() > *end) {
            return Err(Error::new(ErrorKind::Corrupt, "read", &self.info.identity)
                .because(format!("the medium ended early at {end}; was it truncated?")));
        }
        content.pages.read(extent, buffer);
        content.calls.reads += 1;
        content.calls.bytes_read += extent.length();
        Ok(true)
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<()> {
        self.write_with(offset, data, Durability::Cached)
    }

    fn lend(&self, _extent: Extent) -> Option<BorrowedFd<'_>> {
        None
    }
}

fn length(buffer: &[u8]) -> u64 {
    u64::try_from(buffer.len()).expect("a buffer is smaller than 2^64")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::traits::BlockStatusKind::{Data, Hole, Zero};

    fn extent(offset: u64, length: u64) -> Extent {
        Extent::new(offset, length).unwrap()
    }

    #[tokio::test]
    async fn block_status_tells_holes_zeroes_and_data_apart() {
        let device = MemoryDevice::new("m", ByteSize::new(5 * 4096 + 7));
        device.write_at(4096 + 1, Bytes::from_static(b"x"), Durability::Cached).await.unwrap();
        device.write_zeroes(extent(8192, 4096), Zeroing::Allocate, Durability::Cached).await.unwrap();
        let status = device.block_status(extent(10, 5 * 4096 - 3)).await.unwrap();
        let found: Vec<_> = status.iter().map(|s| (s.extent.offset(), s.extent.end(), s.kind)).collect();
        assert_eq!(
            found,
            [(10, 4096, Hole), (4096, 8192, Data), (8192, 12288, Zero), (12288, 5 * 4096 + 7, Hole)]
        );
        device.write_zeroes(extent(0, 5 * 4096 + 7), Zeroing::Punch, Durability::Cached).await.unwrap();
        assert_eq!(device.block_status(extent(0, 8192)).await.unwrap()[0].kind, Hole);
    }

    #[tokio::test]
    async fn unflushed_bytes_are_known_until_a_flush() {
        let device = MemoryDevice::new("m", ByteSize::kib(64));
        device.write_at(0, Bytes::from_static(b"abcd"), Durability::Cached).await.unwrap();
        device.write_at(0, Bytes::from_static(b"ab"), Durability::Durable).await.unwrap();
        assert_eq!(device.unflushed().iter().collect::<Vec<_>>(), [extent(2, 2)]);
        device.clone().flush().await.unwrap();
        assert!(device.unflushed().is_empty());
        let calls = device.calls();
        assert_eq!((calls.writes, calls.bytes_written, calls.flushes), (2, 6, 1));
    }
}
