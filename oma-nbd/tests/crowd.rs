//! Many clients, many exports, and all of them coming and going.
#![cfg(feature = "server")]
#![allow(clippy::unwrap_used, reason = "a test panics when its setup fails")]

mod raw;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::future::join_all;
use oma_core::memory::MemoryDevice;
use oma_core::traits::{Access, BlockDevice, Drained, Durability, ExportServer, ExportSpec};
use oma_core::{ByteSize, Fence};
use oma_nbd::protocol::*;
use oma_nbd::{Server, ServerConfig};
use raw::{Raw, Reply, SOON, Sockets, left, name, request, spec};
use tokio::io::AsyncWriteExt;
use tokio::task::JoinSet;

const SIZE: ByteSize = ByteSize::mib(1);

async fn server() -> Server {
    raw::server(ServerConfig::default(), Arc::new(MemoryDevice::new("m", SIZE))).await
}

async fn connections(server: &Server, export: &str) -> u64 {
    server.statistics(&name(export)).await.unwrap().map_or(0, |statistics| statistics.connections)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn l22_256_clients_are_served_at_once() {
    let server = server().await;
    let sockets = Sockets::new(&server).await;
    let mut clients = Vec::new();
    for number in 0..256 {
        let mut raw = sockets.unix().await;
        raw.greet().await;
        clients.push(match number % 2 {
            0 => raw.with_simple("disk").await,
            _ => raw.with_structured("disk", &[BASE_ALLOCATION]).await,
        });
    }
    assert_eq!(connections(&server, "disk").await, 256);
    // Each has several requests under way at the same time as all others, in a place of its own.
    let place = |number: usize| u64::try_from(number).unwrap() * 4096;
    for (number, raw) in clients.iter_mut().enumerate() {
        let data = vec![u8::try_from(number).unwrap(); 4096];
        raw.send(Request { cookie: 1, ..request(NBD_CMD_WRITE, place(number), 4096) }, &data).await;
        raw.send(Request { cookie: 2, ..request(NBD_CMD_FLUSH, 0, 0) }, &[]).await;
    }
    for raw in &mut clients {
        let mut cookies = [raw.reply(0).await, raw.reply(0).await];
        cookies.sort_by_key(|(cookie, _)| *cookie);
        assert_eq!(cookies, [(1, Reply::Done), (2, Reply::Done)]);
    }
    // Reads of all at once, each of what another wrote.
    let reads = clients.iter_mut().enumerate().map(|(number, raw)| async move {
        let other = 255 - number;
        let read = raw.ask(request(NBD_CMD_READ, place(other), 4096), &[]).await;
        assert!(read == Reply::Data(vec![u8::try_from(other).unwrap(); 4096]), "{number}");
    });
    join_all(reads).await;
    drop(clients);
    left(&server, "disk").await;
    sockets.close().await;
}

#[tokio::test]
async fn l22_a_thousand_exports_are_listed_and_served_each_with_its_own_disk() {
    let server = server().await;
    for number in 0..1000_u32 {
        let device = MemoryDevice::new(format!("m{number}"), SIZE);
        let data = Bytes::copy_from_slice(&number.to_be_bytes());
        device.write_at(0, data, Durability::Cached).await.unwrap();
        server.publish(spec(&format!("export-{number}"), Access::ReadOnly, Arc::new(device))).await.unwrap();
    }
    assert_eq!(server.list().count().await, 1001);
    let mut raw = Raw::greeted(&server).await;
    let listed = raw.option(NBD_OPT_LIST, &[]).await;
    assert_eq!((listed.len(), listed.last().unwrap().0), (1002, NBD_REP_ACK));
    for number in (0..1000_u32).step_by(37) {
        let mut raw = Raw::greeted(&server).await.with_simple(&format!("export-{number}")).await;
        let read = raw.ask(request(NBD_CMD_READ, 0, 4), &[]).await;
        assert_eq!(read, Reply::Data(number.to_be_bytes().to_vec()));
    }
    for number in 0..1000 {
        let gone = server.withdraw(&name(&format!("export-{number}")), SOON).await.unwrap();
        assert_eq!(gone, Drained::Graceful);
    }
    assert_eq!(raw.option(NBD_OPT_LIST, &[]).await.len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn l22_exports_come_and_go_while_others_are_used_without_a_pause() {
    let server = server().await;
    let sockets = Sockets::new(&server).await;
    let stop = Arc::new(AtomicBool::new(false));
    let mut users = JoinSet::new();
    for user in 0..4_u8 {
        let mut raw = sockets.unix().await;
        raw.greet().await;
        let (mut raw, stop) = (raw.with_structured("disk", &[]).await, stop.clone());
        users.spawn(async move {
            let mut rounds = 0_u32;
            while !stop.load(Ordering::Relaxed) {
                let write = request(NBD_CMD_WRITE, u64::from(user) * 4096, 16);
                assert_eq!(raw.ask(write, &[user; 16]).await, Reply::Done);
                let read = raw.ask(Request { command: NBD_CMD_READ, ..write }, &[]).await;
                assert_eq!(read, Reply::Data(vec![user; 16]));
                rounds += 1;
            }
            rounds
        });
    }
    for round in 0..100 {
        let come = format!("come-{}", round % 7);
        let fence = Fence(round + 1);
        let device = Arc::new(MemoryDevice::new(&come, SIZE));
        server.publish(ExportSpec { fence, ..spec(&come, Access::ReadWrite, device) }).await.unwrap();
        let mut raw = sockets.tcp().await;
        raw.greet().await;
        let mut raw = raw.with_simple(&come).await;
        assert_eq!(raw.ask(request(NBD_CMD_WRITE, 0, 3), b"abc").await, Reply::Done);
        assert_eq!(server.withdraw(&name(&come), SOON).await.unwrap(), Drained::Graceful);
        raw.closed().await.unwrap();
    }
    stop.store(true, Ordering::Relaxed);
    while let Some(rounds) = users.join_next().await {
        assert!(rounds.unwrap() > 10, "a user stood still");
    }
    sockets.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn l23_what_was_written_when_withdraw_returns_stays_as_it_is() {
    let server = Server::new(ServerConfig::default());
    let sockets = Sockets::new(&server).await;
    let device = MemoryDevice::new("m", SIZE);
    for round in 0..40 {
        let disk = spec("disk", Access::ReadWrite, Arc::new(device.clone()));
        server.publish(ExportSpec { fence: Fence(round + 1), ..disk }).await.unwrap();
        let acknowledged = Arc::new(AtomicU64::new(0));
        let mut writers = JoinSet::new();
        for _ in 0..4 {
            let mut raw = sockets.unix().await;
            raw.greet().await;
            let mut raw = raw.with_simple("disk").await;
            let acknowledged = acknowledged.clone();
            writers.spawn(async move {
                // Until the server hangs up.
                for number in 0..u64::MAX {
                    let write = request(NBD_CMD_WRITE, number % 256 * 4096, 8);
                    let said = [&write.encode()[..], &number.to_be_bytes()].concat();
                    if raw.stream.write_all(&said).await.is_err() {
                        return;
                    }
                    let mut reply = [0; SimpleReply::SIZE];
                    if tokio::io::AsyncReadExt::read_exact(&mut raw.stream, &mut reply).await.is_err() {
                        return;
                    }
                    match SimpleReply::decode(&reply).unwrap().error {
                        0 => acknowledged.fetch_add(1, Ordering::Relaxed),
                        NBD_ESHUTDOWN => return,
                        error => panic!("error {error}"),
                    };
                }
            });
        }
        while acknowledged.load(Ordering::Relaxed) < 20 {
            tokio::task::yield_now().await;
        }
        let deadline = if round % 2 == 0 { SOON } else { Duration::ZERO };
        assert_ne!(server.withdraw(&name("disk"), deadline).await.unwrap(), Drained::Absent);
        let calls = device.calls().writes;
        assert_eq!(writers.len(), 4);
        while let Some(writer) = writers.join_next().await {
            writer.unwrap();
        }
        assert_eq!(device.calls().writes, calls, "a write landed after the withdrawal");
    }
    sockets.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cve_2015_0847_storms_of_connections_wear_nothing_out() {
    let server = server().await;
    let sockets = Arc::new(Sockets::new(&server).await);
    let mut witness = sockets.unix().await;
    witness.greet().await;
    let mut witness = witness.with_structured("disk", &[]).await;
    let mut storm = JoinSet::new();
    for client in 0..8 {
        let sockets = sockets.clone();
        storm.spawn(async move {
            for round in 0..60 {
                let mut raw = sockets.unix().await;
                match (client + round) % 4 {
                    0 => {}
                    1 => raw.greet().await,
                    2 => {
                        raw.greet().await;
                        let mut raw = raw.with_simple("disk").await;
                        raw.send(request(NBD_CMD_READ, 0, 65536), &[]).await;
                    }
                    _ => {
                        raw.greet().await;
                        let mut raw = raw.with_simple("disk").await;
                        assert_eq!(raw.ask(request(NBD_CMD_FLUSH, 0, 0), &[]).await, Reply::Done);
                        raw.send(request(NBD_CMD_DISC, 0, 0), &[]).await;
                        raw.closed().await.unwrap();
                    }
                }
            }
        });
    }
    while !storm.is_empty() {
        let read = witness.ask(request(NBD_CMD_READ, 0, 4), &[]).await;
        assert_eq!(read, Reply::Data(vec![0; 4]));
        if let Some(ended) = storm.try_join_next() {
            ended.unwrap();
        }
    }
    drop(witness);
    left(&server, "disk").await;
    Arc::into_inner(sockets).unwrap().close().await;
}
