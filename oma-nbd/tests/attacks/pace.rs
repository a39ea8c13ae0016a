//! Clients that are slow, silent or too many.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use oma_core::memory::MemoryDevice;
use oma_core::traits::{BlockDevice, Durability, ExportServer};
use oma_core::{ByteSize, ErrorKind};
use oma_nbd::ServerConfig;
use oma_nbd::protocol::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::raw::{self, Raw, Reply, Sockets, left, name, request};
use crate::{MIB, SIZE, is_well, server, server_with};

#[tokio::test(start_paused = true)]
async fn a_byte_a_second_in_the_handshake_lasts_no_longer_than_the_handshakes_time() {
    let server = server().await;
    let mut raw = Raw::open(&server, 1 << 16);
    let begun = tokio::time::Instant::now();
    let mut said = 3u32.to_be_bytes().to_vec();
    said.extend(OptionHeader { option: NBD_OPT_GO, length: 600 }.encode());
    said.resize(620, 0);
    for byte in said {
        if raw.stream.write_all(&[byte]).await.is_err() {
            break;
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    let error = raw.served.await.unwrap().unwrap_err();
    assert!(error.chain().contains("longer than allowed"), "{}", error.chain());
    assert!(begun.elapsed() < Duration::from_secs(15), "it took {:?}", begun.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_byte_a_second_in_a_request_keeps_nobody_else_waiting() {
    let server = server().await;
    let mut slow = Raw::simple(&server).await;
    let mut said = request(NBD_CMD_WRITE, 0, 20).encode().to_vec();
    said.extend(*b"twenty bytes of data");
    let mut other = Raw::simple(&server).await;
    for byte in said {
        slow.say(&[byte]).await;
        assert_eq!(other.ask(request(NBD_CMD_READ, 100, 1), &[]).await, Reply::Data(vec![0]));
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    assert_eq!(slow.reply(0).await, (7, Reply::Done));
    let read = other.ask(request(NBD_CMD_READ, 0, 20), &[]).await;
    assert_eq!(read, Reply::Data(b"twenty bytes of data".to_vec()));
}

#[tokio::test]
async fn readers_that_never_read_keep_nobody_else_waiting() {
    let config = ServerConfig { max_buffered: ByteSize::mib(1), ..ServerConfig::default() };
    let device = MemoryDevice::new("m", SIZE);
    // Zeroes would be told in a few bytes.
    device.write_at(0, Bytes::from_static(b"data"), Durability::Cached).await.unwrap();
    let server = raw::server(config, Arc::new(device)).await;
    let sockets = Sockets::new(&server).await;
    let many: Vec<u8> = (0..1000).flat_map(|_| request(NBD_CMD_READ, 0, MIB).encode()).collect();
    let mut deaf = Vec::new();
    for _ in 0..8 {
        let mut raw = sockets.unix().await;
        raw.greet().await;
        let mut raw = raw.with_structured("disk", &[]).await;
        // The server may take only some of it.
        let _ = tokio::time::timeout(Duration::from_millis(20), raw.stream.write_all(&many)).await;
        deaf.push(raw);
    }
    let mut other = sockets.unix().await;
    other.greet().await;
    let mut other = other.with_simple("disk").await;
    for _ in 0..20 {
        assert_eq!(other.ask(request(NBD_CMD_READ, 0, 4), &[]).await, Reply::Data(b"data".to_vec()));
    }
    let statistics = server.statistics(&name("disk")).await.unwrap().unwrap();
    // What the sockets hold counts as sent, so no exact number is possible.
    assert!(statistics.bytes_read < 8 * 64 * u64::from(MIB), "{statistics:?}");
    drop((deaf, other));
    left(&server, "disk").await;
    sockets.close().await;
}

#[tokio::test]
async fn cve_2024_7409_a_server_stops_while_clients_come_and_negotiate() {
    let server = server().await;
    let sockets = Sockets::new(&server).await;
    let mut idle = Vec::new();
    for number in 0..200 {
        let mut raw = sockets.unix().await;
        // Some say nothing, some stop within the flags, some within an option.
        let said =
            [&3u32.to_be_bytes()[..], &OptionHeader { option: NBD_OPT_GO, length: 10 }.encode()].concat();
        let _ = raw.stream.write_all(&said[..number % said.len()]).await;
        idle.push(raw);
    }
    sockets.close().await;
    for mut raw in idle {
        let mut rest = Vec::new();
        // Closed or reset: some have bytes that nobody read.
        let _ = tokio::time::timeout(raw::SOON, raw.stream.read_to_end(&mut rest)).await.unwrap();
        assert!(rest.len() <= Greeting::SIZE + OptionReplyHeader::SIZE + 200, "{} bytes", rest.len());
    }
}

#[tokio::test]
async fn a_seat_is_free_again_however_its_client_left() {
    let config = ServerConfig { max_connections: 1, ..ServerConfig::default() };
    let server = server_with(config).await;
    for round in 0..30 {
        let mut raw = Raw::greeted(&server).await;
        let refused = Raw::open(&server, 1 << 16).closed().await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Busy);
        match round % 5 {
            0 => {}
            1 => raw.say(b"no option at all").await,
            2 => drop(raw.option(NBD_OPT_ABORT, &[]).await),
            3 => drop(raw.go("disk").await),
            _ => {
                raw.go("disk").await;
                raw.send(request(NBD_CMD_WRITE, 0, 4096), b"half").await;
            }
        }
        drop(raw.stream);
        let _ = tokio::time::timeout(raw::SOON, raw.served).await.unwrap().unwrap();
    }
    is_well(&server).await;
}
