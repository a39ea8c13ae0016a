//! Each gets a sentence, an exit code, and a state from which the next run continues.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;

use oma_core::conformance::{Requirement, Trial, trial};
use oma_examples::noise;
use serde_json::Value;

use crate::world::{MIB, VM, World, assert_same, finish, replicate_args, signal, until};

const NBDKIT: [Requirement; 1] = [Requirement::Program("nbdkit")];
const MACHINE: Requirement = Requirement::Program("qemu-system-x86_64");
const QEMU_NBD: [Requirement; 1] = [Requirement::Program("qemu-nbd")];

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("a_file_that_is_not_there_is_told", &[], file_not_there),
        trial("a_socket_that_is_not_there_is_told", &[], socket_not_there),
        trial("a_port_that_is_not_there_is_told", &[], port_not_there),
        trial("an_export_that_is_not_there_is_told", &QEMU_NBD, export_not_there),
        trial("an_unknown_scheme_is_told", &[], unknown_scheme),
        trial("a_usage_error_is_json_too", &[], usage_error),
        trial("a_bitmap_that_is_not_there_is_told", &NBDKIT, no_bitmap),
        trial("a_source_smaller_than_it_says_is_told", &NBDKIT, smaller_than_it_says),
        trial("a_second_process_is_told_who_is_first", &QEMU_NBD, second_process),
        trial("a_cancelled_job_gives_way_to_the_next", &QEMU_NBD, cancelled),
        trial("the_monitor_of_another_machine_cancels_nothing", &[QEMU_NBD[0], MACHINE], another_machine),
        trial("a_damaged_database_is_told_and_not_made_worse", &[], damaged_database),
        trial("a_foreign_file_is_not_touched", &[], foreign_database),
        no_room_trial(),
    ]
}

async fn works_afterwards(world: &World) {
    let source = world.raw("good.raw", 4 * MIB, 9);
    world.replicate(&["--source", &world.text("good.raw"), "--verify", "full"]).await.ok();
    assert_same(&source, &world.volume("disk-2000").await);
}

async fn file_not_there() {
    let world = World::new();
    world.replicate(&["--source", &world.text("missing.raw")]).await.refused(7, &["missing.raw"]);
    works_afterwards(&world).await;
}

async fn socket_not_there() {
    let world = World::new();
    let uri = world.uri("nobody");
    let ran = world.replicate(&["--source", &uri]).await.refused(5, &["nobody.sock", "start it"]);
    assert_eq!(ran.json()["status"], Value::from("failed"));
    works_afterwards(&world).await;
}

async fn port_not_there() {
    let world = World::new();
    world.replicate(&["--source", "nbd://127.0.0.1:1/x"]).await.refused(5, &["127.0.0.1", "start it"]);
    works_afterwards(&world).await;
}

async fn export_not_there() {
    let world = World::new();
    world.raw("source.raw", MIB, 1);
    let export = ["--read-only", "--format", "raw", "--export-name", "web01", "source.raw"];
    let _server = world.qemu_nbd("named", &export).await;
    let uri = world.uri("named").replace("///?", "///other?");
    world.replicate(&["--source", &uri]).await.refused(7, &["other", "web01"]);
    works_afterwards(&world).await;
}

async fn unknown_scheme() {
    let world = World::new();
    world.replicate(&["--source", "http://host/disk"]).await.refused(2, &["http", "nbd+unix"]);
    world.replicate(&["--source", "nbd+unix:///x"]).await.refused(2, &["socket"]);
    let bitmap = world.replicate(&["--source", "a.raw", "--bitmap", "b0"]).await;
    bitmap.refused(2, &["qemu-nbd"]);
    works_afterwards(&world).await;
}

async fn usage_error() {
    let world = World::new();
    let ran = world.run(&["--json", "replicate"]).await;
    assert_eq!(ran.code, 2);
    assert_eq!(
        (&ran.json()["status"], &ran.json()["kind"]),
        (&Value::from("failed"), &Value::from("invalid"))
    );
}

async fn no_bitmap() {
    let world = World::new();
    world.raw("source.raw", 2 * MIB, 1);
    let _server = world.nbdkit("plain", &["file", &world.text("source.raw")]).await;
    let uri = world.uri("plain");
    world.replicate(&["--source", &uri]).await.ok();
    world.replicate(&["--source", &uri, "--bitmap", "b0"]).await.refused(7, &["b0"]);
    let before = world.change_id("disk-2000").await;
    assert!(before.is_some());
    works_afterwards(&world).await;
}

async fn smaller_than_it_says() {
    let world = World::new();
    world.full("source.raw", 2 * MIB);
    let read = format!(
        "pread=dd if={} skip=$4 count=$3 iflag=skip_bytes,count_bytes bs=256k status=none",
        world.text("source.raw")
    );
    let server = world.nbdkit("short", &["eval", "get_size=echo 4M", &read]).await;
    let ran = world.replicate(&["--source", &world.uri("short")]).await.refused(5, &["read", "short.sock"]);
    assert_eq!(ran.json()["status"], Value::from("failed"));
    assert_eq!(world.change_id("disk-2000").await, None);
    server.stop().await;
    works_afterwards(&world).await;
}

async fn second_process() {
    let world = World::new();
    world.full("source.raw", 64 * MIB);
    let _server = world.slow_nbd("slow", "source.raw", 32).await;
    let uri = world.uri("slow");
    let child = world.oma(&replicate_args(&["--source", &uri])).spawn().unwrap();
    let pid = child.id().unwrap().to_string();
    until!(
        "the first holds the lock",
        fs::read_to_string(world.path("data/oma.lock")).is_ok_and(|text| text.trim() == pid)
    );
    let second = world.replicate(&["--source", &uri]).await;
    second.refused(4, &[&pid, "--data-dir"]);
    until!("the first can be listed", world.run(&["--json", "jobs"]).await.code == 0);
    world.run(&["disks"]).await.ok();
    finish(child).await.ok();
}

/// A job that an operator stopped in the middle of its copy.
async fn interrupted_job(world: &World, uri: &str) -> String {
    let child = world.oma(&replicate_args(&["--source", uri])).spawn().unwrap();
    until!("a job replicates", {
        let ran = world.run(&["--json", "jobs"]).await;
        ran.code == 0 && ran.json().get(0).is_some_and(|job| job["status"] == "replicating")
    });
    signal(&child, "TERM").await;
    let job = finish(child).await.refused(130, &["same command"]).json()["job_id"].clone();
    job.as_str().unwrap().to_owned()
}

async fn cancelled() {
    let world = World::new();
    let source = world.full("source.raw", 64 * MIB);
    let _server = world.slow_nbd("slow", "source.raw", 32).await;
    let uri = world.uri("slow");
    let job = interrupted_job(&world, &uri).await;
    let typo = world.replicate(&["--source", &uri, "--disk-key", "typo"]).await;
    typo.refused(4, &["disk-2000", "name the same disks"]);
    let row = world.run(&["--json", "cancel", &job]).await.ok().json();
    assert_eq!(row["status"], Value::from("cancelled"));
    world.run(&["cancel", &job]).await.refused(4, &["ended"]);
    assert_eq!(world.disks().await.len(), 1);
    world.run(&["cancel", "job-unknown"]).await.refused(7, &["job-unknown"]);
    world.replicate(&["--source", &world.text("source.raw"), "--verify", "full"]).await.ok();
    assert_same(&source, &world.volume("disk-2000").await);
}

async fn another_machine() {
    let world = World::new();
    world.full("source.raw", 64 * MIB);
    let _server = world.slow_nbd("slow", "source.raw", 32).await;
    let job = interrupted_job(&world, &world.uri("slow")).await;
    let _machine = world.machine("other", &[]).await;
    let monitor = world.text("other.qmp");
    world.run(&["cancel", &job, "--qmp", &monitor]).await.refused(4, &["is of machine", "or none"]);
    let jobs = world.run(&["--json", "jobs"]).await.ok().json();
    assert_eq!(jobs[0]["status"], Value::from("replicating"));
    world.run(&["cancel", &job]).await.ok();
}

async fn damaged_database() {
    let world = World::new();
    works_afterwards(&world).await;
    let database = world.path("data/oma.db");
    let length = database.metadata().unwrap().len();
    let file = OpenOptions::new().write(true).open(&database).unwrap();
    file.write_all_at(&noise(1, usize::try_from(length - 4096).unwrap()), 4096).unwrap();
    let before = fs::read(&database).unwrap();
    world.run(&["db", "check"]).await.refused(8, &["oma.db", "damaged", "restore a backup"]);
    let source = world.text("good.raw");
    world.replicate(&["--source", &source]).await.refused(8, &["oma.db", "damaged"]);
    assert!(fs::read(&database).unwrap() == before, "the damaged file was changed");
    for name in ["oma.db", "oma.db-wal", "oma.db-shm"] {
        let _ = fs::rename(world.path(&format!("data/{name}")), world.path(name));
    }
    world.replicate(&["--source", &source, "--verify", "full"]).await.ok();
}

async fn foreign_database() {
    let world = World::new();
    fs::create_dir(world.path("data")).unwrap();
    fs::write(world.path("data/oma.db"), "these are my notes, not a database\n".repeat(300)).unwrap();
    world.raw("source.raw", MIB, 1);
    world.replicate(&["--source", &world.text("source.raw")]).await.refused(8, &["oma.db"]);
    assert!(fs::read_to_string(world.path("data/oma.db")).unwrap().starts_with("these are my notes"));
}

/// Needs a file system of its own size, which takes a user namespace; where there is none, `all` cannot ask for it.
fn no_room_trial() -> Trial {
    let mount = std::process::Command::new("unshare")
        .args(["--map-root-user", "--mount", "mount", "-t", "tmpfs", "none", "/mnt"])
        .output();
    let trial = trial("a_target_without_room_is_told_and_the_next_run_continues", &[], no_room);
    let possible = mount.is_ok_and(|output| output.status.success());
    if possible { trial } else { trial.with_ignored_flag(true).with_kind("no user namespaces here") }
}

async fn no_room() {
    let world = World::new();
    let source = world.full("source.raw", 24 * MIB);
    fs::create_dir(world.path("data")).unwrap();
    // The data directory has 16 MiB, then, after a remount, 64 MiB.
    let script = format!(
        "mount -t tmpfs -o size=16m none {data} || exit 99; \
         {oma} --json --data-dir {data} replicate --vm-path {VM} --source {source} >out1; echo $? >code1; \
         mount -o remount,size=64m {data} || exit 99; \
         {oma} --json --data-dir {data} replicate --vm-path {VM} --source {source} --verify full >out2; echo $? >code2; \
         exit 0",
        data = world.text("data"),
        oma = env!("CARGO_BIN_EXE_oma"),
        source = source.display(),
    );
    world.must("unshare", &["--map-root-user", "--mount", "sh", "-c", &script]).await;
    let text = |name: &str| fs::read_to_string(world.path(name)).unwrap();
    let report = |name: &str| serde_json::from_str::<Value>(text(name).lines().last().unwrap()).unwrap();
    assert_eq!(text("code1").trim(), "6", "{}", text("out1"));
    assert!(report("out1")["error"].as_str().unwrap().contains("no space"), "{}", text("out1"));
    assert_eq!(text("code2").trim(), "0", "{}", text("out2"));
    assert_eq!(report("out2")["disks"][0]["bytes_verified"], Value::from(24 * MIB));
}
