//! A disk that is full, refuses or hangs.

use std::time::{Duration, Instant};

use oma_core::conformance::{Requirement, Trial, trial};
use oma_nbd::protocol::*;

use crate::child::{How, Process};
use crate::raw::{Reply, request};

const MIB: u32 = 1 << 20;
const HANGS: Duration = Duration::from_secs(2);

pub(crate) fn trials() -> Vec<Trial> {
    let namespaces = std::process::Command::new("unshare").args(["-rm", "true"]).output();
    let namespaces = Requirement::Feature("unshare", namespaces.is_ok_and(|done| done.status.success()));
    let (strace, mount) = ([Requirement::Program("strace")], [Requirement::Program("mount"), namespaces]);
    vec![
        trial("a_full_file_system_is_no_space_and_room_that_is_made_is_used", &mount, full),
        trial("a_limit_of_file_size_is_no_space_and_the_server_lives_on", &[], limited),
        trial("no_space_for_punching_holes_is_told", &strace, no_space_to_punch),
        trial("a_file_that_cannot_be_sent_is_read_from_the_next_connection_on", &strace, not_sent),
        trial("l22_a_client_that_hangs_up_in_a_read_costs_no_other_its_zero_copy", &strace, hangs_up),
        trial("a_disk_that_hangs_in_flushes_keeps_nobody_else_waiting", &strace, || hangs(FLUSH, false)),
        trial("a_disk_that_hangs_in_flushes_keeps_nobody_else_waiting_on_one_thread", &strace, || {
            hangs(FLUSH, true)
        }),
        trial("a_disk_that_hangs_in_writes_keeps_nobody_else_waiting", &strace, || hangs(WRITE, false)),
        trial("a_disk_that_hangs_in_writes_keeps_nobody_else_waiting_on_one_thread", &strace, || {
            hangs(WRITE, true)
        }),
        trial("a_disk_that_hangs_in_zeroes_keeps_nobody_else_waiting", &strace, || hangs(ZEROES, false)),
        trial("a_disk_that_hangs_in_reads_keeps_no_other_export_waiting", &strace, || hangs(READ, false)),
        trial("a_disk_that_hangs_in_reads_keeps_no_other_export_waiting_on_one_thread", &strace, || {
            hangs(READ, true)
        }),
    ]
}

/// System calls that hang, and the command that makes them.
type Hang = (&'static str, u16, u32);
const FLUSH: Hang = ("fsync,fdatasync", NBD_CMD_FLUSH, 0);
const WRITE: Hang = ("pwrite64,pwritev,pwritev2", NBD_CMD_WRITE, 4096);
const ZEROES: Hang = ("fallocate", NBD_CMD_WRITE_ZEROES, 4096);
const READ: Hang = ("pread64,preadv,preadv2,sendfile", NBD_CMD_READ, 65536);

async fn full() {
    let (under, script) = (["unshare", "-rm"], "mount -t tmpfs -o size=8m none \"$1\"");
    let server = Process::start(How { under: &under, script, ..How::default() }).await;
    let (mut raw, mut other) = (server.open("disk").await, server.open("other").await);
    assert_eq!(other.ask(request(NBD_CMD_WRITE, 0, 3), b"abc").await, Reply::Done);
    let data = vec![0x5a; MIB.try_into().unwrap()];
    let mut written = 0;
    let refused = loop {
        match raw.ask(request(NBD_CMD_WRITE, u64::from(written * MIB), MIB), &data).await {
            Reply::Done => written += 1,
            refused => break refused,
        }
        assert!(written < 20, "8 MiB hold no more");
    };
    assert_eq!((refused, written >= 6), (Reply::Error(NBD_ENOSPC), true), "{written} MiB");
    let keeping = Request { flags: NBD_CMD_FLAG_NO_HOLE, ..request(NBD_CMD_WRITE_ZEROES, 32 << 20, 4 * MIB) };
    assert_eq!(raw.ask(keeping, &[]).await, Reply::Error(NBD_ENOSPC));
    assert!(raw.ask(request(NBD_CMD_READ, 0, MIB), &[]).await == Reply::Data(data.clone()));
    assert_eq!(other.ask(request(NBD_CMD_READ, 0, 3), &[]).await, Reply::Data(b"abc".to_vec()));
    // Room comes back by trim, by zeroes, and is there for everybody.
    assert_eq!(raw.ask(request(NBD_CMD_TRIM, 0, 2 * MIB), &[]).await, Reply::Done);
    assert_eq!(other.ask(request(NBD_CMD_WRITE, u64::from(MIB), MIB), &data).await, Reply::Done);
    assert_eq!(raw.ask(request(NBD_CMD_WRITE_ZEROES, 2 << 20, 2 * MIB), &[]).await, Reply::Done);
    assert_eq!(raw.ask(request(NBD_CMD_WRITE, 50 << 20, MIB), &data).await, Reply::Done);
    assert_eq!(raw.ask(request(NBD_CMD_FLUSH, 0, 0), &[]).await, Reply::Done);
    drop((raw, other));
    server.stop().await;
}

async fn limited() {
    // Blocks of 512 bytes; the signal is ignored, so that the call fails instead. Files are as large as they get already.
    let script = "truncate -s 64M \"$1/disk\" \"$1/other\"; trap '' XFSZ; ulimit -f 2048";
    let server = Process::start(How { script, ..How::default() }).await;
    let mut raw = server.open("disk").await;
    for durable in [0, NBD_CMD_FLAG_FUA] {
        let write = |offset| Request { flags: durable, ..request(NBD_CMD_WRITE, offset, 4096) };
        assert_eq!(raw.ask(write(0), &[1; 4096]).await, Reply::Done);
        assert_eq!(raw.ask(write(8 << 20), &[1; 4096]).await, Reply::Error(NBD_ENOSPC));
    }
    assert_eq!(raw.ask(request(NBD_CMD_READ, 8 << 20, 2), &[]).await, Reply::Data(vec![0; 2]));
    drop(raw);
    server.stop().await;
}

async fn no_space_to_punch() {
    let under = ["strace", "-f", "-qqq", "-o", "/dev/null", "-e", "inject=fallocate:error=ENOSPC"];
    let server = Process::start(How { under: &under, ..How::default() }).await;
    let mut raw = server.open("disk").await;
    assert_eq!(raw.ask(request(NBD_CMD_WRITE, 0, 8192), &[7; 8192]).await, Reply::Done);
    for command in [NBD_CMD_WRITE_ZEROES, NBD_CMD_TRIM] {
        assert_eq!(raw.ask(request(command, 0, 4096), &[]).await, Reply::Error(NBD_ENOSPC), "{command}");
    }
    assert_eq!(raw.ask(request(NBD_CMD_READ, 0, 8192), &[]).await, Reply::Data(vec![7; 8192]));
    drop(raw);
    server.stop().await;
}

async fn not_sent() {
    let under = ["strace", "-f", "-qqq", "-o", "/dev/null", "-e", "inject=sendfile:error=EINVAL"];
    let server = Process::start(How { under: &under, ..How::default() }).await;
    let mut first = server.open("disk").await;
    let data = vec![7; MIB.try_into().unwrap()];
    assert_eq!(first.ask(request(NBD_CMD_WRITE, 0, MIB), &data).await, Reply::Done);
    first.send(request(NBD_CMD_READ, 0, MIB), &[]).await;
    // Its reply has begun, so nothing else is left.
    first.closed().await.unwrap();
    let mut next = server.open("disk").await;
    assert!(next.ask(request(NBD_CMD_READ, 0, MIB), &[]).await == Reply::Data(data));
    drop(next);
    server.stop().await;
}

async fn hangs_up() {
    let trace = tempfile::NamedTempFile::new().unwrap();
    let log = trace.path().to_str().unwrap();
    let under = ["strace", "-f", "-qqq", "-o", log, "-e", "trace=sendfile", "-e", "signal=none"];
    let server = Process::start(How { under: &under, ..How::default() }).await;
    let sends = || std::fs::read_to_string(trace.path()).unwrap().matches("sendfile(").count();
    let mut raw = server.open("disk").await;
    let data = vec![7; MIB.try_into().unwrap()];
    for number in 0..16 {
        assert_eq!(raw.ask(request(NBD_CMD_WRITE, number * u64::from(MIB), MIB), &data).await, Reply::Done);
    }
    for _ in 0..8 {
        let mut leaving = server.open("disk").await;
        let many: Vec<u8> =
            (0..16).flat_map(|n| request(NBD_CMD_READ, n * u64::from(MIB), MIB).encode()).collect();
        leaving.say(&many).await;
        leaving.receive::<64>().await;
    }
    // The others may be noticed later than this one asks: so it asks again, and is sent from the file again.
    for _ in 0..50 {
        let before = sends();
        assert!(raw.ask(request(NBD_CMD_READ, 0, MIB), &[]).await == Reply::Data(data.clone()));
        assert!(sends() > before, "it was read");
        tokio::time::sleep(Duration::from_millis(4)).await;
    }
    drop(raw);
    server.stop().await;
}

async fn hangs((calls, command, length): Hang, one_thread: bool) {
    let folder = tempfile::TempDir::new().unwrap();
    std::fs::create_dir(folder.path().join("images")).unwrap();
    let disk = folder.path().join("images/disk");
    std::fs::write(&disk, b"abc").unwrap();
    // Only calls on this file.
    let delay = format!("inject={calls}:delay_enter=2000000");
    let under = ["strace", "-f", "-qqq", "-o", "/dev/null", "-P", disk.to_str().unwrap(), "-e", &delay];
    let server = Process::start_in(folder, How { under: &under, one_thread, ..How::default() }).await;
    let (mut stuck, mut same) = (server.open("disk").await, server.open("disk").await);
    let mut other = server.open("other").await;
    // A thread of its own has begun when the first answer came.
    for raw in [&mut stuck, &mut same, &mut other] {
        assert_eq!(raw.ask(request(99, 0, 0), &[]).await, Reply::Error(NBD_EINVAL));
    }
    let begun = Instant::now();
    let data = if command == NBD_CMD_WRITE { vec![1; 4096] } else { Vec::new() };
    stuck.send(request(command, 0, length), &data).await;
    for number in 0..15 {
        let data = [number; 512];
        let write = request(NBD_CMD_WRITE, u64::from(number) * 512, 512);
        assert_eq!(other.ask(write, &data).await, Reply::Done);
        assert_eq!(
            other.ask(Request { command: NBD_CMD_READ, ..write }, &[]).await,
            Reply::Data(data.to_vec())
        );
        // Neither do reads of the same disk wait, unless it is reads that hang.
        if command != NBD_CMD_READ {
            let read = same.ask(request(NBD_CMD_READ, 1 << 20, 3), &[]).await;
            assert_eq!(read, Reply::Data(vec![0; 3]));
        }
    }
    let meanwhile = begun.elapsed();
    let (cookie, reply) = stuck.reply(0).await;
    assert!(cookie == 7 && !matches!(reply, Reply::Error(_)), "{reply:?}");
    let answered = begun.elapsed();
    assert!(answered >= HANGS && meanwhile < HANGS, "{meanwhile:?} of {answered:?}");
}
