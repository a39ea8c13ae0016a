//! Killed, interrupted, robbed of its source: the next run continues.

use oma_core::conformance::{Requirement, Trial, trial};
use serde_json::Value;

use crate::world::{MIB, Server, World, assert_same, finish, number, replicate_args, signal, until};

const NBDKIT: [Requirement; 1] = [Requirement::Program("nbdkit")];
const SIZE: u64 = 128 * MIB;
const STEP: u64 = 16 * MIB;

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("l15_a_killed_run_is_continued_and_copies_at_most_one_step_twice", &NBDKIT, killed),
        trial("an_interrupted_run_says_how_to_continue_and_does", &NBDKIT, interrupted),
        trial("a_source_that_disappears_is_told_and_the_next_run_continues", &NBDKIT, vanished),
    ]
}

/// A server that needs two seconds for the whole disk, and counts what it reads.
async fn slow(world: &World) -> Server {
    let (file, stats) = (world.text("source.raw"), world.text("stats"));
    let stats = format!("statsfile={stats}");
    world.nbdkit("slow", &["--filter=stats", "--filter=rate", "file", &file, "rate=512M", &stats]).await
}

/// Bytes of reads in the statistics of nbdkit, a line such as `read: 288 ops, 0.1 s, 128.00 MiB, …`.
fn bytes_served(world: &World) -> u64 {
    let text = std::fs::read_to_string(world.path("stats")).unwrap();
    let line = text.lines().find(|line| line.starts_with("read:")).unwrap_or_else(|| panic!("{text}"));
    let size = line.split(',').nth(2).unwrap().trim();
    let (number, unit) = size.split_once(' ').unwrap();
    let scale = match unit {
        "bytes" => 0.0,
        "KiB" => 10.0,
        "MiB" => 20.0,
        _ => 30.0,
    };
    let bytes = number.parse::<f64>().unwrap() * f64::powf(2.0, scale);
    format!("{bytes:.0}").parse().unwrap()
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
    let server = slow(&world).await;
    let uri = world.uri("slow");
    let args = replicate_args(&["--source", &uri, "--journal-step", "16MiB"]);
    let mut child = world.oma(&args).spawn().unwrap();
    let synced = until_synced(&world, SIZE / 2).await;
    child.kill().await.unwrap();

    let report = world.run(&args).await.ok().json();
    let disk = &report["disks"][0];
    assert!(number(&disk["bytes_resumed"]) >= synced, "{synced} were there: {disk}");
    assert!(number(&disk["bytes_read"]) <= SIZE - synced, "{disk}");
    assert_eq!(report["epoch"], Value::from(1));
    server.stop().await;
    let twice = bytes_served(&world).saturating_sub(SIZE);
    assert!(twice <= STEP + MIB, "{twice} bytes were copied twice");
    assert_same(&source, &world.volume("disk-2000").await);
    let jobs = world.run(&["--json", "jobs"]).await.ok().json();
    assert_eq!(jobs.as_array().unwrap().len(), 1, "the same job was continued");
}

async fn interrupted() {
    let world = World::new();
    let source = world.full("source.raw", SIZE);
    let _server = slow(&world).await;
    let uri = world.uri("slow");
    let args = replicate_args(&["--source", &uri, "--journal-step", "16MiB"]);
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
    let args = replicate_args(&["--source", &uri, "--journal-step", "16MiB"]);
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
