//! What was acknowledged as durable is in the file, whatever becomes of the server.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use oma_core::conformance::{Requirement, Trial, trial};
use oma_core::traits::{BlockDevice, Durability};
use oma_nbd::protocol::*;
use oma_nbd::{Client, ClientConfig};
use tokio::task::JoinSet;

use crate::child::{How, Process};
use crate::raw::{Reply, request};

const BLOCK: u64 = 4096;
const WRITERS: u64 = 4;
/// Blocks of one writer.
const OWN: u64 = 64;

pub(crate) fn trials() -> Vec<Trial> {
    let strace = [Requirement::Program("strace")];
    vec![
        trial("l15_what_was_flushed_is_in_the_file_after_kill_9", &[], flushed_is_kept),
        trial("what_the_disk_does_not_make_durable_is_not_acknowledged_as_durable", &strace, refused_is_told),
        trial("l11_what_the_disk_lost_at_a_durable_write_is_not_forgotten_by_a_flush", &strace, loss_is_kept),
        trial("what_the_disk_makes_durable_is_acknowledged_after_that", &strace, order_is_kept),
        trial("a_flush_while_another_runs_covers_the_writes_before_itself", &strace, flushes_at_once),
    ]
}

/// What one writer knows of its blocks: the number last sent, and the last one that was acknowledged as durable.
#[derive(Clone, Debug)]
struct Known {
    sent: Vec<u64>,
    durable: Vec<u64>,
}

/// Writes growing numbers into blocks of its own until the server is gone.
async fn write(client: Arc<Client>, writer: u64, first: u64, ended: Arc<tokio::sync::Semaphore>) -> Known {
    let count = usize::try_from(OWN).unwrap();
    let mut known = Known { sent: vec![0; count], durable: vec![0; count] };
    let mut acknowledged = known.sent.clone();
    for number in first.. {
        let block = usize::try_from(number * 7 % OWN).unwrap();
        let offset = (writer * OWN + number * 7 % OWN) * BLOCK;
        let fua = number % 5 == 0;
        let durability = if fua { Durability::Durable } else { Durability::Cached };
        known.sent[block] = number;
        let data = Bytes::from(number.to_le_bytes().repeat(512));
        if client.write_at(offset, data, durability).await.is_err() {
            return known;
        }
        acknowledged[block] = number;
        if fua {
            known.durable[block] = number;
            ended.add_permits(1);
        }
        if number % 16 == 0 {
            // Flushes of others run at the same time; this one covers what was acknowledged before it.
            let covered = acknowledged.clone();
            if client.flush().await.is_err() {
                return known;
            }
            known.durable = covered;
        }
    }
    known
}

async fn flushed_is_kept() {
    let mut folder = tempfile::TempDir::new().unwrap();
    for round in 0..4 {
        let server = Process::start_in(folder, How::default()).await;
        let config = ClientConfig { connect_timeout: Duration::from_secs(1), ..ClientConfig::default() };
        let client = Arc::new(Client::connect(&server.uri("disk"), config).await.unwrap());
        let acknowledged = Arc::new(tokio::sync::Semaphore::new(0));
        let mut writers = JoinSet::new();
        for writer in 0..WRITERS {
            let (client, acknowledged) = (client.clone(), acknowledged.clone());
            // Numbers grow from round to round.
            let first = 1 + round * 1_000_000;
            writers.spawn(async move { (writer, write(client, writer, first, acknowledged).await) });
        }
        acknowledged.acquire_many(60 + 7 * u32::try_from(round).unwrap()).await.unwrap().forget();
        folder = server.kill().await;
        let image = std::fs::read(folder.path().join("images/disk")).unwrap();
        while let Some(ended) = writers.join_next().await {
            let (writer, known) = ended.unwrap();
            for block in 0..usize::try_from(OWN).unwrap() {
                let at = (usize::try_from(writer * OWN).unwrap() + block) * 4096;
                let found = u64::from_le_bytes(*image[at..].first_chunk().unwrap());
                let (durable, sent) = (known.durable[block], known.sent[block]);
                assert!(
                    (found >= durable && found <= sent) || (durable == 0 && sent == 0),
                    "writer {writer}, block {block}: {found} is there, {durable} was durable, {sent} was sent"
                );
            }
        }
    }
}

/// Requests that are durable when they are answered.
fn durable_requests() -> [(Request, &'static [u8]); 4] {
    let fua = |command, length| Request { flags: NBD_CMD_FLAG_FUA, ..request(command, 8192, length) };
    [
        (request(NBD_CMD_FLUSH, 0, 0), &[]),
        (fua(NBD_CMD_WRITE, 4096), &[7; 4096]),
        (fua(NBD_CMD_WRITE_ZEROES, 4096), &[]),
        (fua(NBD_CMD_TRIM, 4096), &[]),
    ]
}

async fn refused_is_told() {
    let calls = "inject=fsync,fdatasync,sync_file_range,msync,pwritev2:error=EIO";
    let under = ["strace", "-f", "-qqq", "-o", "/dev/null", "-e", calls];
    for (request, data) in durable_requests() {
        let server = Process::start(How { under: &under, ..How::default() }).await;
        let mut raw = server.open("disk").await;
        let plain = Request { command: NBD_CMD_WRITE, flags: 0, cookie: 1, offset: 0, length: 4096 };
        raw.ask(plain, &[1; 4096]).await;
        assert_eq!(raw.ask(request, data).await, Reply::Error(NBD_EIO), "{request:?}");
        let read = raw.ask(crate::raw::request(NBD_CMD_READ, 20_480, 3), &[]).await;
        assert_eq!(read, Reply::Data(vec![0; 3]), "the connection lives on");
    }
}

/// The kernel tells of pages that it could not write once: to the write that was to be durable, here.
async fn loss_is_kept() {
    for (error, answer) in [("EIO", NBD_EIO), ("ENOSPC", NBD_ENOSPC)] {
        let calls = format!("inject=pwritev2:error={error}:when=1");
        let under = ["strace", "-f", "-qqq", "-o", "/dev/null", "-e", &calls];
        let server = Process::start(How { under: &under, ..How::default() }).await;
        let mut raw = server.open("disk").await;
        assert_eq!(raw.ask(request(NBD_CMD_WRITE, 0, 4096), &[1; 4096]).await, Reply::Done);
        let durable = Request { flags: NBD_CMD_FLAG_FUA, ..request(NBD_CMD_WRITE, 8192, 4096) };
        assert_eq!(raw.ask(durable, &[7; 4096]).await, Reply::Error(answer), "{error}");
        let flushed = raw.ask(request(NBD_CMD_FLUSH, 0, 0), &[]).await;
        assert!(matches!(flushed, Reply::Error(_)), "{error}: {flushed:?}");
    }
}

/// The magic number of a simple reply as strace shows it.
const SIMPLE_REPLY: &str = "gDf\\230";

/// Whether a line of strace is of a call that makes something durable, and succeeded.
fn makes_durable(line: &str) -> bool {
    let synced = ["fsync(", "fdatasync(", "sync_file_range("].iter().any(|call| line.contains(call));
    let written = line.contains("pwritev2(") && line.contains("RWF_DSYNC");
    let resumed =
        ["fsync resumed", "fdatasync resumed", "pwritev2 resumed"].iter().any(|call| line.contains(call));
    (synced || written || resumed) && !line.contains("unfinished") && !line.contains("= -1")
}

async fn order_is_kept() {
    for (request, data) in durable_requests() {
        let trace = tempfile::NamedTempFile::new().unwrap();
        let calls =
            "trace=fsync,fdatasync,sync_file_range,pwritev2,sendto,sendmsg,write,writev,splice,sendfile";
        let under =
            ["strace", "-f", "-qqq", "-o", trace.path().to_str().unwrap(), "-e", calls, "-e", "signal=none"];
        let server = Process::start(How { under: &under, ..How::default() }).await;
        let mut raw = server.socket().await;
        raw.greet().await;
        let mut raw = raw.with_simple("disk").await;
        raw.ask(crate::raw::request(NBD_CMD_WRITE, 0, 4096), &[1; 4096]).await;
        let before = std::fs::read_to_string(trace.path()).unwrap().lines().count();
        assert_eq!(raw.ask(request, data).await, Reply::Done, "{request:?}");
        drop(raw);
        server.stop().await;
        let text = std::fs::read_to_string(trace.path()).unwrap();
        let lines: Vec<_> = text.lines().skip(before).collect();
        let durable = lines.iter().position(|line| makes_durable(line));
        let answer = lines.iter().position(|line| {
            ["sendto(", "sendmsg(", "write(", "writev("].iter().any(|call| line.contains(call))
                && line.contains(SIMPLE_REPLY)
        });
        assert!(
            durable.is_some() && durable < answer,
            "{request:?} was answered too early:\n{}",
            lines.join("\n")
        );
    }
}

async fn flushes_at_once() {
    let trace = tempfile::NamedTempFile::new().unwrap();
    let said = || std::fs::read_to_string(trace.path()).unwrap();
    let begins = |line: &str| ["fsync(", "fdatasync("].iter().any(|call| line.contains(call));
    let calls = "trace=fsync,fdatasync,pwrite64,pwritev,pwritev2";
    // What a disk made durable, it takes its time to say.
    let slow = "inject=fsync,fdatasync:delay_exit=400000";
    let log = trace.path().to_str().unwrap();
    let under = ["strace", "-f", "-qqq", "-o", log, "-e", calls, "-e", "signal=none", "-e", slow];
    let server = Process::start(How { under: &under, ..How::default() }).await;
    let mut clients = [
        server.open("disk").await,
        server.open("disk").await,
        server.open("disk").await,
        server.open("disk").await,
    ];
    let flush = request(NBD_CMD_FLUSH, 0, 0);
    assert_eq!(clients[0].ask(request(NBD_CMD_WRITE, 0, 4096), &[1; 4096]).await, Reply::Done);
    clients[0].send(flush, &[]).await;
    let begun = async {
        while !said().lines().any(begins) {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(crate::raw::SOON, begun).await.expect("the first flush reaches the disk");
    // Too late for the flush that runs, so it is the others that must cover it.
    assert_eq!(clients[1].ask(request(NBD_CMD_WRITE, 4096, 4096), &[2; 4096]).await, Reply::Done);
    for client in &mut clients[1..] {
        client.send(flush, &[]).await;
    }
    for client in &mut clients {
        assert_eq!(client.reply(0).await, (7, Reply::Done));
    }
    drop(clients);
    server.stop().await;
    let said = said();
    let lines: Vec<_> = said.lines().collect();
    let written = lines.iter().rposition(|line| line.contains("4096, 4096")).expect("the write is traced");
    assert!(lines[written..].iter().any(|line| begins(line)), "nothing made the write durable:\n{said}");
}
