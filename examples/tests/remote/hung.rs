//! The disk of a volume hangs, and the daemon is told to end.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use oma_core::conformance::{Requirement, Trial, sample, trial};
use oma_core::traits::{Access, Durability, VolumeBackend};
use oma_core::{ByteSize, ErrorKind};
use tempfile::TempDir;
use tokio::process::Command;

use crate::daemon::attached;
use crate::program::Program;

/// What `docs/volumed.md` promises.
const LIMIT: Duration = Duration::from_secs(20);

pub(crate) fn trials() -> Vec<Trial> {
    let compiler = [Requirement::Program("cc")];
    vec![trial("l15_a_volumed_whose_disk_hangs_ends_in_time_and_loses_nothing", &compiler, ended)]
}

/// What makes calls to a volume's disk hang.
async fn compiled(folder: &Path) -> PathBuf {
    let made = folder.join("hang.so");
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/remote/hang.c");
    let mut compiler = Command::new("cc");
    compiler.args(["-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o"]).arg(&made).arg(source).arg("-ldl");
    assert!(compiler.status().await.unwrap().success());
    made
}

async fn ended() {
    let (folder, tools) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let (library, hang) = (compiled(tools.path()).await, tools.path().join("hang"));
    let mut program = Program::start_with(&folder, &[], 1, |command| {
        command.env("LD_PRELOAD", &library).env("OMA_TEST_HANG", &hang);
    })
    .await;
    let remote = program.remote().await;
    let (id, tag) = attached(&remote, ByteSize::mib(1)).await;
    let device = remote.open(&id, &tag, Access::ReadWrite).await.unwrap();
    device.write_at(0, sample(7, 4096), Durability::Durable).await.unwrap();
    fs::write(&hang, "").unwrap();
    device.write_at(4096, sample(8, 4096), Durability::Cached).await.unwrap();
    let flush = {
        let device = device.clone();
        tokio::spawn(async move { device.flush().await })
    };
    let reached = tools.path().join("hang.reached");
    while !reached.exists() {
        tokio::task::yield_now().await;
    }
    let begin = Instant::now();
    program.signal("TERM").await;
    let ended = tokio::time::timeout(LIMIT, program.ended()).await;
    let ended = ended.unwrap_or_else(|_| panic!("it has not ended after {:?}", begin.elapsed()));
    assert!(ended.success(), "{ended:?}");
    let error = flush.await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "nobody said that it was durable: {}", error.chain());
    drop(device);
    let _program = Program::local(&folder).await;
    let device = remote.open(&id, &tag, Access::ReadWrite).await.expect("the lock went with it");
    assert_eq!(device.read_at(0, BytesMut::zeroed(4096)).await.unwrap(), sample(7, 4096));
}
