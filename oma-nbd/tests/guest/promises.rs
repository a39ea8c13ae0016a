//! The suite of export servers, as far as a block device can keep its promises.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures_util::TryStreamExt;
use oma_core::conformance::{Connect, ExportSubject, export_server_cases, without};
use oma_core::memory::MemoryDevice;
use oma_core::traits::{
    Access, BlockDevice, BlockStatus, DeviceInfo, Durability, ExportServer, InPlace, LeafHasher, Zeroing,
};
use oma_core::{ByteSize, Error, ErrorKind, ExportName, Extent, Result};
use oma_nbd::kernel::{KernelExports, attached};
use rustix::fs::OFlags;

use crate::exports::exports;
use crate::inside::{Case, blocking, cases, program, suite};

const LONG: Duration = Duration::from_secs(30);
/// What is read and written past the page cache comes in these.
const BLOCK: u64 = 512;

/// What it cannot keep, and why.
const NOT_KEPT: &[(&str, &[&str])] = &[
    (
        "requests are the kernel's: of whole blocks, and also for partitions, before anybody asks",
        &["requests_and_bytes_are_counted", "the_same_token_and_export_change_nothing", "errors_are_counted"],
    ),
    (
        "connections are the kernel's, as many as long as it is attached",
        &["connections_are_counted_while_they_last"],
    ),
];

pub(crate) fn cases() -> Vec<Case> {
    let suite = suite("kernel", without(export_server_cases(), NOT_KEPT), subject);
    suite.into_iter().chain(cases![what_the_suite_has_left_is_withdrawn]).collect()
}

/// The server of the case before: a case leaves its exports, and the kernel has only so many devices.
static LAST: Mutex<Option<KernelExports>> = Mutex::new(None);

async fn clear(next: Option<KernelExports>) {
    let last = std::mem::replace(&mut *LAST.lock().unwrap(), next);
    let Some(last) = last else { return };
    let left: Vec<_> = last.list().try_collect().await.unwrap();
    for export in left {
        last.withdraw(&export.name, LONG).await.unwrap();
    }
}

async fn what_the_suite_has_left_is_withdrawn() {
    clear(None).await;
    assert!(attached().await.unwrap().is_empty());
}

async fn subject() -> ExportSubject {
    let exports = exports();
    clear(Some(exports.clone())).await;
    let server = exports.clone();
    let connect: Connect = Arc::new(move |name| {
        let exports = exports.clone();
        Box::pin(async move {
            let client: Arc<dyn BlockDevice> = Arc::new(Node::open(&exports, &name).await?);
            Ok(client)
        })
    });
    ExportSubject { server: Arc::new(server), connect, guard: Box::new(()) }
}

/// An export as a program has it that opens the block device, past the page cache: what it is told is so of the export.
#[derive(Debug)]
struct Node {
    info: DeviceInfo,
    path: PathBuf,
    file: Arc<File>,
}

impl Node {
    async fn open(exports: &KernelExports, name: &ExportName) -> Result<Self> {
        let path = exports.path(name).await.ok_or_else(|| Error::new(ErrorKind::NotFound, "open", name))?;
        let device = MemoryDevice::new(name.to_string(), ByteSize::mib(1));
        let mut info = device.info().clone();
        blocking(move || {
            let flags = i32::try_from(OFlags::DIRECT.bits()).unwrap();
            let open = |write| OpenOptions::new().read(true).write(write).custom_flags(flags).open(&path);
            let node = path.file_name().unwrap().to_string_lossy().into_owned();
            let told = |what: &str| std::fs::read_to_string(format!("/sys/block/{node}/{what}"));
            let sectors: u64 = told("size").map_err(failed)?.trim().parse().unwrap();
            info.capacity = ByteSize::new(sectors * BLOCK);
            if told("ro").map_err(failed)?.trim() == "1" {
                info.access = Access::ReadOnly;
            }
            let file = open(true).or_else(|_| open(false)).map_err(failed)?;
            Ok(Self { info, path, file: Arc::new(file) })
        })
        .await
    }

    async fn call<T: Send + 'static>(
        &self,
        call: impl FnOnce(&File) -> io::Result<T> + Send + 'static,
    ) -> Result<T> {
        let file = self.file.clone();
        blocking(move || call(&file)).await.map_err(failed)
    }
}

fn failed(error: io::Error) -> Error {
    use rustix::io::Errno;
    let is = |errno: Errno| error.raw_os_error() == Some(errno.raw_os_error());
    // What could only be opened for reading says that it is no file to write to.
    let refused = error.kind() == io::ErrorKind::PermissionDenied || is(Errno::BADF) || is(Errno::ROFS);
    let kind = if refused { ErrorKind::PermissionDenied } else { ErrorKind::Unavailable };
    Error::new(kind, "use", "block device").with_source(error)
}

/// Has `change` done to the whole blocks around some bytes, in memory that the device can reach.
fn around<T>(
    file: &File,
    offset: u64,
    length: usize,
    change: impl FnOnce(u64, &mut [u8], usize) -> io::Result<T>,
) -> io::Result<T> {
    let (block, before) = (usize::try_from(BLOCK).unwrap(), usize::try_from(offset % BLOCK).unwrap());
    let (begin, length) = (offset - offset % BLOCK, (before + length).next_multiple_of(block));
    let mut room = vec![0; length + block];
    let at = room.as_ptr().align_offset(block);
    let blocks = &mut room[at..at + length];
    file.read_exact_at(blocks, begin)?;
    change(begin, blocks, before)
}

#[async_trait]
impl BlockDevice for Node {
    fn info(&self) -> &DeviceInfo {
        &self.info
    }

    async fn read_at(&self, offset: u64, mut buffer: BytesMut) -> Result<BytesMut> {
        self.call(move |file| {
            around(file, offset, buffer.len(), |_, blocks, before| {
                let length = buffer.len();
                buffer.copy_from_slice(&blocks[before..before + length]);
                Ok(buffer)
            })
        })
        .await
    }

    async fn write_at(&self, offset: u64, data: Bytes, durability: Durability) -> Result<()> {
        self.call(move |file| {
            around(file, offset, data.len(), |begin, blocks, before| {
                blocks[before..before + data.len()].copy_from_slice(&data);
                file.write_all_at(blocks, begin)
            })?;
            if durability == Durability::Durable { file.sync_data() } else { Ok(()) }
        })
        .await
    }

    async fn write_zeroes(&self, extent: Extent, _: Zeroing, durability: Durability) -> Result<()> {
        let zeroes = vec![0; usize::try_from(extent.length()).unwrap()];
        self.write_at(extent.offset(), zeroes.into(), durability).await
    }

    async fn zero_fast(&self, _: Extent, _: Zeroing, _: Durability) -> Result<()> {
        Err(Error::new(ErrorKind::Unsupported, "zero fast", "block device"))
    }

    async fn trim(&self, extent: Extent) -> Result<()> {
        let (offset, length, node) = (extent.offset(), extent.length(), self.path.display());
        let (said, well) = program(&format!("blkdiscard -o {offset} -l {length} {node}")).await;
        if well {
            return Ok(());
        }
        // The kernel was not told that what is only read can be trimmed.
        let refused = self.info.access == Access::ReadOnly && said.contains("not supported");
        let kind = if refused { ErrorKind::PermissionDenied } else { ErrorKind::Unavailable };
        Err(Error::new(kind, "discard", node).because(said))
    }

    async fn flush(&self) -> Result<()> {
        self.call(|file| file.sync_all()).await
    }

    async fn cache(&self, _: Extent) -> Result<()> {
        Ok(())
    }

    async fn block_status(&self, _: Extent) -> Result<Vec<BlockStatus>> {
        Err(Error::new(ErrorKind::Unsupported, "ask for the status", "block device"))
    }

    fn in_place(&self) -> Option<&dyn InPlace> {
        None
    }

    fn leaf_hasher(&self) -> Option<&dyn LeafHasher> {
        None
    }
}
