//! Volumes that were lost or cut, and how they are made.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::MetadataExt;

use oma_core::conformance::{Trial, trial};
use serde_json::Value;

use crate::world::{MIB, VM, World, assert_same, number};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("l09_a_volume_that_was_lost_is_made_anew_as_the_error_says", &[], lost),
        trial("l09_a_volume_that_was_truncated_is_mended_as_the_error_says", &[], truncated),
        trial("the_end_of_a_disk_that_became_smaller_is_not_left_in_its_volume", &[], smaller),
        trial("volumes_are_thick_and_memory_is_little_when_asked_for", &[], thick),
    ]
}

async fn lost() {
    let world = World::new();
    let source = world.raw("source.raw", 4 * MIB, 1);
    let args = ["--source", &world.text("source.raw"), "--keep-points", "1"].map(str::to_owned);
    let args = args.each_ref().map(String::as_str);
    let point = world.replicate(&args).await.ok().json()["recovery_point"].clone();
    let old = world.volume("disk-2000").await;
    fs::remove_file(&old).unwrap();
    let record = old.with_extension("json");
    world.replicate(&args).await.refused(8, &["is gone", record.to_str().unwrap(), "makes a new volume"]);
    fs::remove_file(&record).unwrap();
    let plain = world.replicate(&args[..2]).await.ok().json();
    assert!(plain["warnings"][0].as_str().unwrap().contains("a new one is filled"), "{plain}");
    let new = world.volume("disk-2000").await;
    assert!(new != old);
    assert_same(&source, &new);
    let point = point.as_str().unwrap();
    world.run(&["points", "revert", point]).await.refused(4, &["does not have volume"]);
    world.run(&["db", "check"]).await.ok();
    // The point of the lost volume goes as any other.
    world.replicate(&args).await.ok();
    let points = world.run(&["--json", "points", "list", "--vm-path", VM]).await.ok().json();
    assert!(points.as_array().unwrap().len() == 1 && points[0]["point_id"] != point, "{points}");
    let files = fs::read_dir(world.path("data/volumes")).unwrap().count();
    assert_eq!(files, 5, "image and record of a volume and of a snapshot, and the folder's id");
    assert_same(&source, &new);
}

async fn truncated() {
    let world = World::new();
    let source = world.full("source.raw", 4 * MIB);
    let args = ["--source", &world.text("source.raw")].map(str::to_owned);
    let args = args.each_ref().map(String::as_str);
    world.replicate(&args).await.ok();
    let volume = world.volume("disk-2000").await;
    let file = OpenOptions::new().write(true).open(&volume).unwrap();
    file.set_len(MIB).unwrap();
    let advice = format!("`truncate -c -s 4194304 '{}'`", volume.display());
    world.replicate(&args).await.refused(8, &[&advice, "compares all"]);
    file.set_len(4 * MIB).unwrap();
    let report = world.replicate(&args).await.ok().json();
    let disk = &report["disks"][0];
    assert_eq!((number(&disk["bytes_equal"]), number(&disk["bytes_written"])), (MIB, 3 * MIB), "{report}");
    assert_same(&source, &volume);
}

async fn smaller() {
    let world = World::new();
    let source = world.full("source.raw", 4 * MIB);
    let args = ["--source", &world.text("source.raw"), "--reflink", "never"].map(str::to_owned);
    let args = args.each_ref().map(String::as_str);
    world.replicate(&args).await.ok();
    OpenOptions::new().write(true).open(&source).unwrap().set_len(3 * MIB).unwrap();
    world.replicate(&args).await.ok();
    let volume = fs::read(world.volume("disk-2000").await).unwrap();
    let (disk, behind) = volume.split_at(3 << 20);
    assert!(disk == fs::read(&source).unwrap() && behind.len() == 1 << 20);
    assert!(behind.iter().all(|byte| *byte == 0), "the old end of the disk is still there");
}

async fn thick() {
    let world = World::new();
    // Holes, for the most part.
    let source = world.raw("source.raw", 8 * MIB, 1);
    let args = ["--source", &world.text("source.raw"), "--provisioning", "thick", "--memory", "64KiB"]
        .map(str::to_owned);
    let args = args.each_ref().map(String::as_str);
    let report = world.replicate(&args).await.ok().json();
    assert_eq!(report["status"], Value::from("completed"));
    let volume = world.volume("disk-2000").await;
    assert_same(&source, &volume);
    assert!(volume.metadata().unwrap().blocks() * 512 >= 8 * MIB, "its space is allocated");
}
