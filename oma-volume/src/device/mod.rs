//! Raw files and block devices as [`BlockDevice`]s.
//!
//! ```text
//!  read_at ── in the page cache? ── preadv2(RWF_NOWAIT) on the caller's thread     no hand-over
//!                └ no ── pread on a blocking thread
//!  write_at ── small, cached, local? ── pwrite on the caller's thread               no hand-over
//!                └ no ── pwrite on a blocking thread
//!  leaf_hashes ── pread and BLAKE3 on a blocking thread, O_DIRECT when it is to be read back from the device
//!  write_zeroes, trim, flush, cache, block_status ── on a blocking thread                 they wait for the disk
//! ```
//!
//! The hand-over costs 40 µs (two cores of 2.4 GHz, ext4, debug build of this crate): a cached read of 4 KiB took 1 µs without
//! and 45 µs with it, one of 256 KiB 120 and 150 µs; a cached write of 4 KiB 4 and 45 µs, 64 KiB 9 and 50 µs, 256 KiB 39 and
//! 81 µs, 1 MiB 100 and 155 µs.
//!
//! Offsets and lengths are free, also on block devices: all goes through the page cache. An open device holds advisory
//! locks: readers share them, a writer is alone (L06), among us (`flock`) and with programs of QEMU, which have locks of their own.

mod blocking;
mod cached;
mod durable;
mod error;
mod flushes;
mod hashes;
mod in_place;
mod locks;
mod make;
mod medium;
mod queue;
mod ranges;
mod share;
mod status;
#[cfg(feature = "uring")]
mod uring;
mod write_out;

use std::fs::File;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use oma_core::traits::{
    Access, BlockDevice, BlockSizes, BlockStatus, DeviceIdentity, DeviceInfo, Durability, InPlace,
    LeafHasher, Zeroing,
};
use oma_core::{ByteSize, Extent, Result};
use rustix::fs::{Mode, OFlags, open};
use rustix::io::Errno;

pub(crate) use blocking::blocking;
pub(crate) use error::DeviceError;
pub(crate) use locks::{lock, unlock};
pub(crate) use make::{is_at, sync_folder};
use medium::{Home, Medium, Ready, Sort};
pub(crate) use share::cannot_share;

/// Larger reads go to a blocking thread at once: copying them takes longer than the way there.
const INLINE_READ: usize = 256 << 10;
/// Larger writes go to a blocking thread: a disk that cannot keep up makes them wait, and bulk is what fills it.
const INLINE_WRITE: usize = 64 << 10;

/// An open raw file or block device.
///
/// A change under way when its future is dropped still happens, and the lock stays until it did.
#[derive(Clone, Debug)]
pub struct FileDevice {
    info: DeviceInfo,
    medium: Arc<Medium>,
    #[cfg(feature = "uring")]
    uring: bool,
}

impl FileDevice {
    /// Opens a file or block device as large as it is now. Symbolic links are followed.
    ///
    /// # Errors
    /// `NotFound`, `PermissionDenied`; `Invalid` for what is no disk or has no byte; `Busy` while somebody writes to it or,
    /// for writing, has it open.
    pub async fn open(path: impl Into<PathBuf>, access: Access) -> Result<Self> {
        let path = path.into();
        let place = path.clone();
        let opened = blocking(move || Self::open_now(path, access)).await;
        opened.and_then(|device| device).map_err(|error| error.at("open disk", &place))
    }

    pub(crate) fn open_now(path: PathBuf, access: Access) -> Result<Self, DeviceError> {
        let mode = match access {
            Access::ReadOnly => OFlags::RDONLY,
            Access::ReadWrite => OFlags::RDWR,
        };
        // NONBLOCK: opening a pipe would wait for its other end; files and block devices do not care.
        let flags = mode | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let mut file = File::from(open(&path, flags, Mode::empty())?);
        if access == Access::ReadWrite && file.metadata()?.file_type().is_block_device() {
            file = alone(&path, flags, &file)?;
        }
        Self::of(file, path, access)
    }

    /// Takes an open file and locks it; as large as it is now.
    pub(crate) fn of(file: File, path: PathBuf, access: Access) -> Result<Self, DeviceError> {
        Ok(Self::over(Medium::new(file, path, access)?, access))
    }

    /// The same for a file that may have bytes beyond the `capacity`.
    pub(crate) fn within(
        file: File,
        path: PathBuf,
        access: Access,
        capacity: ByteSize,
    ) -> Result<Self, DeviceError> {
        let mut medium = Medium::new(file, path, access)?;
        medium.capacity = medium.capacity.min(capacity.bytes());
        Ok(Self::over(medium, access))
    }

    /// The same for a block device that the kernel made of an image, whose time of change tells of what is written through it.
    #[cfg(feature = "loopdev")]
    pub(crate) fn of_image(
        file: File,
        path: PathBuf,
        access: Access,
        capacity: ByteSize,
        image: File,
    ) -> Result<Self, DeviceError> {
        let mut medium = Medium::new(file, path, access)?;
        medium.capacity = medium.capacity.min(capacity.bytes());
        medium.image = Some(image);
        Ok(Self::over(medium, access))
    }

    fn over(medium: Medium, access: Access) -> Self {
        let info = DeviceInfo {
            identity: DeviceIdentity(medium.identity.clone()),
            capacity: ByteSize::new(medium.capacity),
            block_sizes: BlockSizes { minimum: 1, preferred: 4096, maximum: 1 << 25 },
            access,
            can_trim: true,
            can_block_status: medium.sort == Sort::Regular,
            can_cache: true,
            can_zero_fast: access == Access::ReadWrite && medium.queue.can_zero,
            is_rotational: medium.queue.is_rotational,
        };
        Self {
            info,
            medium: Arc::new(medium),
            #[cfg(feature = "uring")]
            uring: false,
        }
    }

    /// The same device, which waits for what is not in the page cache with io_uring instead of a blocking thread: reads of at
    /// most 256 KiB, on a runtime of one thread, where the kernel allows it. Nothing else changes.
    ///
    /// Such a runtime must have its I/O driver (`enable_io`): reads panic without it.
    #[cfg(feature = "uring")]
    #[must_use]
    pub fn with_uring(self) -> Self {
        Self { uring: true, ..self }
    }

    /// The open file.
    pub(crate) fn file(&self) -> &File {
        &self.medium.file
    }

    async fn run<T, F>(&self, operation: &'static str, call: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&Medium) -> Result<T, DeviceError> + Send + 'static,
    {
        let medium = self.medium.clone();
        let answer = blocking(move || call(&medium)).await;
        answer.and_then(|answer| answer).map_err(|error| error.at(operation, &self.medium.path))
    }
}

#[async_trait]
impl BlockDevice for FileDevice {
    fn info(&self) -> &DeviceInfo {
        &self.info
    }

    async fn read_at(&self, offset: u64, mut buffer: BytesMut) -> Result<BytesMut> {
        if self.info.check("read", offset, length(&buffer))?.is_none() {
            return Ok(buffer);
        }
        let mut have = 0;
        if buffer.len() <= INLINE_READ {
            match self.medium.read_ready(offset, &mut buffer) {
                Ok(Ready::All) => return Ok(buffer),
                Ok(Ready::Part(count)) => have = count,
                Err(error) => return Err(error.at("read", &self.medium.path)),
            }
            #[cfg(feature = "uring")]
            if let Some(ring) = self.uring.then(uring::ring).flatten() {
                (buffer, have) = ring.read(&self.medium, offset, buffer, have).await;
                if have == buffer.len() {
                    return Ok(buffer);
                }
            }
        }
        self.run("read", move |medium| {
            medium.read(offset + length(&buffer[..have]), &mut buffer[have..])?;
            Ok(buffer)
        })
        .await
    }

    async fn write_at(&self, offset: u64, data: Bytes, durability: Durability) -> Result<()> {
        let Some(extent) = self.info.check_change("write", offset, length(&data))? else { return Ok(()) };
        let inline = match (durability, self.medium.home) {
            (Durability::Cached, Home::Memory | Home::Local) => data.len() <= INLINE_WRITE,
            (Durability::Cached, Home::Elsewhere) | (Durability::Durable, _) => false,
        };
        if let Some(written) = inline.then(|| self.medium.write_ready(extent, &data)).flatten() {
            return written.map_err(|error| error.at("write", &self.medium.path));
        }
        self.run("write", move |medium| medium.write(extent, &data, durability)).await
    }

    async fn write_zeroes(&self, extent: Extent, zeroing: Zeroing, durability: Durability) -> Result<()> {
        self.info.check_change("write zeroes", extent.offset(), extent.length())?;
        self.run("write zeroes", move |medium| medium.zero(extent, zeroing, durability)).await
    }

    async fn zero_fast(&self, extent: Extent, zeroing: Zeroing, durability: Durability) -> Result<()> {
        self.info.check_change("write zeroes fast", extent.offset(), extent.length())?;
        self.run("write zeroes fast", move |medium| medium.zero_fast(extent, zeroing, durability)).await
    }

    async fn trim(&self, extent: Extent) -> Result<()> {
        self.info.check_change("trim", extent.offset(), extent.length())?;
        self.run("trim", move |medium| medium.trim(extent)).await
    }

    async fn flush(&self) -> Result<()> {
        self.run("flush", Medium::flush).await
    }

    async fn cache(&self, extent: Extent) -> Result<()> {
        self.info.check("cache", extent.offset(), extent.length())?;
        self.run("cache", move |medium| medium.cache(extent)).await
    }

    async fn block_status(&self, extent: Extent) -> Result<Vec<BlockStatus>> {
        self.info.check("ask for block status", extent.offset(), extent.length())?;
        self.run("ask for block status", move |medium| Ok(medium.status(extent))).await
    }

    fn in_place(&self) -> Option<&dyn InPlace> {
        Some(self)
    }

    fn leaf_hasher(&self) -> Option<&dyn LeafHasher> {
        Some(self)
    }
}

/// So long a program that is just being started may have a copy of every open file, until it is loaded.
const PATIENCE: Duration = Duration::from_millis(500);
const PAUSE: Duration = Duration::from_millis(5);

/// A block device that is mounted, or part of another, is somebody's (L05): the kernel says so to whoever wants it alone. So it does
/// of one that one of us has closed, as long as a copy of it is open: such a one is not locked any more.
#[expect(
    clippy::disallowed_methods,
    reason = "this is a blocking thread, and nobody tells when a copy is closed"
)]
fn alone(path: &Path, flags: OFlags, known: &File) -> Result<File, DeviceError> {
    let until = Instant::now() + PATIENCE;
    loop {
        match open(path, flags | OFlags::EXCL, Mode::empty()) {
            Err(Errno::BUSY) if Instant::now() < until => {
                lock(known, Access::ReadWrite)?;
                unlock(known);
                thread::sleep(PAUSE);
            }
            opened => return Ok(File::from(opened?)),
        }
    }
}

#[cfg(test)]
mod tests;

fn length(buffer: &[u8]) -> u64 {
    u64::try_from(buffer.len()).expect("a buffer is smaller than 2^64")
}
