//! Recovery points as an operator uses them.

use std::fs;
use std::time::Instant;

use oma_core::conformance::{Trial, trial};
use serde_json::Value;

use crate::world::{MIB, VM, World, assert_same};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("points_are_made_listed_kept_and_deleted", &[], points_are_made_listed_kept_and_deleted),
        trial("l09_volumes_go_back_and_the_next_epoch_is_right", &[], volumes_go_back),
        trial("l15_a_revert_that_was_killed_is_gone_on_with_to_whichever_point", &[], killed_reverts),
        trial("what_cannot_be_a_point_is_refused", &[], what_cannot_be_a_point_is_refused),
    ]
}

/// An epoch of the source `SEED.raw` with a point.
async fn epoch(world: &World, seed: u64, keep: &[&str]) -> String {
    let name = format!("{seed}.raw");
    world.raw(&name, 4 * MIB, seed);
    let source = world.text(&name);
    let args = [&["--source", source.as_str()], keep].concat();
    let report = world.replicate(&args).await.ok().json();
    report["recovery_point"].as_str().unwrap().to_owned()
}

async fn listed(world: &World) -> Vec<Value> {
    let ran = world.run(&["--json", "points", "list", "--vm-path", VM]).await.ok();
    ran.json().as_array().unwrap().clone()
}

fn ids(rows: &[Value]) -> Vec<&str> {
    rows.iter().map(|row| row["point_id"].as_str().unwrap()).collect()
}

/// The snapshots that lie beside the volumes.
fn snapshots(world: &World) -> usize {
    let names = fs::read_dir(world.path("data/volumes")).unwrap().map(|entry| entry.unwrap().file_name());
    names.filter(|name| name.to_str().unwrap().starts_with("snap-")).count()
}

async fn points_are_made_listed_kept_and_deleted() {
    let world = World::new();
    let first = epoch(&world, 1, &["--keep-points", "2"]).await;
    let second = epoch(&world, 2, &["--keep-points", "2"]).await;
    assert_eq!(snapshots(&world), 4, "an image and a record each");
    let third = epoch(&world, 3, &["--keep-points", "2"]).await;
    let rows = listed(&world).await;
    assert_eq!(ids(&rows), [third.as_str(), &second], "{first} is one too many");
    assert_eq!((&rows[0]["epoch"], &rows[0]["status"]), (&Value::from(3), &Value::from("ready")));
    let snapshot = rows[0]["disks"][0]["snapshot_id"].as_str().unwrap();
    assert!(snapshot.contains(rows[0]["job_id"].as_str().unwrap()), "L20: {snapshot}");
    let table = world.run(&["points", "list"]).await.ok().out;
    assert!(table.contains(&third) && table.contains(VM), "{table}");
    // While one of both says so, a point stays.
    let fourth = epoch(&world, 4, &["--keep-points", "1", "--keep-points-for", "1d"]).await;
    assert_eq!(ids(&listed(&world).await), [fourth.as_str(), &third, &second]);
    world.run(&["points", "delete", &second]).await.ok();
    assert_eq!((listed(&world).await.len(), snapshots(&world)), (2, 4));
    world.run(&["points", "delete", &second]).await.refused(7, &["no such point"]);
    world.run(&["db", "check"]).await.ok();
}

async fn volumes_go_back() {
    let world = World::new();
    let first = epoch(&world, 1, &["--keep-points", "5"]).await;
    let before = world.path("1.raw");
    epoch(&world, 2, &["--keep-points", "5"]).await;
    let volume = world.volume("disk-2000").await;
    assert_same(&world.path("2.raw"), &volume);
    let ran = world.run(&["points", "revert", &first]).await.ok();
    assert!(ran.out.contains("hold epoch 1 again"), "{ran:?}");
    let jobs = world.run(&["--json", "jobs"]).await.ok().json();
    assert_eq!((&jobs[0]["kind"], &jobs[1]["kind"]), (&Value::from("revert"), &Value::from("replicate")));
    let table = world.run(&["jobs"]).await.ok().out;
    let row: Vec<&str> =
        table.lines().find(|line| line.contains("went back to epoch 1")).unwrap().split("  ").collect();
    assert!(row.iter().any(|column| column.trim() == "revert"), "{table}");
    assert!(row.iter().all(|column| column.trim().parse::<u64>().is_err()), "no epoch comes of it: {table}");
    assert_same(&before, &volume);
    world.run(&["db", "check"]).await.ok();
    epoch(&world, 3, &["--keep-points", "5", "--verify", "full"]).await;
    assert_same(&world.path("3.raw"), &volume);
    assert_eq!(listed(&world).await.len(), 3);
    world.run(&["--json", "points", "revert", &first]).await.ok();
    assert_same(&before, &volume);
}

/// At whatever moment it died; nothing is replicated before.
async fn killed_reverts() {
    let world = World::new();
    let points =
        [epoch(&world, 1, &["--keep-points", "5"]).await, epoch(&world, 2, &["--keep-points", "5"]).await];
    let (volume, source) = (world.volume("disk-2000").await, world.text("2.raw"));
    // The first revert is measured: nobody is killed.
    let begun = Instant::now();
    world.run(&["points", "revert", &points[0]]).await.ok();
    let length = begun.elapsed();
    let (mut hits, mut round) = (0, 0_u32);
    while hits < 4 || round < 8 {
        assert!(round < 120, "too few kills hit a revert");
        let mut killed = world.oma(&["points", "revert", &points[0]]).spawn().unwrap();
        tokio::time::sleep(length * (round * 7 % 16) / 16).await;
        killed.kill().await.unwrap();
        let job = world.run(&["--json", "jobs"]).await.ok().json()[0].clone();
        if !["completed", "cancelled", "failed"].iter().any(|ended| job["status"] == **ended) {
            hits += 1;
            assert_eq!(job["kind"], Value::from("revert"));
            let ran = world.replicate(&["--source", source.as_str()]).await;
            ran.refused(4, &["revert again", "cancel"]);
            if hits == 1 {
                let ran = world.run(&["cancel", job["job_id"].as_str().unwrap()]).await.ok();
                assert!(ran.out.contains("go back again, or replicate") && ran.err.is_empty(), "{ran:?}");
            }
        }
        let to = usize::try_from(round % 2).unwrap();
        round += 1;
        world.run(&["points", "revert", &points[to]]).await.ok();
        assert_same(&world.path(&format!("{}.raw", to + 1)), &volume);
        world.run(&["db", "check"]).await.ok();
    }
    let left = fs::read_dir(world.path("data/volumes")).unwrap();
    let left: Vec<_> = left.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    assert!(left.iter().all(|name| !name.ends_with(".raw.new")), "{left:?}");
    epoch(&world, 3, &["--keep-points", "5", "--verify", "full"]).await;
    assert_same(&world.path("3.raw"), &volume);
}

async fn what_cannot_be_a_point_is_refused() {
    let world = World::new();
    world.run(&["points", "list", "--vm-path", VM]).await.refused(7, &["replicate"]);
    epoch(&world, 1, &["--keep-points", "1"]).await;
    for command in ["delete", "revert"] {
        world.run(&["points", command, "point-none"]).await.refused(7, &["points list"]);
    }
    world.run(&["points", "list", "--vm-path", "/DC/vm/other"]).await.refused(7, &["oma disks"]);
    let source = world.text("1.raw");
    for wrong in [["--keep-points", "0"], ["--keep-points-for", "7"], ["--keep-points-for", "0d"]] {
        let ran = world.replicate(&[&["--source", source.as_str()], &wrong[..]].concat()).await;
        assert_eq!(ran.code, 2, "{ran:?}");
    }
}
