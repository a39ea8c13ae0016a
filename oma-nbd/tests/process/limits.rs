//! Memory and open files of a server stay within bounds, whatever its clients do.

use std::time::Duration;

use oma_core::conformance::{Requirement, Trial, trial};
use oma_nbd::protocol::*;
use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;

use crate::child::{How, Process, ROOM};
use crate::raw::{Reply, SOON, request};

pub(crate) fn trials() -> Vec<Trial> {
    let proc = Requirement::Feature("/proc", std::path::Path::new("/proc/self/status").exists());
    vec![
        trial("a_flood_of_the_largest_requests_takes_no_more_memory_than_its_room", &[proc], flood),
        trial("a_server_out_of_file_descriptors_serves_again_when_clients_leave", &[proc], few_descriptors),
    ]
}

/// The most memory that a process ever had, in MiB.
fn peak(id: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{id}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").trim().parse::<u64>().unwrap() / 1024
}

async fn flood() {
    const CLIENTS: u64 = 16;
    let server = Process::start(How::default()).await;
    let before = peak(server.id());
    let largest = u32::try_from(ROOM.bytes()).unwrap();
    let reads: Vec<u8> = (0..128).flat_map(|n| request(NBD_CMD_READ, n * 4096, largest).encode()).collect();
    let mut clients = Vec::new();
    for number in 0..CLIENTS {
        let mut raw = server.open(if number % 2 == 0 { "disk" } else { "other" }).await;
        if number % 4 < 2 {
            // 512 MiB of replies that nobody reads.
            raw.say(&reads).await;
        } else {
            // The largest writes, each of them but for its last byte.
            let mut write = request(NBD_CMD_WRITE, 0, largest).encode().to_vec();
            write.resize(write.len() + usize::try_from(largest).unwrap() - 1, 1);
            let _ = tokio::time::timeout(SOON, raw.stream.write_all(&write)).await.unwrap();
        }
        clients.push(raw);
    }
    let mut other = server.open("disk").await;
    for _ in 0..20 {
        assert_eq!(other.ask(request(NBD_CMD_READ, 40 << 20, 2), &[]).await, Reply::Data(vec![0; 2]));
    }
    // Twice the room: what is being sent, and what is read ahead. 64 MiB of buffers may be kept for later.
    let bound = before + CLIENTS * 2 * (ROOM.bytes() >> 20) + 64 + 32;
    let taken = peak(server.id());
    assert!(taken <= bound, "{taken} MiB were taken, {before} before, {bound} are the bound");
    drop((clients, other));
    server.stop().await;
}

async fn few_descriptors() {
    let server = Process::start(How { script: "ulimit -n 40", ..How::default() }).await;
    let mut first = server.open("disk").await;
    // Whoever was answered once has all that it needs.
    assert_eq!(first.ask(request(NBD_CMD_READ, 0, 2), &[]).await, Reply::Data(vec![0; 2]));
    let descriptors = || std::fs::read_dir(format!("/proc/{}/fd", server.id())).unwrap().count();
    let alone = descriptors();
    let mut crowd = Vec::new();
    for _ in 0..100 {
        // The kernel takes them as long as its queue has room.
        let connect = UnixStream::connect(server.folder.path().join("socket"));
        if let Ok(Ok(stream)) = tokio::time::timeout(Duration::from_millis(20), connect).await {
            crowd.push(stream);
        }
    }
    assert!(crowd.len() > 30, "{} connections", crowd.len());
    for _ in 0..20 {
        assert_eq!(first.ask(request(NBD_CMD_READ, 0, 2), &[]).await, Reply::Data(vec![0; 2]));
    }
    drop(crowd);
    let left = async {
        while descriptors() > alone {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(2 * SOON, left).await.expect("it lets go of clients that left");
    let mut raw = server.open("disk").await;
    assert_eq!(raw.ask(request(NBD_CMD_READ, 0, 2), &[]).await, Reply::Data(vec![0; 2]));
    drop((first, raw));
    server.stop().await;
}
