//! Attacks on the transmission phase.

use std::sync::Arc;

use bytes::Bytes;
use oma_core::memory::{HeldDevice, Hold, MemoryDevice};
use oma_core::traits::{BlockDevice, Durability};
use oma_core::{ByteSize, ErrorKind};
use oma_nbd::ServerConfig;
use oma_nbd::protocol::*;
use tokio::io::AsyncWriteExt;

use crate::raw::{self, Raw, Reply, Sockets, request};
use crate::{Dice, MIB, SIZE, is_well, server, server_with};

#[tokio::test]
async fn cve_2005_3534_and_cve_2011_0530_lengths_beyond_every_buffer() {
    let config =
        ServerConfig { max_payload: 1 << 20, advertised_payload: 1 << 20, ..ServerConfig::default() };
    let device = MemoryDevice::new("m", ByteSize::gib(8));
    let server = raw::server(config, Arc::new(device.clone())).await;
    for length in [MIB + 1, 2 * MIB, 1 << 31, u32::MAX - 27, u32::MAX] {
        for structured in [false, true] {
            let connect = async || match structured {
                true => Raw::structured(&server, &[]).await,
                false => Raw::simple(&server).await,
            };
            let mut raw = connect().await;
            let refused = raw.ask(request(NBD_CMD_READ, 0, length), &[]).await;
            assert!(matches!(refused, Reply::Error(NBD_EINVAL | NBD_EOVERFLOW)), "{length}: {refused:?}");
            assert_eq!(raw.ask(request(NBD_CMD_READ, 0, 2), &[]).await, Reply::Data(vec![0; 2]));
            let mut raw = connect().await;
            raw.send(request(NBD_CMD_WRITE, 0, length), &[1; 4096]).await;
            assert_eq!(raw.closed().await.unwrap_err().kind(), ErrorKind::Invalid, "{length}");
        }
    }
    assert_eq!((device.calls().writes, device.calls().bytes_read), (0, 20));
    is_well(&server).await;
}

#[tokio::test]
async fn tokio_nbd_offsets_that_wrap_reach_no_device() {
    let device = MemoryDevice::new("m", SIZE);
    let server = raw::server(ServerConfig::default(), Arc::new(device.clone())).await;
    let mut raw = Raw::structured(&server, &[BASE_ALLOCATION]).await;
    for (offset, length) in
        [(u64::MAX, 4096), (u64::MAX - 4095, 4096), (u64::MAX - 4094, 4096), (1 << 63, 4096), (u64::MAX, 0)]
    {
        for command in [NBD_CMD_READ, NBD_CMD_TRIM, NBD_CMD_WRITE_ZEROES, NBD_CMD_BLOCK_STATUS] {
            let reply = raw.ask(request(command, offset, length), &[]).await;
            assert!(matches!(reply, Reply::Error(_)), "command {command} at {offset}+{length}: {reply:?}");
        }
        let data = vec![7; length.try_into().unwrap()];
        let reply = raw.ask(request(NBD_CMD_WRITE, offset, length), &data).await;
        assert_eq!(reply, Reply::Error(NBD_ENOSPC), "{offset}+{length}");
    }
    let calls = device.calls();
    assert_eq!((calls.reads, calls.writes, calls.trims, calls.zeroes, calls.statuses), (0, 0, 0, 0, 0));
    assert!(device.bytes().iter().all(|byte| *byte == 0));
}

/// Asks for block status; the descriptors of the one chunk.
async fn status(raw: &mut Raw, offset: u64, length: u32) -> Vec<Descriptor> {
    raw.send(request(NBD_CMD_BLOCK_STATUS, offset, length), &[]).await;
    let header = ChunkHeader::decode(&raw.receive().await).unwrap();
    assert_eq!((header.kind, header.flags), (NBD_REPLY_TYPE_BLOCK_STATUS, NBD_REPLY_FLAG_DONE));
    let mut payload = vec![0; header.length.try_into().unwrap()];
    tokio::io::AsyncReadExt::read_exact(&mut raw.stream, &mut payload).await.unwrap();
    match Chunk::decode(header.kind, &payload).unwrap() {
        Chunk::BlockStatus { descriptors, .. } => descriptors,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn cve_2025_47711_extents_that_end_at_4_gib_are_told_whole() {
    const EDGE: u64 = 1 << 32;
    let device = MemoryDevice::new("m", ByteSize::gib(16));
    // A hole that ends at 2^32 exactly, data, and holes longer than 32 bits tell.
    device.write_at(EDGE, Bytes::from(vec![1; 4096]), Durability::Cached).await.unwrap();
    let server = raw::server(ServerConfig::default(), Arc::new(device)).await;
    let mut raw = Raw::structured(&server, &[BASE_ALLOCATION]).await;
    for (offset, length, expected) in [
        (0, u32::MAX, vec![(u32::MAX, 3)]),
        (512, u32::MAX - 511, vec![(u32::MAX - 511, 3)]),
        (512, u32::MAX, vec![(u32::MAX - 511, 3), (511, 0)]),
        (EDGE - 4096, 8192, vec![(4096, 3), (4096, 0)]),
        (EDGE, u32::MAX, vec![(4096, 0), (u32::MAX - 4096, 3)]),
        (EDGE + 4096, u32::MAX, vec![(u32::MAX, 3)]),
    ] {
        let told: Vec<_> =
            status(&mut raw, offset, length).await.iter().map(|d| (d.length, d.flags)).collect();
        assert_eq!(told, expected, "{offset}+{length}");
    }
}

#[tokio::test]
async fn cve_2025_47712_block_status_of_the_greatest_length_at_every_offset() {
    let device = MemoryDevice::new("m", ByteSize::gib(12));
    let mut dice = Dice(47712);
    for _ in 0..50 {
        let at = dice.roll() % (12 << 30) / 4096 * 4096;
        device.write_at(at, Bytes::from_static(&[1; 4096]), Durability::Cached).await.unwrap();
    }
    let server = raw::server(ServerConfig::default(), Arc::new(device)).await;
    let mut raw = Raw::structured(&server, &[BASE_ALLOCATION]).await;
    let around = |edge: u64| [edge - 513, edge - 512, edge - 1, edge, edge + 1, edge + 511, edge + 512];
    let offsets: Vec<_> = [4096, 1 << 31, 1 << 32, 3 << 31].into_iter().flat_map(around).collect();
    for offset in offsets {
        for length in [u32::MAX, u32::MAX - 1, u32::MAX - 511] {
            let told = status(&mut raw, offset, length).await;
            assert!(told.iter().all(|descriptor| descriptor.length > 0), "{offset}+{length}");
            let whole: u64 = told.iter().map(|descriptor| u64::from(descriptor.length)).sum();
            let before = whole - u64::from(told.last().unwrap().length);
            assert!(before < length.into() && offset + whole <= 12 << 30, "{offset}+{length}: {told:?}");
        }
    }
}

#[tokio::test]
async fn a_disk_of_nearly_2_to_the_63_bytes_is_trimmed_at_both_ends() {
    const LARGEST: u64 = (1 << 63) - 4096;
    let device = MemoryDevice::new("m", ByteSize::new(LARGEST));
    let server = raw::server(ServerConfig::default(), Arc::new(device)).await;
    let mut raw = Raw::structured(&server, &[BASE_ALLOCATION]).await;
    assert_eq!(raw.ask(request(NBD_CMD_WRITE, LARGEST - 3, 3), b"abc").await, Reply::Done);
    let long = u32::MAX - 4095;
    for offset in [0, LARGEST / 2, LARGEST - u64::from(long)] {
        for command in [NBD_CMD_TRIM, NBD_CMD_WRITE_ZEROES] {
            assert_eq!(raw.ask(request(command, offset, 0), &[]).await, Reply::Done);
            assert_eq!(raw.ask(request(command, offset, long), &[]).await, Reply::Done);
        }
    }
    assert_eq!(raw.ask(request(NBD_CMD_READ, LARGEST - 3, 3), &[]).await, Reply::Data(vec![0; 3]));
    let beyond = raw.ask(request(NBD_CMD_TRIM, LARGEST - 4096, long), &[]).await;
    assert_eq!(beyond, Reply::Error(NBD_EINVAL));
}

#[tokio::test]
async fn other_bytes_behind_requests_in_flight_end_the_connection_after_those() {
    let (device, hold) = (MemoryDevice::new("m", SIZE), Hold::default());
    let slow = HeldDevice::new(Arc::new(device.clone()), hold.clone());
    let server = raw::server(ServerConfig::default(), Arc::new(slow)).await;
    let mut raw = Raw::simple(&server).await;
    hold.hold();
    for place in 0..3 {
        raw.send(request(NBD_CMD_WRITE, place * 3, 3), b"abc").await;
    }
    raw.say(&[0x25; Request::SIZE]).await;
    raw.send(request(NBD_CMD_WRITE, 9, 3), b"xyz").await;
    hold.reached(3).await;
    hold.release();
    assert_eq!(raw.closed().await.unwrap_err().kind(), ErrorKind::Invalid);
    assert_eq!(&device.bytes()[..12], b"abcabcabc\0\0\0");
    is_well(&server).await;
}

#[tokio::test]
async fn disconnect_and_half_close_lose_no_reply_on_sockets() {
    let server = server().await;
    let sockets = Sockets::new(&server).await;
    let many: Vec<u8> = (0..64).flat_map(|_| request(NBD_CMD_READ, 0, 256 << 10).encode()).collect();
    for half_close in [false, true] {
        let mut raw = sockets.tcp().await;
        raw.greet().await;
        let mut raw = raw.with_simple("disk").await;
        raw.say(&many).await;
        match half_close {
            true => raw.stream.shutdown().await.unwrap(),
            false => raw.send(request(NBD_CMD_DISC, 0, 0), &[]).await,
        }
        for _ in 0..64 {
            assert!(raw.reply(256 << 10).await.1 == Reply::Data(vec![0; 256 << 10]));
        }
        raw.closed().await.unwrap();
    }
    sockets.close().await;
}

#[tokio::test]
async fn a_flood_of_cookies_that_are_all_the_same_is_answered_one_by_one() {
    let server = server_with(ServerConfig { max_requests: 8, ..ServerConfig::default() }).await;
    let mut raw = Raw::structured(&server, &[]).await;
    let flood: Vec<u8> = (0..500).flat_map(|_| request(NBD_CMD_READ, 0, 16).encode()).collect();
    raw.say(&flood).await;
    for _ in 0..500 {
        assert_eq!(raw.reply(16).await, (7, Reply::Data(vec![0; 16])));
    }
    is_well(&server).await;
}

#[tokio::test]
async fn every_flag_on_every_command_is_answered_and_the_next_request_is_heard() {
    let server = server().await;
    for mut raw in [Raw::simple(&server).await, Raw::structured(&server, &[BASE_ALLOCATION]).await] {
        for bit in 0..16 {
            // DISC is not answered.
            for command in [NBD_CMD_READ, NBD_CMD_WRITE, NBD_CMD_FLUSH, NBD_CMD_TRIM, NBD_CMD_CACHE]
                .into_iter()
                .chain(NBD_CMD_WRITE_ZEROES..12)
            {
                let length = if command == NBD_CMD_FLUSH { 0 } else { 512 };
                let data = if command == NBD_CMD_WRITE { &[0; 512][..] } else { &[] };
                let asked = Request { flags: 1 << bit, ..request(command, 512, length) };
                raw.ask(asked, data).await;
            }
        }
        assert_eq!(raw.ask(request(NBD_CMD_READ, 0, 2), &[]).await, Reply::Data(vec![0; 2]));
    }
    is_well(&server).await;
}
