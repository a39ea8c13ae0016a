//! Devices that fail, hang or shrink: the right error, and nobody else notices.
#![cfg(feature = "server")]
#![allow(clippy::unwrap_used, reason = "a test panics when its setup fails")]

mod raw;

use std::sync::Arc;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use oma_core::memory::{Faults, FaultyDevice, HeldDevice, Hold, MemoryDevice};
use oma_core::traits::{
    Access, BlockDevice, BlockStatus, DeviceInfo, Drained, Durability, ExportServer, ExportSpec, InPlace,
    LeafHasher, Zeroing,
};
use oma_core::{ByteSize, ErrorKind, Extent, Fence, Result, Retry};
use oma_nbd::protocol::*;
use oma_nbd::{Server, ServerConfig};
use oma_volume::device::FileDevice;
use raw::{Raw, Reply, SOON, Sockets, name, request, spec};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::net::UnixStream;

const SIZE: ByteSize = ByteSize::mib(8);
const MIB: u32 = 1 << 20;

async fn entered<S: AsyncRead + AsyncWrite + Unpin>(mut raw: Raw<S>, name: &str) -> Raw<S> {
    raw.greet().await;
    raw.with_structured(name, &[BASE_ALLOCATION]).await
}

#[tokio::test]
async fn an_error_on_one_sector_fails_what_touches_it_and_nothing_else() {
    let memory = MemoryDevice::new("m", SIZE);
    memory.write_at(0, Bytes::from(vec![7; 1 << 20]), Durability::Durable).await.unwrap();
    let faults = Faults::new(ErrorKind::Unavailable, Retry::Later);
    let device = FaultyDevice::new(Arc::new(memory.clone()), faults.clone());
    let server = raw::server(ServerConfig::default(), Arc::new(device)).await;
    let sockets = Sockets::new(&server).await;
    let (mut unix, mut tcp) =
        (entered(sockets.unix().await, "disk").await, entered(sockets.tcp().await, "disk").await);
    faults.fail_reads_in(Extent::new(64 << 10, 512).unwrap());
    for (offset, length) in [(64 << 10, 512), ((64 << 10) - 1, 2), (0, MIB), (65_000, 4096), (66_047, 1)] {
        assert_eq!(unix.ask(request(NBD_CMD_READ, offset, length), &[]).await, Reply::Error(NBD_EIO));
    }
    for (offset, length) in [(0, 64 << 10), ((64 << 10) + 512, 100_000), (65_535, 1), (66_048, 1)] {
        let data = vec![7; length.try_into().unwrap()];
        assert!(unix.ask(request(NBD_CMD_READ, offset, length), &[]).await == Reply::Data(data));
    }
    // In the middle of many: each gets its own answer.
    let many: Vec<u8> = (0..256)
        .flat_map(|n| Request { cookie: n, ..request(NBD_CMD_READ, n * 512, 512) }.encode())
        .collect();
    tcp.say(&many).await;
    for _ in 0..256 {
        let (cookie, reply) = tcp.reply(512).await;
        let expected = if cookie == 128 { Reply::Error(NBD_EIO) } else { Reply::Data(vec![7; 512]) };
        assert_eq!(reply, expected, "{cookie}");
    }
    assert_eq!(memory.calls().writes, 1);
    sockets.close().await;
}

/// A server with the export `disk` over a device that can be held, and `other`.
async fn with_other(config: ServerConfig) -> (Server, MemoryDevice, Hold) {
    let (device, hold) = (MemoryDevice::new("m", SIZE), Hold::default());
    let held = HeldDevice::new(Arc::new(device.clone()), hold.clone());
    let server = raw::server(config, Arc::new(held)).await;
    let other = Arc::new(MemoryDevice::new("o", SIZE));
    server.publish(spec("other", Access::ReadWrite, other)).await.unwrap();
    (server, device, hold)
}

/// Every sort of request hangs in one device; the other export, and new clients, are served as ever.
async fn a_hanging_device() {
    let (server, device, hold) = with_other(ServerConfig::default()).await;
    let sockets = Sockets::new(&server).await;
    let mut stuck = entered(sockets.unix().await, "disk").await;
    hold.hold();
    let commands = [NBD_CMD_READ, NBD_CMD_FLUSH, NBD_CMD_TRIM, NBD_CMD_WRITE_ZEROES, NBD_CMD_BLOCK_STATUS];
    for command in commands {
        let length = if command == NBD_CMD_FLUSH { 0 } else { 4096 };
        stuck.send(Request { cookie: command.into(), ..request(command, 0, length) }, &[]).await;
    }
    stuck.send(Request { cookie: 99, ..request(NBD_CMD_WRITE, 8192, 3) }, b"abc").await;
    hold.reached(commands.len() + 1).await;
    for round in 0..10 {
        let mut other = entered(sockets.tcp().await, "other").await;
        for number in 0..10 {
            let write = request(NBD_CMD_WRITE, round * 1000 + number * 100, 3);
            assert_eq!(other.ask(write, b"xyz").await, Reply::Done);
            assert_eq!(other.ask(request(NBD_CMD_FLUSH, 0, 0), &[]).await, Reply::Done);
        }
    }
    assert_eq!(hold.waiting(), commands.len() + 1, "nothing of it was answered meanwhile");
    let statistics = server.statistics(&name("disk")).await.unwrap().unwrap();
    assert_eq!((statistics.connections, statistics.errors), (1, 0));
    hold.release();
    for _ in 0..=commands.len() {
        let (cookie, reply) = stuck.reply(0).await;
        assert!(!matches!(reply, Reply::Error(_)), "{cookie}: {reply:?}");
    }
    assert_eq!(&device.bytes()[8192..8195], b"abc");
    sockets.close().await;
}

#[tokio::test]
async fn a_device_that_hangs_keeps_no_other_export_waiting_on_one_thread() {
    a_hanging_device().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_device_that_hangs_keeps_no_other_export_waiting() {
    a_hanging_device().await;
}

#[tokio::test(start_paused = true)]
async fn a_device_that_hangs_is_waited_for_longer_than_any_client() {
    let (server, device, hold) = with_other(ServerConfig::default()).await;
    let mut raw = Raw::simple(&server).await;
    hold.hold();
    raw.send(request(NBD_CMD_WRITE, 0, 3), b"abc").await;
    hold.reached(1).await;
    tokio::time::sleep(10 * ServerConfig::default().stall_timeout).await;
    hold.release();
    assert_eq!(raw.reply(0).await, (7, Reply::Done));
    assert_eq!(raw.ask(request(NBD_CMD_READ, 0, 3), &[]).await, Reply::Data(b"abc".to_vec()));
    assert_eq!(device.calls().writes, 1);
}

/// A device that breaks its promise: reads answer a byte too few.
#[derive(Debug)]
struct Short(MemoryDevice);

#[async_trait]
impl BlockDevice for Short {
    fn info(&self) -> &DeviceInfo {
        self.0.info()
    }

    async fn read_at(&self, offset: u64, buffer: BytesMut) -> Result<BytesMut> {
        let mut read = self.0.read_at(offset, buffer).await?;
        read.truncate(read.len() - 1);
        Ok(read)
    }

    async fn write_at(&self, offset: u64, data: Bytes, durability: Durability) -> Result<()> {
        self.0.write_at(offset, data, durability).await
    }

    async fn write_zeroes(&self, extent: Extent, zeroing: Zeroing, durability: Durability) -> Result<()> {
        self.0.write_zeroes(extent, zeroing, durability).await
    }

    async fn zero_fast(&self, extent: Extent, zeroing: Zeroing, durability: Durability) -> Result<()> {
        self.0.zero_fast(extent, zeroing, durability).await
    }

    async fn trim(&self, extent: Extent) -> Result<()> {
        self.0.trim(extent).await
    }

    async fn flush(&self) -> Result<()> {
        self.0.flush().await
    }

    async fn cache(&self, extent: Extent) -> Result<()> {
        self.0.cache(extent).await
    }

    async fn block_status(&self, extent: Extent) -> Result<Vec<BlockStatus>> {
        self.0.block_status(extent).await
    }

    fn in_place(&self) -> Option<&dyn InPlace> {
        None
    }

    fn leaf_hasher(&self) -> Option<&dyn LeafHasher> {
        None
    }
}

#[tokio::test]
async fn l11_a_read_that_a_device_answers_short_is_an_error_and_shifts_nothing() {
    let server = raw::server(ServerConfig::default(), Arc::new(Short(MemoryDevice::new("m", SIZE)))).await;
    let mut raw = Raw::simple(&server).await;
    for length in [1, 512, MIB] {
        let read = raw.ask(request(NBD_CMD_READ, 0, length), &[]).await;
        assert_eq!(read, Reply::Error(NBD_EIO), "{length}");
    }
    assert_eq!(raw.ask(request(NBD_CMD_WRITE, 0, 3), b"abc").await, Reply::Done);
}

/// A file with the same byte everywhere, and a server of it.
async fn file() -> (tempfile::TempDir, Server) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("disk.raw");
    std::fs::write(&path, vec![7; SIZE.bytes().try_into().unwrap()]).unwrap();
    let device = FileDevice::open(&path, Access::ReadWrite).await.unwrap();
    let server = raw::server(ServerConfig::default(), Arc::new(device)).await;
    server.publish(spec("other", Access::ReadWrite, Arc::new(MemoryDevice::new("o", SIZE)))).await.unwrap();
    (folder, server)
}

fn truncate(folder: &tempfile::TempDir, length: u64) {
    let file = std::fs::File::options().write(true).open(folder.path().join("disk.raw")).unwrap();
    file.set_len(length).unwrap();
}

#[tokio::test]
async fn l11_a_file_that_was_cut_off_answers_errors_beyond_its_end() {
    let (folder, server) = file().await;
    let sockets = Sockets::new(&server).await;
    let mut raw = entered(sockets.unix().await, "disk").await;
    truncate(&folder, 3 << 20);
    for length in [512, 4096, 64 << 10, MIB, 2 * MIB] {
        for offset in [(3 << 20) - 100, 3 << 20, 5 << 20] {
            let read = raw.ask(request(NBD_CMD_READ, offset, length), &[]).await;
            assert_eq!(read, Reply::Error(NBD_EIO), "{length} at {offset}");
        }
        let inside = raw.ask(request(NBD_CMD_READ, 0, length), &[]).await;
        assert!(inside == Reply::Data(vec![7; length.try_into().unwrap()]), "{length} bytes");
    }
    assert_eq!(raw.ask(request(NBD_CMD_WRITE, 4 << 20, 3), b"abc").await, Reply::Error(NBD_EIO));
    assert_eq!(raw.ask(request(NBD_CMD_FLUSH, 0, 0), &[]).await, Reply::Error(NBD_EIO));
    assert_eq!(folder.path().join("disk.raw").metadata().unwrap().len(), 3 << 20, "it was not made longer");
    let mut other = entered(sockets.tcp().await, "other").await;
    assert_eq!(other.ask(request(NBD_CMD_READ, 0, 3), &[]).await, Reply::Data(vec![0; 3]));
    sockets.close().await;
}

/// So many bytes, or `None` when the connection ended before.
async fn take(raw: &mut Raw<UnixStream>, length: usize) -> Option<Vec<u8>> {
    let mut bytes = vec![0; length];
    let read = tokio::time::timeout(SOON, raw.stream.read_exact(&mut bytes)).await.expect("no hang");
    read.ok().map(|_| bytes)
}

/// The next reply: whether it is one of success, and the data that came with it; `None` when the connection ended.
async fn next(raw: &mut Raw<UnixStream>, structured: bool, length: u32) -> Option<(bool, Vec<u8>)> {
    if !structured {
        let reply = SimpleReply::decode(take(raw, SimpleReply::SIZE).await?.first_chunk()?).unwrap();
        let length = if reply.error == 0 { length } else { 0 };
        return Some((reply.error == 0, take(raw, length.try_into().unwrap()).await?));
    }
    let (mut well, mut whole) = (true, Vec::new());
    loop {
        let header = ChunkHeader::decode(take(raw, ChunkHeader::SIZE).await?.first_chunk()?).unwrap();
        let payload = take(raw, header.length.try_into().unwrap()).await?;
        match Chunk::decode(header.kind, &payload).unwrap() {
            Chunk::OffsetData { data, .. } => whole.extend(data),
            Chunk::OffsetHole { .. } => whole.push(0),
            other => well &= !matches!(other, Chunk::Error { .. } | Chunk::ErrorOffset { .. }),
        }
        if header.flags & NBD_REPLY_FLAG_DONE != 0 {
            return Some((well, whole));
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn l11_a_file_that_is_cut_off_while_it_is_read_never_answers_other_bytes() {
    for (structured, length) in
        [(false, 16 << 10), (true, 256 << 10), (false, MIB), (true, MIB), (true, 16 << 10)]
    {
        let (folder, server) = file().await;
        let sockets = Sockets::new(&server).await;
        let mut raw = sockets.unix().await;
        raw.greet().await;
        let mut raw = match structured {
            true => raw.with_structured("disk", &[]).await,
            false => raw.with_simple("disk").await,
        };
        let spread = |n: u32| u64::from(n * length % (8 * MIB));
        let many: Vec<u8> =
            (0..32 * MIB / length).flat_map(|n| request(NBD_CMD_READ, spread(n), length).encode()).collect();
        raw.say(&many).await;
        // The first replies are on their way, and the socket is full of them.
        assert_eq!(next(&mut raw, structured, length).await.map(|(well, _)| well), Some(true));
        // To nothing: of a page that stays in part, the kernel zeroes the rest while a read under way copies it.
        truncate(&folder, 0);
        let mut failed = 0;
        for _ in 1..32 * MIB / length {
            // Simple replies have no way to tell of an error once they began: then the connection ends.
            let Some((well, data)) = next(&mut raw, structured, length).await else { break };
            let whole = data.len() == usize::try_from(length).unwrap() && data.iter().all(|byte| *byte == 7);
            assert!(!well || whole, "{length}: {} bytes that are not the file's", data.len());
            failed += u32::from(!well);
        }
        let mut other = entered(sockets.tcp().await, "other").await;
        assert_eq!(other.ask(request(NBD_CMD_READ, 0, 3), &[]).await, Reply::Data(vec![0; 3]));
        let beyond =
            entered(sockets.tcp().await, "disk").await.ask(request(NBD_CMD_READ, 2 << 20, 3), &[]).await;
        assert_eq!(beyond, Reply::Error(NBD_EIO), "after {failed} errors");
        drop(raw);
        sockets.close().await;
    }
}

#[tokio::test]
async fn an_export_that_comes_back_smaller_is_another_one() {
    let (server, device, _) = with_other(ServerConfig::default()).await;
    let mut raw = Raw::simple(&server).await;
    assert_eq!(server.withdraw(&name("disk"), SOON).await.unwrap(), Drained::Graceful);
    raw.stream.read_to_end(&mut Vec::new()).await.unwrap();
    let smaller = device.with_capacity(ByteSize::mib(1));
    let smaller = ExportSpec { fence: Fence(2), ..spec("disk", Access::ReadWrite, Arc::new(smaller)) };
    server.publish(smaller).await.unwrap();
    let mut raw = Raw::simple(&server).await;
    let beyond = raw.ask(request(NBD_CMD_READ, 1 << 20, 1), &[]).await;
    assert_eq!(beyond, Reply::Error(NBD_EINVAL));
    let whole = raw.ask(request(NBD_CMD_READ, 0, MIB), &[]).await;
    assert!(whole == Reply::Data(vec![0; 1 << 20]));
}
