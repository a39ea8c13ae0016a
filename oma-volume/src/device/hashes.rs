//! Hashes of leaves: the data is read in runs on blocking threads, as many at once as there are calls.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use bytes::BytesMut;
use oma_core::traits::{HashedLeaves, LeafHasher, ReadFrom, ReadManner};
use oma_core::tree::{AT_ONCE, LEAF, push_hashes, push_run, zero_run};
use oma_core::{Extent, Result, page_aligned};
use rustix::fs::{Mode, OFlags, open};
use rustix::io::Errno;

use super::error::DeviceError;
use super::medium::{Home, Medium, Sort};
use super::{FileDevice, length};

/// Bytes of one read through the page cache: they are still in the processor's cache when they are hashed.
const PIECE: u64 = 256 << 10;
/// Bytes of one read past it, each of which waits for the device.
const DIRECT_PIECE: u64 = 1 << 20;
/// Direct reads begin and end at multiples of this: no device has larger blocks.
const BLOCK: u64 = 4096;

/// The same file or device opened past the page cache, when it was asked for.
#[derive(Debug, Default)]
pub(super) struct Direct {
    file: OnceLock<Option<File>>,
    /// A read was refused: this file system or device cannot do it.
    refused: AtomicBool,
}

#[async_trait]
impl LeafHasher for FileDevice {
    async fn leaf_hashes(&self, extent: Extent, from: ReadFrom) -> Result<HashedLeaves> {
        self.info.check("hash", extent.offset(), extent.length())?;
        self.run("hash", move |medium| medium.leaf_hashes(extent, from)).await
    }
}

impl Medium {
    /// Hashes leaves from the start of an extent, at most [`AT_ONCE`] bytes of data; holes are not read.
    fn leaf_hashes(&self, extent: Extent, from: ReadFrom) -> Result<HashedLeaves, DeviceError> {
        let (mut runs, mut read, mut manner) = (Vec::new(), 0, ReadManner::PastCache);
        let mut buffer = BytesMut::new();
        let mut rest = Some(extent);
        while let Some(asked) = rest.filter(|_| read < AT_ONCE) {
            let status = if self.sort == Sort::Regular { self.next(asked) } else { None };
            let hole = status.filter(|status| status.kind.reads_zero());
            let done = if let Some(run) = hole.and_then(|hole| zero_run(asked, hole.extent.end())) {
                push_run(run, &mut runs);
                run.extent
            } else {
                let data =
                    status.filter(|status| !status.kind.reads_zero()).map_or(asked.end(), |s| s.extent.end());
                let window = window(asked, data, from);
                let (bytes, how) = self.read_back(window, from, &mut buffer)?;
                manner = manner.min(how);
                push_hashes(window, bytes, &mut runs);
                read += window.length();
                window
            };
            rest = Extent::between(done.end(), extent.end());
        }
        if self.home == Home::Memory {
            manner = ReadManner::InMemory;
        } else if from == ReadFrom::Anywhere {
            manner = ReadManner::ThroughCache;
        }
        Ok(HashedLeaves { runs, manner })
    }

    /// Reads a window past the page cache if that is wanted and possible.
    fn read_back<'a>(
        &self,
        window: Extent,
        from: ReadFrom,
        buffer: &'a mut BytesMut,
    ) -> Result<(&'a [u8], ReadManner), DeviceError> {
        let (first, last) = (window.offset() / BLOCK * BLOCK, window.end().next_multiple_of(BLOCK));
        let [whole, start, wanted] = [last - first, window.offset() - first, window.length()]
            .map(|count| usize::try_from(count).expect("a window fits memory"));
        if buffer.len() < whole {
            *buffer = page_aligned(whole);
        }
        if from == ReadFrom::Device
            && let Some(file) = self.direct()
        {
            match read_direct(file, first, &mut buffer[..whole], start + wanted) {
                Ok(true) => return Ok((&buffer[start..start + wanted], ReadManner::PastCache)),
                Ok(false) => {
                    let end = self.file.metadata().map_or(0, |about| about.len());
                    return Err(DeviceError::EndedEarly { end, capacity: self.capacity });
                }
                Err(Errno::INVAL | Errno::OPNOTSUPP) => self.direct.refused.store(true, Ordering::Relaxed),
                Err(error) => return Err(error.into()),
            }
        }
        self.read(window.offset(), &mut buffer[..wanted])?;
        Ok((&buffer[..wanted], ReadManner::ThroughCache))
    }

    fn direct(&self) -> Option<&File> {
        if self.home == Home::Memory || self.direct.refused.load(Ordering::Relaxed) {
            return None;
        }
        let open = || {
            // Not by its path, which may lead to another file by now.
            let path = format!("/proc/self/fd/{}", self.file.as_raw_fd());
            let opened = open(path, OFlags::RDONLY | OFlags::DIRECT | OFlags::CLOEXEC, Mode::empty());
            opened
                .inspect_err(|error| tracing::debug!(path = %self.path.display(), %error, "no direct reads"))
                .ok()
        };
        self.direct.file.get_or_init(|| open().map(File::from)).as_ref()
    }
}

/// The part of what was asked for that is read at once: whole leaves, up to the end of the data that begins it.
fn window(asked: Extent, data_end: u64, from: ReadFrom) -> Extent {
    let piece = match from {
        ReadFrom::Anywhere => PIECE,
        ReadFrom::Device => DIRECT_PIECE,
    };
    let end = data_end.next_multiple_of(LEAF).min(asked.end());
    let data = Extent::between(asked.offset(), end).unwrap_or(asked);
    data.pieces(piece).next().unwrap_or(data)
}

/// Reads at least `wanted` bytes, if the file is as long; the rest of the last block may lie behind its end.
fn read_direct(file: &File, offset: u64, buffer: &mut [u8], wanted: usize) -> Result<bool, Errno> {
    let mut have = 0;
    while have < wanted {
        let at = offset + length(&buffer[..have]);
        match file.read_at(&mut buffer[have..], at) {
            Ok(0) => return Ok(false),
            // A short read that is not at the end of the file is a multiple of the block.
            Ok(count) => have += count,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(Errno::from_io_error(&error).unwrap_or(Errno::IO)),
        }
    }
    Ok(true)
}
