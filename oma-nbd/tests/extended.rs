//! Extended headers on the server's side, and what is told and done with 64 bits of length.
#![cfg(feature = "server")]
#![allow(clippy::unwrap_used, reason = "a test panics when its setup fails")]

mod raw;

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use oma_core::memory::{DeviceCall, Faults, FaultyDevice, HeldDevice, Hold, MemoryDevice};
use oma_core::traits::{Access, BlockDevice, Drained, Durability, ExportServer};
use oma_core::{ByteSize, ErrorKind, Extent, Retry};
use oma_nbd::protocol::*;
use oma_nbd::{DirtyBitmap, MarkedExtents, MetaContext, Server, ServerConfig};
use raw::{Raw, Reply, SOON, name, request, spec};

/// Far more than 32 bits tell.
const SIZE: ByteSize = ByteSize::gib(16 << 10);
const GIB: u64 = 1 << 30;

async fn server() -> (Server, MemoryDevice) {
    let device = MemoryDevice::new("m", SIZE);
    (raw::server(ServerConfig::default(), Arc::new(device.clone())).await, device)
}

async fn extended(server: &Server, contexts: &[&str]) -> Raw {
    Raw::greeted(server).await.with_extended("disk", contexts).await.0
}

fn wide(command: u16, offset: u64, length: u64) -> ExtendedRequest {
    ExtendedRequest { flags: 0, command, cookie: 11, offset, length }
}

fn flagged(flags: u16, request: ExtendedRequest) -> ExtendedRequest {
    ExtendedRequest { flags, ..request }
}

fn with_payload(command: u16, offset: u64, payload: &[u8]) -> ExtendedRequest {
    flagged(NBD_CMD_FLAG_PAYLOAD_LEN, wide(command, offset, payload.len().try_into().unwrap()))
}

/// The only chunk of a reply that is done.
fn done() -> Vec<(u16, Vec<u8>)> {
    vec![(NBD_REPLY_TYPE_NONE, vec![])]
}

/// The error of a reply.
fn error(chunks: &[(u16, Vec<u8>)]) -> Option<u32> {
    match chunks {
        [(NBD_REPLY_TYPE_ERROR, payload)] => match Chunk::decode(NBD_REPLY_TYPE_ERROR, payload).unwrap() {
            Chunk::Error { error, .. } => Some(error),
            other => panic!("{other:?} is no error"),
        },
        _ => None,
    }
}

/// Context, length and flags of each extent of a status reply.
fn told(chunks: &[(u16, Vec<u8>)]) -> Vec<(u32, Vec<(u64, u64)>)> {
    let one = |(kind, payload): &(u16, Vec<u8>)| match Chunk::decode(*kind, payload).unwrap() {
        Chunk::BlockStatusExt { context, descriptors } => {
            (context, descriptors.iter().map(|found| (found.length, found.flags)).collect())
        }
        other => panic!("{other:?} is no status"),
    };
    chunks.iter().map(one).collect()
}

#[tokio::test]
async fn extended_headers_are_agreed_and_stay() {
    let (server, _) = server().await;
    let mut raw = Raw::greeted(&server).await;
    let refused = raw.option(NBD_OPT_EXTENDED_HEADERS, b"with a payload").await;
    assert_eq!(refused[0].0, NBD_REP_ERR_INVALID);
    assert_eq!(raw.option(NBD_OPT_STRUCTURED_REPLY, &[]).await[0].0, NBD_REP_ACK);
    assert_eq!(raw.option(NBD_OPT_EXTENDED_HEADERS, &[]).await[0].0, NBD_REP_ACK);
    assert_eq!(raw.option(NBD_OPT_STRUCTURED_REPLY, &[]).await[0].0, NBD_REP_ERR_EXT_HEADER_REQD);
    raw.go("disk").await;
    assert_eq!(raw.ask_extended(wide(NBD_CMD_FLUSH, 0, 0), &[]).await, done());
}

#[tokio::test]
async fn export_name_after_extended_headers_is_disconnected() {
    let (server, _) = server().await;
    let mut raw = Raw::greeted(&server).await;
    raw.option(NBD_OPT_EXTENDED_HEADERS, &[]).await;
    raw.say(&OptionHeader { option: NBD_OPT_EXPORT_NAME, length: 4 }.encode()).await;
    raw.say(b"disk").await;
    assert_eq!(raw.closed().await.unwrap_err().kind(), ErrorKind::Invalid);
}

#[tokio::test]
async fn flags_tell_what_the_device_can() {
    const SHOWN: u16 = NBD_FLAG_ROTATIONAL
        | NBD_FLAG_SEND_CACHE
        | NBD_FLAG_SEND_FAST_ZERO
        | NBD_FLAG_SEND_DF
        | NBD_FLAG_BLOCK_STAT_PAYLOAD
        | NBD_FLAG_SEND_RESIZE;
    let (server, device) = server().await;
    let plain = device.with_info(|info| (info.can_cache, info.can_zero_fast) = (false, false));
    let disk = device.with_info(|info| info.is_rotational = true);
    for (name, access, device) in [
        ("plain", Access::ReadWrite, plain),
        ("spins", Access::ReadWrite, disk),
        ("locked", Access::ReadOnly, device),
    ] {
        let device = device.with_info(|info| info.identity.0 = name.to_owned());
        server.publish(spec(name, access, Arc::new(device))).await.unwrap();
    }
    let hints = NBD_FLAG_SEND_CACHE | NBD_FLAG_SEND_FAST_ZERO;
    for (name, expected) in [
        ("disk", hints),
        ("plain", 0),
        ("spins", hints | NBD_FLAG_ROTATIONAL),
        ("locked", NBD_FLAG_SEND_CACHE),
    ] {
        let flags = Raw::greeted(&server).await.go(name).await;
        assert_eq!(flags & SHOWN, expected, "{name}");
        let (_, flags) = Raw::greeted(&server).await.with_extended(name, &[]).await;
        assert_eq!(flags & SHOWN, expected | NBD_FLAG_SEND_DF, "{name}");
        let (_, flags) = Raw::greeted(&server).await.with_extended(name, &[BASE_ALLOCATION]).await;
        assert_eq!(flags & SHOWN, expected | NBD_FLAG_SEND_DF | NBD_FLAG_BLOCK_STAT_PAYLOAD, "{name}");
    }
}

#[tokio::test]
async fn every_command_is_answered_with_extended_headers() {
    let (server, device) = server().await;
    let mut raw = extended(&server, &[]).await;
    let offset = SIZE.bytes() - 4096;
    let write = raw.ask_extended(with_payload(NBD_CMD_WRITE, offset, b"abcd"), b"abcd").await;
    assert_eq!(write, done());
    let read = raw.ask_extended(wide(NBD_CMD_READ, offset + 1, 2), &[]).await;
    let mut expected = (offset + 1).to_be_bytes().to_vec();
    expected.extend(b"bc");
    assert_eq!(read, [(NBD_REPLY_TYPE_OFFSET_DATA, expected)]);
    for command in [NBD_CMD_TRIM, NBD_CMD_WRITE_ZEROES, NBD_CMD_CACHE, NBD_CMD_FLUSH] {
        assert_eq!(raw.ask_extended(wide(command, 0, 0), &[]).await, done(), "{command}");
        let length = if command == NBD_CMD_FLUSH { 0 } else { 512 };
        assert_eq!(raw.ask_extended(wide(command, 0, length), &[]).await, done(), "{command}");
    }
    let calls = device.calls();
    assert_eq!((calls.trims, calls.zeroes, calls.caches, calls.flushes), (1, 1, 1, 2));
    for command in [NBD_CMD_RESIZE, NBD_CMD_BLOCK_STATUS, 99] {
        let refused = raw.ask_extended(wide(command, 0, 512), &[]).await;
        assert_eq!(error(&refused), Some(NBD_EINVAL), "{command}");
    }
    raw.say(&wide(NBD_CMD_DISC, 0, 0).encode()).await;
    raw.closed().await.unwrap();
}

#[tokio::test]
async fn payloads_where_none_belongs_are_skipped_and_refused() {
    let (server, device) = server().await;
    let mut raw = extended(&server, &[]).await;
    let long = vec![0x21; 100_000];
    for payload in [&b"x"[..], &long] {
        for command in
            (0..12).chain([u16::MAX]).filter(|command| ![NBD_CMD_WRITE, NBD_CMD_DISC].contains(command))
        {
            let refused = raw.ask_extended(with_payload(command, 0, payload), payload).await;
            assert_eq!(error(&refused), Some(NBD_EINVAL), "{command}");
        }
    }
    assert_eq!(raw.ask_extended(wide(NBD_CMD_FLUSH, 0, 0), &[]).await, done());
    assert_eq!((device.calls().writes, device.calls().reads), (0, 0));
}

/// QEMU leaves out the flag, and so did its server's check.
#[tokio::test]
async fn a_write_without_the_flag_of_its_payload_is_taken_with_it() {
    let (server, device) = server().await;
    let mut raw = extended(&server, &[]).await;
    for length in [4, 100_000] {
        let data = vec![0x77; length];
        let write = wide(NBD_CMD_WRITE, 0, length.try_into().unwrap());
        assert_eq!(raw.ask_extended(write, &data).await, done());
        assert_eq!(device.read_at(0, BytesMut::zeroed(length)).await.unwrap(), data);
    }
    raw.say(&wide(NBD_CMD_WRITE, 0, (64 << 20) + 1).encode()).await;
    assert_eq!(raw.closed().await.unwrap_err().kind(), ErrorKind::Invalid);
}

#[tokio::test]
async fn payloads_longer_than_any_are_disconnected() {
    let (server, device) = server().await;
    for length in [(64 << 20) + 1, u64::from(u32::MAX), 1 << 32, u64::MAX] {
        for command in [NBD_CMD_WRITE, NBD_CMD_READ, NBD_CMD_BLOCK_STATUS, 99] {
            let mut raw = extended(&server, &[BASE_ALLOCATION]).await;
            raw.say(&flagged(NBD_CMD_FLAG_PAYLOAD_LEN, wide(command, 0, length)).encode()).await;
            assert_eq!(raw.closed().await.unwrap_err().kind(), ErrorKind::Invalid);
        }
    }
    assert_eq!(device.calls().writes, 0);
}

#[tokio::test]
async fn a_whole_disk_is_zeroed_trimmed_cached_and_told_of_in_one_request_each() {
    let (server, device) = server().await;
    let mut raw = extended(&server, &[BASE_ALLOCATION]).await;
    let all = SIZE.bytes();
    device.write_at(all / 2, Bytes::from(vec![1; 4096]), Durability::Cached).await.unwrap();
    let status = raw.ask_extended(wide(NBD_CMD_BLOCK_STATUS, 0, all), &[]).await;
    assert_eq!(told(&status), [(0, vec![(all / 2, 3), (4096, 0), (all / 2 - 4096, 3)])]);
    for flags in [0, NBD_CMD_FLAG_FAST_ZERO, NBD_CMD_FLAG_FUA] {
        let zeroes = flagged(flags, wide(NBD_CMD_WRITE_ZEROES, 0, all));
        assert_eq!(raw.ask_extended(zeroes, &[]).await, done());
    }
    assert_eq!(raw.ask_extended(wide(NBD_CMD_TRIM, 0, all), &[]).await, done());
    assert_eq!(raw.ask_extended(wide(NBD_CMD_CACHE, 0, all), &[]).await, done());
    let calls = device.calls();
    assert_eq!((calls.zeroes, calls.fast_zeroes, calls.trims, calls.caches), (3, 3, 1, 1));
    let status = raw.ask_extended(wide(NBD_CMD_BLOCK_STATUS, 0, all), &[]).await;
    assert_eq!(told(&status), [(0, vec![(all, 3)])]);
    for length in [all + 1, 1 << 63, u64::MAX] {
        for command in [NBD_CMD_TRIM, NBD_CMD_CACHE, NBD_CMD_BLOCK_STATUS, NBD_CMD_READ] {
            let beyond = raw.ask_extended(wide(command, 1, length), &[]).await;
            assert_eq!(error(&beyond), Some(NBD_EINVAL), "{command} {length}");
        }
        let beyond = raw.ask_extended(wide(NBD_CMD_WRITE_ZEROES, 1, length), &[]).await;
        assert_eq!(error(&beyond), Some(NBD_ENOSPC), "{length}");
    }
}

#[tokio::test]
async fn zeroes_that_are_not_fast_are_told_apart_and_far_ones_are_written_in_steps() {
    let memory = MemoryDevice::new("m", SIZE);
    let faults = Faults::new(ErrorKind::Unsupported, Retry::Never);
    let device = FaultyDevice::new(Arc::new(memory.clone()), faults.clone());
    let server = raw::server(ServerConfig::default(), Arc::new(device)).await;
    let mut raw = extended(&server, &[]).await;
    faults.fail_nth(DeviceCall::Zero, 1);
    let fast = flagged(NBD_CMD_FLAG_FAST_ZERO, wide(NBD_CMD_WRITE_ZEROES, 0, 4 * GIB));
    assert_eq!(error(&raw.ask_extended(fast, &[]).await), Some(NBD_ENOTSUP));
    assert_eq!(memory.calls().zeroes, 0);
    faults.fail_nth(DeviceCall::Zero, 1);
    assert_eq!(raw.ask_extended(wide(NBD_CMD_WRITE_ZEROES, 4096, 4 * GIB), &[]).await, done());
    assert_eq!((memory.calls().zeroes, memory.calls().bytes_zeroed), (5, 4 * GIB));
    let slow = memory.with_info(|info| (info.can_cache, info.can_zero_fast) = (false, false));
    let server = raw::server(ServerConfig::default(), Arc::new(slow)).await;
    for mut raw in [Raw::simple(&server).await, Raw::structured(&server, &[]).await] {
        let fast = Request { flags: NBD_CMD_FLAG_FAST_ZERO, ..request(NBD_CMD_WRITE_ZEROES, 0, 512) };
        for not_offered in [fast, request(NBD_CMD_CACHE, 0, 512)] {
            assert_eq!(raw.ask(not_offered, &[]).await, Reply::Error(NBD_EINVAL));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn l23_zeroing_a_disk_piece_by_piece_ends_with_the_piece_when_its_export_is_cut() {
    let memory = MemoryDevice::new("m", SIZE).with_info(|info| info.can_zero_fast = false);
    let hold = Hold::default();
    let held = HeldDevice::new(Arc::new(memory.clone()), hold.clone());
    let server = raw::server(ServerConfig::default(), Arc::new(held)).await;
    let mut raw = extended(&server, &[]).await;
    hold.hold();
    raw.say(&wide(NBD_CMD_WRITE_ZEROES, 0, 1000 * GIB).encode()).await;
    hold.reached(1).await;
    let busy = server.withdraw(&name("disk"), Duration::ZERO).await.unwrap_err();
    assert_eq!(busy.kind(), ErrorKind::Busy);
    hold.release();
    assert_eq!(server.withdraw(&name("disk"), SOON).await.unwrap(), Drained::Graceful);
    assert_eq!(memory.calls().zeroes, 1);
}

#[tokio::test]
async fn block_status_is_told_of_the_contexts_that_are_named() {
    let bitmap = DirtyBitmap::of_epoch(Arc::new(MemoryDevice::new("m", SIZE)));
    let epoch = MarkedExtents::epoch();
    epoch.mark(Extent::new(5 * GIB, GIB).unwrap());
    let server = Server::new(ServerConfig::default());
    let contexts: Vec<Arc<dyn MetaContext>> = vec![bitmap.clone(), epoch];
    server.publish_with(spec("disk", Access::ReadWrite, bitmap), contexts).await.unwrap();
    let mut raw = extended(&server, &[BASE_ALLOCATION, OMA_DIRTY, OMA_EPOCH]).await;
    let ask = |length: u64, ids: &[u32]| {
        let mut payload = Vec::new();
        StatusPayload { length, contexts: ids.to_vec() }.encode(&mut payload);
        payload
    };
    let all = ask(8 * GIB, &[2, 0, 1]);
    let status = raw.ask_extended(with_payload(NBD_CMD_BLOCK_STATUS, 0, &all), &all).await;
    assert_eq!(told(&status).iter().map(|(context, _)| *context).collect::<Vec<_>>(), [0, 1, 2]);
    let one = ask(8 * GIB, &[2]);
    let status = raw.ask_extended(with_payload(NBD_CMD_BLOCK_STATUS, 0, &one), &one).await;
    assert_eq!(told(&status), [(2, vec![(5 * GIB, 0), (GIB, 1), (2 * GIB, 0)])]);
    let first = flagged(
        NBD_CMD_FLAG_PAYLOAD_LEN | NBD_CMD_FLAG_REQ_ONE,
        with_payload(NBD_CMD_BLOCK_STATUS, 5 * GIB + 512, &one),
    );
    assert_eq!(told(&raw.ask_extended(first, &one).await), [(2, vec![(GIB - 512, 1)])]);
    let short = one[..11].to_vec();
    let long = ask(512, &vec![0; 20_000]);
    for bad in
        [ask(512, &[3]), ask(512, &[0, 0]), ask(512, &[]), ask(0, &[0]), ask(u64::MAX, &[0]), short, long]
    {
        let refused = raw.ask_extended(with_payload(NBD_CMD_BLOCK_STATUS, 0, &bad), &bad).await;
        assert_eq!(error(&refused), Some(NBD_EINVAL), "{} bytes", bad.len());
    }
    let whole = raw.ask_extended(wide(NBD_CMD_BLOCK_STATUS, 0, SIZE.bytes()), &[]).await;
    assert_eq!(told(&whole).len(), 3);
}

#[tokio::test]
async fn reads_too_long_for_one_reply_overflow() {
    let (server, device) = server().await;
    let mut raw = extended(&server, &[]).await;
    for length in [(64 << 20) + 1, 1 << 32, SIZE.bytes()] {
        let refused = raw.ask_extended(wide(NBD_CMD_READ, 0, length), &[]).await;
        assert_eq!(error(&refused), Some(NBD_EOVERFLOW), "{length}");
    }
    let mut raw = Raw::structured(&server, &[]).await;
    let long = request(NBD_CMD_READ, 0, (64 << 20) + 1);
    assert_eq!(raw.ask(long, &[]).await, Reply::Error(NBD_EINVAL));
    let whole = Request { flags: NBD_CMD_FLAG_DF, ..long };
    assert_eq!(raw.ask(whole, &[]).await, Reply::Error(NBD_EOVERFLOW));
    assert_eq!(device.calls().reads, 0);
}

#[tokio::test]
async fn data_that_is_zero_is_told_as_a_hole() {
    let (server, device) = server().await;
    device.write_at((1 << 20) - 1, Bytes::from_static(b"x"), Durability::Cached).await.unwrap();
    let mut raw = extended(&server, &[]).await;
    for (offset, kind) in [(1 << 20, NBD_REPLY_TYPE_OFFSET_HOLE), (65536, NBD_REPLY_TYPE_OFFSET_DATA)] {
        for flags in [0, NBD_CMD_FLAG_DF] {
            let read = raw.ask_extended(flagged(flags, wide(NBD_CMD_READ, offset, 983_040)), &[]).await;
            assert_eq!(read.iter().map(|(kind, _)| *kind).collect::<Vec<_>>(), [kind], "{offset}");
        }
    }
}

/// Length of each extent that is told with compact headers.
async fn compact(raw: &mut Raw, offset: u64, length: u32) -> Vec<u64> {
    raw.send(request(NBD_CMD_BLOCK_STATUS, offset, length), &[]).await;
    let header = ChunkHeader::decode(&raw.receive().await).unwrap();
    assert_eq!(header.kind, NBD_REPLY_TYPE_BLOCK_STATUS, "{offset} {length}");
    let mut payload = vec![0; header.length.try_into().unwrap()];
    tokio::io::AsyncReadExt::read_exact(&mut raw.stream, &mut payload).await.unwrap();
    match Chunk::decode(header.kind, &payload).unwrap() {
        Chunk::BlockStatus { descriptors, .. } => {
            descriptors.iter().map(|found| found.length.into()).collect()
        }
        other => panic!("{other:?} is no status"),
    }
}

#[tokio::test]
async fn cve_2025_47711_extents_that_end_at_32_bits_are_told_whole() {
    let (server, device) = server().await;
    let boundary = 1u64 << 32;
    for at in [boundary - 4096, boundary, 2 * boundary - 4096] {
        device.write_at(at, Bytes::from(vec![1; 4096]), Durability::Cached).await.unwrap();
    }
    let mut raw = Raw::structured(&server, &[BASE_ALLOCATION]).await;
    for offset in [0, 1, 4095, 4096, boundary - 4097, boundary - 4096, boundary - 1, boundary, boundary + 1] {
        for length in [u32::MAX, u32::MAX - 1, u32::MAX - 4095, 1 << 31, 1] {
            let found = compact(&mut raw, offset, length).await;
            assert_eq!(found.iter().sum::<u64>(), u64::from(length), "{offset} {length}: {found:?}");
            assert!(found.iter().all(|length| *length > 0));
        }
    }
    let mut raw = extended(&server, &[BASE_ALLOCATION]).await;
    for length in [boundary - 1, boundary, boundary + 1] {
        let status = raw.ask_extended(wide(NBD_CMD_BLOCK_STATUS, boundary + 4096, length), &[]).await;
        assert_eq!(told(&status)[0].1.iter().map(|(length, _)| length).sum::<u64>(), length);
    }
}

#[tokio::test]
async fn cve_2025_47712_the_longest_status_is_answered_at_every_offset() {
    let (server, _) = server().await;
    let size = SIZE.bytes();
    let mut raw = Raw::structured(&server, &[BASE_ALLOCATION]).await;
    for offset in (0..520).chain([size - (1 << 32), size - u64::from(u32::MAX)]) {
        let found = compact(&mut raw, offset, u32::MAX).await;
        assert_eq!(found, [u64::from(u32::MAX)], "{offset}");
    }
    for offset in [size - u64::from(u32::MAX) + 1, size, u64::MAX - u64::from(u32::MAX), u64::MAX] {
        let refused = raw.ask(request(NBD_CMD_BLOCK_STATUS, offset, u32::MAX), &[]).await;
        assert_eq!(refused, Reply::Error(NBD_EINVAL), "{offset}");
    }
    let mut raw = extended(&server, &[BASE_ALLOCATION]).await;
    for offset in (0..520).chain([size - 1, size, u64::MAX]) {
        for length in [u64::MAX, u64::MAX - offset, 1 << 63] {
            let refused = raw.ask_extended(wide(NBD_CMD_BLOCK_STATUS, offset, length), &[]).await;
            assert_eq!(error(&refused), Some(NBD_EINVAL), "{offset} {length}");
        }
    }
}
