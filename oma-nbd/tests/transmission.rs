//! Requests that are wrong, hostile, many or failing: the connection lives on where it can.
#![cfg(feature = "server")]

mod raw;

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use oma_core::memory::{Faults, FaultyDevice, HeldDevice, Hold, MemoryDevice};
use oma_core::traits::{Access, BlockDevice, Durability, ExportServer};
use oma_core::{ByteSize, ErrorKind, Extent, Result, Retry};
use oma_nbd::protocol::*;
use oma_nbd::{ContextStatus, DirtyBitmap, MetaContext, Server, ServerConfig};
use oma_volume::device::FileDevice;
use raw::{Raw, Reply, Sockets, name, request, spec};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, ReadBuf, duplex};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

const SIZE: ByteSize = ByteSize::mib(1);
const MIB: u32 = 1 << 20;

async fn server() -> (Server, MemoryDevice) {
    let device = MemoryDevice::new("m", SIZE);
    (raw::server(ServerConfig::default(), Arc::new(device.clone())).await, device)
}

/// A server over a device whose calls can be held.
async fn held(config: ServerConfig) -> (Server, MemoryDevice, Hold) {
    let (device, hold) = (MemoryDevice::new("m", ByteSize::mib(64)), Hold::default());
    let slow = HeldDevice::new(Arc::new(device.clone()), hold.clone());
    (raw::server(config, Arc::new(slow)).await, device, hold)
}

fn flagged(flags: u16, request: Request) -> Request {
    Request { flags, ..request }
}

#[tokio::test]
async fn requests_beyond_the_end_are_refused_and_the_connection_lives_on() {
    let (server, _) = server().await;
    for structured in [false, true] {
        let mut raw = match structured {
            true => Raw::structured(&server, &[BASE_ALLOCATION]).await,
            false => Raw::simple(&server).await,
        };
        for (offset, length) in [
            (u64::MAX, 4096),
            (u64::MAX, 1),
            (SIZE.bytes(), 1),
            (SIZE.bytes() - 1, 2),
            (0, u32::MAX),
            (1 << 63, 512),
        ] {
            for (command, error) in [
                (NBD_CMD_READ, NBD_EINVAL),
                (NBD_CMD_TRIM, NBD_EINVAL),
                (NBD_CMD_BLOCK_STATUS, NBD_EINVAL),
                (NBD_CMD_WRITE_ZEROES, NBD_ENOSPC),
            ] {
                let reply = raw.ask(request(command, offset, length), &[]).await;
                assert_eq!(reply, Reply::Error(error), "command {command} at {offset}+{length}");
            }
        }
        let beyond = raw.ask(request(NBD_CMD_WRITE, SIZE.bytes() - 1, 2), b"xy").await;
        assert_eq!(beyond, Reply::Error(NBD_ENOSPC));
        assert_eq!(raw.ask(request(NBD_CMD_READ, SIZE.bytes() - 1, 1), &[]).await, Reply::Data(vec![0]));
    }
}

#[tokio::test]
async fn a_write_larger_than_any_payload_is_disconnected() {
    let (server, device) = server().await;
    for length in [u32::MAX, (64 << 20) + 1] {
        let mut raw = Raw::simple(&server).await;
        raw.send(request(NBD_CMD_WRITE, 0, length), &[]).await;
        assert_eq!(raw.closed().await.unwrap_err().kind(), ErrorKind::Invalid);
    }
    assert_eq!(device.calls().writes, 0);
}

#[tokio::test]
async fn a_payload_of_64_mib_is_taken_and_given_back() {
    let device = MemoryDevice::new("m", ByteSize::mib(64));
    let server = raw::server(ServerConfig::default(), Arc::new(device.clone())).await;
    let mut raw = Raw::structured(&server, &[]).await;
    let data = vec![0x5a; 64 << 20];
    assert_eq!(raw.ask(request(NBD_CMD_WRITE, 0, 64 << 20), &data).await, Reply::Done);
    let read = raw.ask(request(NBD_CMD_READ, 0, 64 << 20), &[]).await;
    assert!(read == Reply::Data(data));
}

#[tokio::test]
async fn unknown_commands_and_flags_are_refused() {
    let (server, _) = server().await;
    let mut raw = Raw::structured(&server, &[]).await;
    for command in [NBD_CMD_RESIZE, 99, u16::MAX] {
        assert_eq!(raw.ask(request(command, 0, 512), &[]).await, Reply::Error(NBD_EINVAL));
    }
    for (flags, command) in [
        (NBD_CMD_FLAG_NO_HOLE, NBD_CMD_READ),
        (NBD_CMD_FLAG_PAYLOAD_LEN, NBD_CMD_WRITE_ZEROES),
        (NBD_CMD_FLAG_DF, NBD_CMD_TRIM),
        (1 << 15, NBD_CMD_FLUSH),
    ] {
        let reply = raw.ask(flagged(flags, request(command, 0, 512)), &[]).await;
        assert_eq!(reply, Reply::Error(NBD_EINVAL), "command {command}");
    }
    let write = flagged(NBD_CMD_FLAG_DF, request(NBD_CMD_WRITE, 0, 3));
    assert_eq!(raw.ask(write, b"abc").await, Reply::Error(NBD_EINVAL));
    let read = raw.ask(flagged(NBD_CMD_FLAG_DF, request(NBD_CMD_READ, 0, 3)), &[]).await;
    assert_eq!(read, Reply::Data(vec![0; 3]), "the payload of a refused write is skipped");
}

#[tokio::test]
async fn requests_of_no_bytes_do_nothing_with_success() {
    let (server, device) = server().await;
    for mut raw in [Raw::simple(&server).await, Raw::structured(&server, &[BASE_ALLOCATION]).await] {
        for command in [NBD_CMD_READ, NBD_CMD_WRITE, NBD_CMD_TRIM, NBD_CMD_WRITE_ZEROES] {
            assert_eq!(raw.ask(request(command, 5, 0), &[]).await, Reply::Done, "command {command}");
        }
        assert_eq!(raw.ask(request(NBD_CMD_BLOCK_STATUS, 5, 0), &[]).await, Reply::Error(NBD_EINVAL));
    }
    let calls = device.calls();
    assert_eq!((calls.reads, calls.writes, calls.trims, calls.zeroes), (0, 0, 0, 0));
}

#[tokio::test]
async fn a_read_only_export_refuses_every_change() {
    let (server, device) = server().await;
    server.publish(spec("locked", Access::ReadOnly, Arc::new(MemoryDevice::new("l", SIZE)))).await.unwrap();
    let mut raw = Raw::greeted(&server).await;
    let flags = raw.go("locked").await;
    assert_eq!(
        flags & (NBD_FLAG_READ_ONLY | NBD_FLAG_SEND_TRIM | NBD_FLAG_SEND_WRITE_ZEROES),
        NBD_FLAG_READ_ONLY
    );
    assert_eq!(raw.ask(request(NBD_CMD_WRITE, 0, 3), b"abc").await, Reply::Error(NBD_EPERM));
    for command in [NBD_CMD_TRIM, NBD_CMD_WRITE_ZEROES] {
        assert_eq!(raw.ask(request(command, 0, 512), &[]).await, Reply::Error(NBD_EPERM));
    }
    assert_eq!(raw.ask(request(NBD_CMD_FLUSH, 0, 0), &[]).await, Reply::Done);
    assert_eq!(raw.ask(request(NBD_CMD_READ, 0, 2), &[]).await, Reply::Data(vec![0; 2]));
    assert_eq!(device.calls().writes, 0);
}

#[tokio::test]
async fn device_errors_are_answered_and_the_connection_lives_on() {
    for (kind, error) in [
        (ErrorKind::NoSpace, NBD_ENOSPC),
        (ErrorKind::Unavailable, NBD_EIO),
        (ErrorKind::Corrupt, NBD_EIO),
        (ErrorKind::PermissionDenied, NBD_EPERM),
        (ErrorKind::Invalid, NBD_EINVAL),
    ] {
        let faults = Faults::new(kind, Retry::Never);
        let device = FaultyDevice::new(Arc::new(MemoryDevice::new("m", SIZE)), faults.clone());
        let server = raw::server(ServerConfig::default(), Arc::new(device)).await;
        let mut raw = Raw::structured(&server, &[BASE_ALLOCATION]).await;
        faults.fail_all();
        assert_eq!(raw.ask(request(NBD_CMD_WRITE, 0, 3), b"abc").await, Reply::Error(error));
        for command in [NBD_CMD_READ, NBD_CMD_TRIM, NBD_CMD_WRITE_ZEROES, NBD_CMD_FLUSH, NBD_CMD_BLOCK_STATUS]
        {
            assert_eq!(raw.ask(request(command, 0, 512), &[]).await, Reply::Error(error), "{kind} {command}");
        }
        faults.clear();
        assert_eq!(raw.ask(request(NBD_CMD_WRITE, 0, 3), b"abc").await, Reply::Done);
        let statistics = server.statistics(&name("disk")).await.unwrap().unwrap();
        assert_eq!((statistics.requests, statistics.errors, statistics.bytes_written), (7, 6, 3));
    }
}

#[tokio::test]
async fn fua_makes_writes_zeroes_and_trims_durable() {
    let (server, device) = server().await;
    let mut raw = Raw::simple(&server).await;
    for (command, data) in [(NBD_CMD_WRITE, &b"abcd"[..]), (NBD_CMD_WRITE_ZEROES, b""), (NBD_CMD_TRIM, b"")] {
        assert_eq!(raw.ask(request(command, 0, 4), data).await, Reply::Done);
        assert!(!device.unflushed().is_empty(), "command {command} without the flag");
        assert_eq!(raw.ask(flagged(NBD_CMD_FLAG_FUA, request(command, 0, 4)), data).await, Reply::Done);
        assert!(device.unflushed().is_empty(), "command {command} with the flag");
    }
}

#[tokio::test]
async fn a_flush_covers_the_writes_of_other_connections() {
    let (server, device) = server().await;
    let (mut one, mut other) = (Raw::simple(&server).await, Raw::greeted(&server).await);
    assert_ne!(other.go("disk").await & NBD_FLAG_CAN_MULTI_CONN, 0);
    one.ask(request(NBD_CMD_WRITE, 0, 3), b"abc").await;
    assert_eq!(other.ask(request(NBD_CMD_FLUSH, 0, 0), &[]).await, Reply::Done);
    assert!(device.unflushed().is_empty());
}

#[tokio::test]
async fn zeroes_keep_their_space_when_asked_to() {
    let (server, device) = server().await;
    let mut raw = Raw::structured(&server, &[BASE_ALLOCATION]).await;
    device.write_at(0, Bytes::from(vec![1; 16384]), Durability::Cached).await.unwrap();
    raw.ask(flagged(NBD_CMD_FLAG_NO_HOLE, request(NBD_CMD_WRITE_ZEROES, 0, 4096)), &[]).await;
    raw.ask(request(NBD_CMD_WRITE_ZEROES, 8192, 4096), &[]).await;
    raw.send(request(NBD_CMD_BLOCK_STATUS, 0, 16384), &[]).await;
    let header = ChunkHeader::decode(&raw.receive().await).unwrap();
    assert_eq!((header.kind, header.flags), (NBD_REPLY_TYPE_BLOCK_STATUS, NBD_REPLY_FLAG_DONE));
    let payload = raw.receive::<{ 4 + 4 * 8 }>().await;
    let expected = [(4096, NBD_STATE_ZERO), (4096, 0), (4096, NBD_STATE_HOLE | NBD_STATE_ZERO), (4096, 0)];
    let descriptors = expected.map(|(length, flags)| Descriptor { length, flags }).to_vec();
    assert_eq!(Chunk::decode(header.kind, &payload), Ok(Chunk::BlockStatus { context: 0, descriptors }));
}

#[tokio::test]
async fn block_status_answers_every_context_and_one_extent_when_asked_to() {
    let device = MemoryDevice::new("m", SIZE);
    let bitmap = DirtyBitmap::new("b0", Arc::new(device));
    let server = Server::new(ServerConfig::default());
    let context: Arc<dyn MetaContext> = bitmap.clone();
    server.publish_with(spec("disk", Access::ReadWrite, bitmap), vec![context]).await.unwrap();
    let mut raw = Raw::structured(&server, &[BASE_ALLOCATION, "qemu:dirty-bitmap:b0"]).await;
    raw.ask(request(NBD_CMD_WRITE, 256 << 10, 4), b"abcd").await;
    let all = raw.ask(request(NBD_CMD_BLOCK_STATUS, 0, MIB), &[]).await;
    assert_eq!(all, Reply::Status(vec![3, 3]));
    let one = raw.ask(flagged(NBD_CMD_FLAG_REQ_ONE, request(NBD_CMD_BLOCK_STATUS, 0, MIB)), &[]).await;
    assert_eq!(one, Reply::Status(vec![1, 1]));
    let mut without = Raw::structured(&server, &[]).await;
    let refused = without.ask(request(NBD_CMD_BLOCK_STATUS, 0, MIB), &[]).await;
    assert_eq!(refused, Reply::Error(NBD_EINVAL));
}

/// A context that breaks its promise to tell something.
#[derive(Debug)]
struct Silent;

#[async_trait::async_trait]
impl MetaContext for Silent {
    fn name(&self) -> &'static str {
        "test:silent"
    }

    fn is_computed(&self) -> bool {
        false
    }

    async fn status(&self, _: Extent) -> Result<Vec<ContextStatus>> {
        Ok(Vec::new())
    }
}

#[tokio::test]
async fn a_context_that_tells_nothing_is_an_error_and_not_a_hang() {
    let server = Server::new(ServerConfig::default());
    let disk = spec("disk", Access::ReadWrite, Arc::new(MemoryDevice::new("m", SIZE)));
    server.publish_with(disk, vec![Arc::new(Silent)]).await.unwrap();
    let mut raw = Raw::structured(&server, &["test:silent"]).await;
    let told = raw.ask(request(NBD_CMD_BLOCK_STATUS, 0, MIB), &[]).await;
    assert_eq!(told, Reply::Error(NBD_EIO));
    assert_eq!(raw.ask(request(NBD_CMD_READ, 0, 1), &[]).await, Reply::Data(vec![0]));
}

#[tokio::test]
async fn block_status_of_a_disk_larger_than_32_bits_tell_stays_within_the_request() {
    let device = MemoryDevice::new("m", ByteSize::gib(16));
    let server = raw::server(ServerConfig::default(), Arc::new(device)).await;
    let mut raw = Raw::structured(&server, &[BASE_ALLOCATION]).await;
    for offset in [0, 1, (4 << 30) - 1, 12 << 30] {
        raw.send(request(NBD_CMD_BLOCK_STATUS, offset, u32::MAX), &[]).await;
        let header = ChunkHeader::decode(&raw.receive().await).unwrap();
        let payload = raw.receive::<12>().await;
        let descriptors = vec![Descriptor { length: u32::MAX, flags: 3 }];
        assert_eq!(Chunk::decode(header.kind, &payload), Ok(Chunk::BlockStatus { context: 0, descriptors }));
    }
}

#[tokio::test]
async fn replies_come_as_they_finish_and_cookies_may_repeat() {
    let (server, _, hold) = held(ServerConfig::default()).await;
    let mut raw = Raw::structured(&server, &[]).await;
    hold.hold();
    for _ in 0..2 {
        raw.send(request(NBD_CMD_WRITE, 0, 4), b"same").await;
    }
    hold.reached(2).await;
    let early = raw.ask(Request { cookie: 9, ..request(99, 0, 0) }, &[]).await;
    assert_eq!(early, Reply::Error(NBD_EINVAL), "it did not wait for the writes before it");
    hold.release();
    for _ in 0..2 {
        assert_eq!(raw.reply(0).await, (7, Reply::Done));
    }
}

#[tokio::test]
async fn other_bytes_in_place_of_a_request_end_the_connection() {
    let (server, device) = server().await;
    let mut raw = Raw::simple(&server).await;
    raw.send(request(NBD_CMD_WRITE, 0, 3), b"abc").await;
    assert_eq!(raw.reply(0).await.1, Reply::Done);
    raw.say(&[0x55; Request::SIZE]).await;
    assert_eq!(raw.closed().await.unwrap_err().kind(), ErrorKind::Invalid);
    assert_eq!(&device.bytes()[..3], b"abc");
}

#[tokio::test]
async fn disconnect_and_half_close_let_requests_in_flight_finish() {
    for half_close in [false, true] {
        let (server, device, hold) = held(ServerConfig::default()).await;
        let mut raw = Raw::simple(&server).await;
        hold.hold();
        raw.send(request(NBD_CMD_WRITE, 0, 3), b"abc").await;
        match half_close {
            true => raw.stream.shutdown().await.unwrap(),
            false => raw.send(request(NBD_CMD_DISC, 0, 0), &[]).await,
        }
        hold.reached(1).await;
        hold.release();
        assert_eq!(raw.reply(0).await, (7, Reply::Done));
        raw.closed().await.unwrap();
        assert_eq!(&device.bytes()[..3], b"abc");
    }
}

#[tokio::test]
async fn a_client_that_vanishes_leaves_no_write_behind_that_lands_later() {
    let (server, device, hold) = held(ServerConfig::default()).await;
    let mut raw = Raw::simple(&server).await;
    hold.hold();
    raw.send(request(NBD_CMD_WRITE, 0, 3), b"abc").await;
    hold.reached(1).await;
    drop(raw.stream);
    tokio::task::yield_now().await;
    let connections = async || server.statistics(&name("disk")).await.unwrap().unwrap().connections;
    assert_eq!(connections().await, 1, "its write is still in the device");
    hold.release();
    let _ = raw.served.await.unwrap();
    assert_eq!((connections().await, &device.bytes()[..3]), (0, &b"abc"[..]));
}

#[tokio::test]
async fn a_reader_that_never_reads_holds_no_more_than_its_room() {
    let config = ServerConfig { max_buffered: ByteSize::mib(2), ..ServerConfig::default() };
    let (server, device, _) = held(config).await;
    let mut raw = Raw::simple(&server).await;
    let many: Vec<u8> = (0..100).flat_map(|_| request(NBD_CMD_READ, 0, MIB).encode()).collect();
    raw.say(&many).await;
    // Another client is served meanwhile; by then the first one's reads are as far as they get.
    let mut other = Raw::simple(&server).await;
    for _ in 0..20 {
        assert_eq!(other.ask(request(NBD_CMD_READ, 0, 1), &[]).await, Reply::Data(vec![0]));
    }
    let read = device.calls().bytes_read;
    assert!(read <= u64::from(4 * MIB), "{read} bytes were read for a client that takes none");
    let mut rest = vec![0; 100 * (usize::try_from(MIB).unwrap() + SimpleReply::SIZE)];
    raw.stream.read_exact(&mut rest).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_client_that_stalls_is_cut_off() {
    let (server, _) = server().await;
    let mut deaf = Raw::simple(&server).await;
    let many: Vec<u8> = (0..4).flat_map(|_| request(NBD_CMD_READ, 0, MIB).encode()).collect();
    deaf.say(&many).await;
    let mut half = Raw::simple(&server).await;
    half.say(&request(NBD_CMD_WRITE, 0, 100).encode()).await;
    half.say(b"only some").await;
    let mut drip = Raw::simple(&server).await;
    drip.say(&request(NBD_CMD_WRITE, 0, 100).encode()).await;
    let (mut dripping, served) = (drip.stream, drip.served);
    let drip = tokio::spawn(async move {
        while dripping.write_all(b"x").await.is_ok() {
            sleep(Duration::from_secs(10)).await;
        }
    });
    let idle = Raw::simple(&server).await;
    for stalled in [deaf.served, half.served, served] {
        let error = stalled.await.unwrap().unwrap_err();
        assert!(error.chain().contains("for too long"), "{}", error.chain());
    }
    drip.await.unwrap();
    assert!(!idle.served.is_finished(), "an idle client owes nothing");
}

#[tokio::test]
async fn no_more_requests_are_in_flight_than_allowed() {
    let config = ServerConfig { max_requests: 3, ..ServerConfig::default() };
    let (server, device, hold) = held(config).await;
    let mut raw = Raw::simple(&server).await;
    hold.hold();
    for _ in 0..10 {
        raw.send(request(NBD_CMD_WRITE, 0, 1), b"x").await;
    }
    hold.reached(3).await;
    let mut other = Raw::simple(&server).await;
    assert_eq!(other.ask(request(99, 0, 0), &[]).await, Reply::Error(NBD_EINVAL));
    assert_eq!((hold.waiting(), device.calls().writes), (3, 0));
    hold.release();
    for _ in 0..10 {
        assert_eq!(raw.reply(0).await.1, Reply::Done);
    }
}

#[tokio::test]
async fn a_long_read_of_a_file_is_right_however_it_is_sent() {
    // Far enough for a client that is waited for: parts are sent straight from the file, then copied, then by the better way.
    const PIECES: u32 = 100;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("disk");
    let content = |piece: u32| (0..MIB / 4).flat_map(|word| (piece << 18 | word).to_be_bytes()).collect();
    let whole: Vec<Vec<u8>> = (0..PIECES).map(content).collect();
    std::fs::write(&path, whole.concat()).unwrap();
    let device = FileDevice::open(&path, Access::ReadWrite).await.unwrap();
    let server = raw::server(ServerConfig::default(), Arc::new(device)).await;
    let sockets = Sockets::new(&server).await;
    let mut raw = sockets.unix().await;
    raw.greet().await;
    let mut raw = raw.with_structured("disk", &[]).await;
    for batch in 0..PIECES / 4 {
        for piece in batch * 4..batch * 4 + 4 {
            let read = Request {
                cookie: piece.into(),
                ..request(NBD_CMD_READ, u64::from(piece) * u64::from(MIB), MIB)
            };
            raw.send(read, &[]).await;
        }
        for _ in 0..4 {
            let (cookie, reply) = raw.reply(MIB).await;
            let piece = usize::try_from(cookie).unwrap();
            assert!(reply == Reply::Data(whole[piece].clone()), "piece {piece} is another");
        }
    }
}

/// A stream that gives little at once, however much there is.
struct Pieces(DuplexStream);

const PIECE: usize = 512;

impl AsyncRead for Pieces {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut piece = [0; PIECE];
        let mut part = ReadBuf::new(&mut piece[..PIECE.min(buffer.remaining())]);
        ready!(Pin::new(&mut self.0).poll_read(cx, &mut part))?;
        buffer.put_slice(part.filled());
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Pieces {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

/// A call that is begun in the first round of a turn is known to nobody who could wake its connection.
#[tokio::test]
async fn a_slow_write_is_answered_in_however_many_parts_its_data_came() {
    let (server, _, hold) = held(ServerConfig::default()).await;
    for parts in 9..64 {
        let (stream, other) = duplex(1 << 20);
        let server = server.clone();
        let served =
            tokio::spawn(async move { server.serve_stream(Pieces(other), CancellationToken::new()).await });
        let mut raw = Raw { stream, served };
        raw.greet().await;
        let mut raw = raw.with_simple("disk").await;
        let data = vec![1; PIECE * parts];
        hold.hold();
        raw.send(request(NBD_CMD_WRITE, 0, data.len().try_into().unwrap()), &data).await;
        hold.reached(1).await;
        hold.release();
        assert_eq!(raw.reply(0).await, (7, Reply::Done), "{parts} parts");
    }
}
