//! What an export may take of its server, and what is told of it.
#![cfg(feature = "server")]
#![allow(clippy::unwrap_used, reason = "a test panics when its setup fails")]

mod raw;

use std::sync::Arc;
use std::time::Duration;

use oma_core::ByteSize;
use oma_core::memory::{HeldDevice, Hold, MemoryDevice};
use oma_core::traits::Access;
use oma_nbd::protocol::*;
use oma_nbd::{ExportLimits, ExportOptions, Server, ServerConfig};
use raw::{Raw, Reply, SOON, name, request, spec};
use tokio::io::AsyncReadExt;
use tokio::time::{Instant, timeout};

const MIB: u32 = 1 << 20;

async fn limited(limits: ExportLimits) -> Server {
    let server = Server::new(ServerConfig::default());
    let device = Arc::new(MemoryDevice::new("m", ByteSize::mib(4)));
    let options = ExportOptions { limits, ..ExportOptions::default() };
    server.publish_to(spec("disk", Access::ReadWrite, device), options).await.unwrap();
    server
}

fn go() -> Vec<u8> {
    let mut payload = Vec::new();
    InfoRequest { name: "disk", wanted: Vec::new() }.encode(&mut payload);
    payload
}

#[tokio::test]
async fn an_export_takes_as_many_connections_as_it_may() {
    let server = limited(ExportLimits { connections: 2, ..ExportLimits::default() }).await;
    let (one, _two) = (Raw::simple(&server).await, Raw::simple(&server).await);
    let mut three = Raw::greeted(&server).await;
    let (reply, reason) = three.option(NBD_OPT_GO, &go()).await.pop().unwrap();
    assert_eq!(reply, NBD_REP_ERR_POLICY, "{}", String::from_utf8_lossy(&reason));
    // To ask is free, and a connection that ends makes room.
    assert_eq!(three.option(NBD_OPT_INFO, &go()).await.pop().unwrap().0, NBD_REP_ACK);
    drop(one.stream);
    timeout(SOON, one.served).await.unwrap().unwrap().unwrap();
    assert_eq!(three.option(NBD_OPT_GO, &go()).await.pop().unwrap().0, NBD_REP_ACK);
}

#[tokio::test(start_paused = true)]
async fn an_export_moves_no_more_in_a_second_than_it_may() {
    let rate = u64::from(MIB);
    let server = limited(ExportLimits { bytes_per_second: Some(rate), ..ExportLimits::default() }).await;
    let begun = Instant::now();
    // Two connections share it.
    let mut raws = [Raw::simple(&server).await, Raw::simple(&server).await];
    for _ in 0..5 {
        for raw in &mut raws {
            raw.send(request(NBD_CMD_READ, 0, MIB), &[]).await;
            let mut reply = vec![0; SimpleReply::SIZE + usize::try_from(MIB).unwrap()];
            raw.stream.read_exact(&mut reply).await.unwrap();
        }
    }
    let took = begun.elapsed();
    // The last request of each is answered before its time.
    assert!((Duration::from_millis(7800)..Duration::from_secs(9)).contains(&took), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn what_is_hashed_for_a_client_counts_for_the_rate_of_an_export() {
    let rate = u64::from(MIB);
    let server = limited(ExportLimits { bytes_per_second: Some(rate), ..ExportLimits::default() }).await;
    let contexts = [OMA_BLAKE3, BASE_ALLOCATION];
    let mut raw = Raw::greeted(&server).await.with_extended("disk", &contexts).await.0;
    let begun = Instant::now();
    let ask = ExtendedRequest { flags: 0, command: NBD_CMD_BLOCK_STATUS, cookie: 1, offset: 0, length: rate };
    for _ in 0..5 {
        raw.ask_extended(ask, &[]).await;
    }
    let took = begun.elapsed();
    // The last one is answered before its time.
    assert!((Duration::from_millis(3800)..Duration::from_secs(5)).contains(&took), "{took:?}");
    // What computes nothing is free.
    let mut other = Raw::greeted(&server).await.with_extended("disk", &[BASE_ALLOCATION]).await.0;
    tokio::time::advance(Duration::from_secs(2)).await;
    let begun = Instant::now();
    for _ in 0..5 {
        other.ask_extended(ask, &[]).await;
    }
    assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn what_went_through_an_export_is_told_by_connection_and_outlives_it() {
    let server = limited(ExportLimits::default()).await;
    let mut one = Raw::simple(&server).await;
    let mut two = Raw::simple(&server).await;
    assert_eq!(one.ask(request(NBD_CMD_WRITE, 0, 3), b"abc").await, Reply::Done);
    assert_eq!(two.ask(request(NBD_CMD_READ, 0, 2), &[]).await, Reply::Data(b"ab".to_vec()));
    assert_eq!(two.ask(request(99, 0, 0), &[]).await, Reply::Error(NBD_EINVAL));
    drop(two.stream);
    timeout(SOON, two.served).await.unwrap().unwrap().unwrap();
    let report = server.report(&name("disk")).unwrap();
    let total = report.total;
    assert_eq!((total.connections, total.requests, total.errors), (1, 3, 1));
    assert_eq!((total.bytes_read, total.bytes_written), (2, 3));
    assert_eq!(report.latencies.reads.count() + report.latencies.changes.count(), 2);
    assert_eq!(report.latencies.others.count(), 1);
    let left = &report.connections[0];
    assert_eq!((left.requests, left.bytes_written), (1, 3));
    assert!(left.client.contains("within the program"), "{}", left.client);
    assert!(server.report(&name("other")).is_none());
}

#[tokio::test]
async fn all_connections_together_hold_no_more_than_the_server_may() {
    const PIECE: u32 = 256 << 10;
    let config = ServerConfig { max_payload: PIECE, max_memory: ByteSize::mib(1), ..ServerConfig::default() };
    let hold = Hold::default();
    let held = HeldDevice::new(Arc::new(MemoryDevice::new("m", ByteSize::mib(4))), hold.clone());
    let server = raw::server(config, Arc::new(held)).await;
    hold.hold();
    let mut raws = Vec::new();
    for at in 0..8 {
        let mut raw = Raw::simple(&server).await;
        raw.send(request(NBD_CMD_READ, 0, PIECE), &[]).await;
        hold.reached((at + 1).min(4)).await;
        raws.push(raw);
    }
    // Small requests need nothing of it.
    let mut other = Raw::simple(&server).await;
    assert_eq!(other.ask(request(99, 0, 0), &[]).await, Reply::Error(NBD_EINVAL));
    assert_eq!(hold.waiting(), 4, "the others wait for memory");
    // One that is not large is always possible.
    other.send(request(NBD_CMD_READ, 0, 128 << 10), &[]).await;
    hold.reached(5).await;
    hold.release();
    for raw in &mut raws {
        assert_eq!(raw.reply(PIECE).await.1, Reply::Data(vec![0; usize::try_from(PIECE).unwrap()]));
    }
}
