use std::fmt;
use std::os::fd::BorrowedFd;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};

use crate::traits::LeafHasher;
use crate::{ByteSize, Error, ErrorKind, Extent, Result};

/// Who a device is, however it is reached: device and inode number, a serial, an NBD URI (L06).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct DeviceIdentity(pub String);

impl fmt::Display for DeviceIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What may be done through an open device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Reads only; everything else answers [`ErrorKind::PermissionDenied`](crate::ErrorKind::PermissionDenied).
    ReadOnly,
    /// Reads and writes.
    ReadWrite,
}

/// Sizes of requests in bytes, powers of two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockSizes {
    /// Offsets and lengths are multiples of it.
    pub minimum: u32,
    /// The best unit.
    pub preferred: u32,
    /// No request carries more data.
    pub maximum: u32,
}

/// What is known of an open device. It does not change while the device is open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceInfo {
    /// Who it is.
    pub identity: DeviceIdentity,
    /// Its size.
    pub capacity: ByteSize,
    /// Sizes of requests.
    pub block_sizes: BlockSizes,
    /// What may be done.
    pub access: Access,
    /// Whether trim does anything.
    pub can_trim: bool,
    /// Whether [`BlockDevice::block_status`] tells more than "data".
    pub can_block_status: bool,
    /// Whether [`BlockDevice::cache`] leaves an extent where reads are fast.
    pub can_cache: bool,
    /// Whether [`BlockDevice::zero_fast`] may succeed; without it, it never does.
    pub can_zero_fast: bool,
    /// Whether it stands on a spinning disk, where reads are fast only in order; false when that is not known.
    pub is_rotational: bool,
}

impl DeviceInfo {
    /// The extent of a request, `None` when it is empty.
    ///
    /// # Errors
    /// `Invalid` when it ends beyond the capacity or is no multiple of the smallest block.
    pub fn check(&self, operation: &'static str, offset: u64, length: u64) -> Result<Option<Extent>> {
        if length == 0 {
            return Ok(None);
        }
        let unit = u64::from(self.block_sizes.minimum.max(1));
        let reason = match Extent::new(offset, length) {
            Err(error) => error.to_string(),
            Ok(extent) if extent.end() > self.capacity.bytes() => {
                format!("the extent {extent} ends beyond the capacity of {} bytes", self.capacity.bytes())
            }
            Ok(extent) if !(offset.is_multiple_of(unit) && length.is_multiple_of(unit)) => {
                format!("the extent {extent} does not consist of whole blocks of {unit} bytes")
            }
            Ok(extent) => return Ok(Some(extent)),
        };
        Err(Error::new(ErrorKind::Invalid, operation, &self.identity).because(reason))
    }

    /// As [`DeviceInfo::check`], for a request that changes something.
    ///
    /// # Errors
    /// Also `PermissionDenied` when only reads are possible.
    pub fn check_change(&self, operation: &'static str, offset: u64, length: u64) -> Result<Option<Extent>> {
        match self.access {
            Access::ReadWrite => self.check(operation, offset, length),
            Access::ReadOnly => Err(Error::new(ErrorKind::PermissionDenied, operation, &self.identity)
                .because("it is open for reading only")),
        }
    }
}

/// When a write is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// When every later read sees it; a flush makes it durable.
    Cached,
    /// When it is on stable storage (FUA).
    Durable,
}

/// How zeroes are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Zeroing {
    /// Space may be given back.
    Punch,
    /// Space stays allocated.
    Allocate,
}

/// What a device knows of an extent without reading it.
///
/// "Not allocated" and "reads as zero" are two promises: NBD has a bit for each
/// (NBD protocol, `base:allocation`, `NBD_STATE_HOLE` and `NBD_STATE_ZERO`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BlockStatusKind {
    /// Must be read to be known.
    Data,
    /// Allocated and reads as zero.
    Zero,
    /// Not allocated and reads as zero.
    Hole,
    /// Not allocated; what it reads as is not promised, so it must be read (L10).
    Unallocated,
}

impl BlockStatusKind {
    /// Whether the device promises that it reads as zero.
    #[must_use]
    pub const fn reads_zero(self) -> bool {
        matches!(self, Self::Zero | Self::Hole)
    }
}

/// The status of one extent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockStatus {
    /// The extent.
    pub extent: Extent,
    /// Its status.
    pub kind: BlockStatusKind,
}

/// The data plane: an open disk, volume or export.
///
/// Buffers are owned by the operation, so a dropped future never leaves a borrowed one behind. Many calls may be under
/// way at once. Calls that overlap are applied in some order; a call begun after another returned sees its effect.
///
/// Every method answers [`ErrorKind::Invalid`](crate::ErrorKind::Invalid) for an extent that ends beyond the capacity and
/// does nothing then; every changing method answers [`ErrorKind::PermissionDenied`](crate::ErrorKind::PermissionDenied)
/// on a read-only device. All are idempotent. After a failed or dropped write its extent holds old, new or mixed bytes,
/// nothing else changed. A lost device or peer answers [`ErrorKind::Unavailable`](crate::ErrorKind::Unavailable), a full
/// one [`ErrorKind::NoSpace`](crate::ErrorKind::NoSpace).
#[async_trait]
pub trait BlockDevice: fmt::Debug + Send + Sync + 'static {
    /// What is known of the device.
    fn info(&self) -> &DeviceInfo;

    /// Fills the whole buffer from `offset` and gives it back. An empty buffer comes back at once.
    ///
    /// Never answers fewer bytes: a device that ends early answers
    /// [`ErrorKind::Corrupt`](crate::ErrorKind::Corrupt) (L11).
    async fn read_at(&self, offset: u64, buffer: BytesMut) -> Result<BytesMut>;

    /// Writes all of `data` at `offset`.
    async fn write_at(&self, offset: u64, data: Bytes, durability: Durability) -> Result<()>;

    /// Makes an extent read as zero, of any length.
    async fn write_zeroes(&self, extent: Extent, zeroing: Zeroing, durability: Durability) -> Result<()>;

    /// As [`BlockDevice::write_zeroes`], but only if that is faster than writing the zeroes as data; else it answers
    /// [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported) at once and nothing has changed.
    async fn zero_fast(&self, extent: Extent, zeroing: Zeroing, durability: Durability) -> Result<()>;

    /// Tells that the content of an extent is not needed; it reads as anything afterwards. A hint: a device that
    /// cannot trim does nothing and answers `Ok`.
    async fn trim(&self, extent: Extent) -> Result<()>;

    /// Makes every write that returned before durable, through whichever handle it came.
    ///
    /// After a failure nothing is known of any write since the last success.
    async fn flush(&self) -> Result<()>;

    /// Reads an extent into the cache so that later reads are fast. A hint: the content stays,
    /// and a device without a cache does nothing and answers `Ok`.
    async fn cache(&self, extent: Extent) -> Result<()>;

    /// The status of an extent from its start: at least one entry, in order, without gaps, never beyond the extent.
    ///
    /// It may end early; ask again from there. A device that knows nothing answers `Data`.
    async fn block_status(&self, extent: Extent) -> Result<Vec<BlockStatus>>;

    /// The same device for a caller that has a thread of its own; `None` when its calls need an async runtime.
    fn in_place(&self) -> Option<&dyn InPlace>;

    /// Hashes of leaves, made where the data is; `None` when the caller had to read it anyway.
    fn leaf_hasher(&self) -> Option<&dyn LeafHasher>;
}

/// The calls of a [`BlockDevice`] that a server makes for nearly every request, done on the thread that makes them.
///
/// There is no hand-over to another thread, no allocation and no future; but a call may keep its thread waiting for a disk.
/// Each promises what the method of [`BlockDevice`] promises, and may be mixed with those.
pub trait InPlace: Send + Sync {
    /// Fills the buffer from `offset` if its content is in memory already; `false` when it is not, and the buffer then
    /// holds anything: [`BlockDevice::read_at`] can wait for it.
    ///
    /// # Errors
    /// As [`BlockDevice::read_at`].
    fn read(&self, offset: u64, buffer: &mut [u8]) -> Result<bool>;

    /// As [`InPlace::read`], but waits for what is not in memory, where that takes no longer than a local disk does.
    ///
    /// # Errors
    /// As [`BlockDevice::read_at`].
    fn read_waiting(&self, offset: u64, buffer: &mut [u8]) -> Result<bool> {
        self.read(offset, buffer)
    }

    /// Writes all of `data` at `offset`, [`Durability::Cached`].
    ///
    /// # Errors
    /// As [`BlockDevice::write_at`].
    fn write(&self, offset: u64, data: &[u8]) -> Result<()>;

    /// Begins to bring what was written in an extent to the medium, without waiting for it, and need not keep it in the cache: a
    /// later flush has less to do. A hint; a device without a cache does nothing.
    fn write_out(&self, _extent: Extent) {}

    /// Tells that nobody will read an extent soon: what of it is on the medium need not stay in the cache. A hint, which takes a
    /// moment; a device without a cache does nothing.
    fn let_go(&self, _extent: Extent) {}

    /// The open file from which the extent can be sent at the same offset (`sendfile`), for whoever would only copy it from
    /// here to there. All of it is in memory just now, so that sending neither waits nor fails. `None` when that is not
    /// so, or there is no file: read it then.
    ///
    /// What is written meanwhile may be sent, in whole or in part, as with a read. A file that is truncated meanwhile
    /// sends less.
    fn lend(&self, extent: Extent) -> Option<BorrowedFd<'_>>;

    /// The open file whose blocks another device may share: see [`InPlace::share`]. `None` when there is no file.
    fn file(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    /// Makes an extent hold what the same extent of another open file holds by sharing its blocks (reflink, `FICLONERANGE`):
    /// nothing is read, and whoever writes to one of the two later does not change the other. As a write it is
    /// [`Durability::Cached`]. `false` when that cannot be done: read and write it then.
    ///
    /// # Errors
    /// As [`BlockDevice::write_at`].
    fn share(&self, _extent: Extent, _from: BorrowedFd<'_>) -> Result<bool> {
        Ok(false)
    }
}
