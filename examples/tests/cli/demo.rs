//! The README's first command.

use std::fs;
use std::path::PathBuf;

use oma_core::conformance::{Trial, trial};
use serde_json::Value;

use crate::world::{MIB, World, finish, number};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("demo_verifies_every_byte_and_leaves_nothing", &[], demo_leaves_nothing),
        trial("demo_reads_only_what_changed", &[], demo_reads_only_what_changed),
        trial("demo_keeps_everything_when_asked", &[], demo_keeps_everything_when_asked),
    ]
}

async fn demo(world: &World, args: &[&str]) -> crate::world::Ran {
    fs::create_dir_all(world.path("tmp")).unwrap();
    let args = [args, &["demo", "--size", "64MiB"]].concat();
    finish(world.oma(&args).env("TMPDIR", world.path("tmp")).spawn().unwrap()).await
}

async fn demo_leaves_nothing() {
    let world = World::new();
    let ran = demo(&world, &[]).await.ok();
    for word in ["epoch", "full", "changes", "64.0 MiB"] {
        assert!(ran.out.contains(word), "{word} is not in {}", ran.out);
    }
    assert!(ran.err.contains("--data-dir is not used"), "{ran:?}");
    assert_eq!(fs::read_dir(world.path("tmp")).unwrap().count(), 0);
    assert!(!world.path("data").exists(), "the demo has a data directory of its own");
}

async fn demo_reads_only_what_changed() {
    let world = World::new();
    let reports = demo(&world, &["--json"]).await.ok().json();
    let (full, changes) = (&reports[0], &reports[1]);
    assert_eq!((&full["replication_type"], &full["epoch"]), (&Value::from("initial"), &Value::from(1)));
    assert_eq!(changes["replication_type"], Value::from("incremental"));
    let (full, changes) = (&full["disks"][0], &changes["disks"][0]);
    assert_eq!(number(&full["bytes_verified"]), 64 * MIB);
    assert_eq!(number(&changes["bytes_verified"]), 64 * MIB);
    assert!(number(&changes["bytes_read"]) > 0 && number(&changes["bytes_read"]) <= 8 * MIB, "{changes}");
}

async fn demo_keeps_everything_when_asked() {
    let world = World::new();
    let ran = {
        fs::create_dir_all(world.path("tmp")).unwrap();
        let args = ["demo", "--size", "64MiB", "--keep"];
        finish(world.oma(&args).env("TMPDIR", world.path("tmp")).spawn().unwrap()).await.ok()
    };
    let kept: Vec<PathBuf> =
        fs::read_dir(world.path("tmp")).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(kept.len(), 1);
    assert!(ran.out.contains(&kept[0].display().to_string()), "{}", ran.out);
    assert!(kept[0].join("oma-data/oma.db").is_file());
}
