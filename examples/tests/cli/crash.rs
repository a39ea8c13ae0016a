//! Killed, interrupted, robbed of its source: the next run continues.

mod moments;
mod pushes;

use std::fs;
use std::path::Path;

use oma_core::conformance::{Requirement, Trial, trial};
use serde_json::Value;

use crate::world::{MIB, Server, World, assert_same, finish, number, replicate_args, signal, until};

const QEMU_NBD: [Requirement; 1] = [Requirement::Program("qemu-nbd")];
const SIZE: u64 = 64 * MIB;
const STEP: u64 = 8 * MIB;

pub(crate) fn trials() -> Vec<Trial> {
    let mut trials = moments::trials();
    trials.extend(pushes::trials());
    trials.extend([
        trial("l15_a_killed_run_is_continued_and_copies_at_most_one_step_twice", &QEMU_NBD, killed),
        trial(
            "l09_a_volume_that_was_cut_after_a_kill_is_compared_when_it_is_long_again",
            &QEMU_NBD,
            killed_and_cut,
        ),
        trial("an_interrupted_run_says_how_to_continue_and_does", &QEMU_NBD, interrupted),
        trial("a_source_that_disappears_is_told_and_the_next_run_continues", &QEMU_NBD, vanished),
    ]);
    trials
}

/// A server that needs a second for the whole disk.
async fn slow(world: &World) -> Server {
    world.slow_nbd("slow", "source.raw", 64).await
}

/// Bytes of a volume that were written: its source has no zero.
fn written(volume: &Path) -> u64 {
    let blocks = fs::read(volume).unwrap();
    let blocks = blocks.chunks(4096).filter(|block| block.iter().any(|byte| *byte != 0));
    blocks.map(|block| u64::try_from(block.len()).unwrap()).sum()
}

/// Waits until so many bytes are durable; answers how many are.
async fn until_synced(world: &World, bytes: u64) -> u64 {
    let mut synced = 0;
    until!("enough is copied", {
        let ran = world.run(&["--json", "disks"]).await;
        if ran.code == 0
            && let Some(row) = ran.json().get(0)
        {
            synced = number(&row["bytes_synced"]);
        }
        synced >= bytes
    });
    synced
}

async fn killed() {
    let world = World::new();
    let source = world.full("source.raw", SIZE);
    let _server = slow(&world).await;
    let uri = world.uri("slow");
    let args = replicate_args(&["--source", &uri, "--journal-step", "8MiB"]);
    let mut child = world.oma(&args).spawn().unwrap();
    let synced = until_synced(&world, SIZE / 2).await;
    child.kill().await.unwrap();
    let written = written(&world.volume("disk-2000").await);

    let report = world.run(&args).await.ok().json();
    let disk = &report["disks"][0];
    let resumed = number(&disk["bytes_resumed"]);
    assert!(resumed >= synced, "{synced} were told to be there: {disk}");
    assert_eq!(number(&disk["bytes_read"]), SIZE - resumed);
    let twice = written.saturating_sub(resumed);
    assert!(twice <= STEP, "{twice} bytes were copied twice");
    assert_eq!(report["epoch"], Value::from(1));
    assert_same(&source, &world.volume("disk-2000").await);
    let jobs = world.run(&["--json", "jobs"]).await.ok().json();
    assert_eq!(jobs.as_array().unwrap().len(), 1, "the same job was continued");
}

async fn killed_and_cut() {
    let world = World::new();
    let source = world.full("source.raw", SIZE);
    let _server = slow(&world).await;
    let uri = world.uri("slow");
    let args = replicate_args(&["--source", &uri, "--journal-step", "8MiB"]);
    let mut child = world.oma(&args).spawn().unwrap();
    until_synced(&world, SIZE / 4).await;
    child.kill().await.unwrap();
    let volume = world.volume("disk-2000").await;
    let file = fs::File::options().write(true).open(&volume).unwrap();
    file.set_len(MIB).unwrap();
    world.run(&args).await.refused(8, &["truncated"]);
    file.set_len(SIZE).unwrap();
    world.run(&args).await.ok();
    assert_same(&source, &volume);
}

async fn interrupted() {
    let world = World::new();
    let source = world.full("source.raw", SIZE);
    let _server = slow(&world).await;
    let uri = world.uri("slow");
    let args = replicate_args(&["--source", &uri, "--journal-step", "8MiB"]);
    let child = world.oma(&args).spawn().unwrap();
    until_synced(&world, SIZE / 4).await;
    signal(&child, "INT").await;
    let ran = finish(child).await.refused(130, &["same command"]);
    assert_eq!(ran.json()["status"], Value::from("suspended"));

    let other = world.replicate(&["--source", &uri, "--disk-key", "disk-2001"]).await;
    other.refused(4, &["disk-2000", "cancel"]);
    let report = world.run(&args).await.ok().json();
    assert_eq!(report["job_id"], ran.json()["job_id"]);
    assert!(number(&report["disks"][0]["bytes_resumed"]) >= SIZE / 4, "{report}");
    assert_same(&source, &world.volume("disk-2000").await);
}

async fn vanished() {
    let world = World::new();
    let source = world.full("source.raw", SIZE);
    let server = slow(&world).await;
    let uri = world.uri("slow");
    let args = replicate_args(&["--source", &uri, "--journal-step", "8MiB"]);
    let child = world.oma(&args).spawn().unwrap();
    until_synced(&world, SIZE / 4).await;
    server.kill().await;
    let ran = finish(child).await.refused(5, &["unavailable"]);
    assert_eq!(ran.json()["status"], Value::from("failed"));
    assert_eq!(world.change_id("disk-2000").await, None);

    let _server = slow(&world).await;
    let report = world.run(&args).await.ok().json();
    assert!(number(&report["disks"][0]["bytes_resumed"]) >= SIZE / 4, "{report}");
    assert_same(&source, &world.volume("disk-2000").await);
}
