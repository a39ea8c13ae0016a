//! A qcow2 image with a persistent dirty bitmap, through qemu's own programs.

use oma_core::conformance::{Requirement, Trial, trial};
use serde_json::Value;

use crate::world::{MIB, Server, World, number};

const QEMU: [Requirement; 3] =
    [Requirement::Program("qemu-img"), Requirement::Program("qemu-io"), Requirement::Program("qemu-nbd")];

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("qcow2_is_replicated_in_full_and_then_by_its_bitmap", &QEMU, full_then_by_bitmap),
        trial(
            "l08_two_disks_one_fails_midway_no_change_id_moves",
            &[Requirement::Program("nbdkit")],
            one_fails_midway,
        ),
    ]
}

/// Bytes that a server says are dirty.
async fn dirty_bytes(world: &World, name: &str) -> u64 {
    let map = world.must("nbdinfo", &["--map=qemu:dirty-bitmap:b0", "--json", &world.uri(name)]).await;
    let map: Value = serde_json::from_str(&map).unwrap();
    map.as_array().unwrap().iter().filter(|e| e["type"] == 1).map(|e| number(&e["length"])).sum()
}

async fn serve_image(world: &World) -> Server {
    world.qemu_nbd("web01", &["--read-only", "--format", "qcow2", "--bitmap", "b0", "web01.qcow2"]).await
}

async fn compare(world: &World) {
    let volume = world.volume("disk-2000").await.display().to_string();
    world.must("qemu-img", &["compare", "-f", "qcow2", "-F", "raw", "web01.qcow2", &volume]).await;
}

async fn full_then_by_bitmap() {
    let world = World::new();
    let image = "web01.qcow2";
    world.must("qemu-img", &["create", "-q", "-f", "qcow2", image, "64M"]).await;
    let writes = ["-c", "write -P 0x11 0 8M", "-c", "write -P 0x22 20M 3M", "-c", "write -z 30M 2M"];
    world.must("qemu-io", &[&writes[..], &[image]].concat()).await;
    world.must("qemu-img", &["bitmap", "--add", image, "b0"]).await;
    let uri = world.uri("web01");

    let server = serve_image(&world).await;
    let full = world.replicate(&["--source", &uri, "--change-id", "b0"]).await.ok().json();
    assert_eq!(full["replication_type"], Value::from("initial"));
    assert_eq!(number(&full["disks"][0]["bytes_written"]), 11 * MIB);
    assert!(number(&full["disks"][0]["bytes_read"]) <= 13 * MIB, "holes were read: {full}");
    server.stop().await;
    compare(&world).await;

    let writes = ["-c", "write -P 0x33 1M 192k", "-c", "write -P 0x44 40M 1M", "-c", "discard 20M 1M"];
    world.must("qemu-io", &[&writes[..], &[image]].concat()).await;
    let server = serve_image(&world).await;
    let dirty = dirty_bytes(&world, "web01").await;
    let since = ["--source", &uri, "--bitmap", "b0", "--change-id", "b1", "--verify", "full"];
    let changes = world.replicate(&since).await.ok().json();
    assert_eq!(changes["replication_type"], Value::from("incremental"));
    let disk = &changes["disks"][0];
    assert!(number(&disk["bytes_read"]) <= dirty, "more than the {dirty} dirty bytes were read: {disk}");
    assert_eq!(number(&disk["bytes_read"]), MIB + 192 * 1024);
    assert_eq!(disk["change_id"], Value::from("b1"));
    server.stop().await;
    compare(&world).await;
}

/// An nbdkit whose reads fail from 4 MiB on.
async fn failing(world: &World, name: &str, file: &str) -> Server {
    let path = world.text(file);
    let read = format!(
        "pread=if [ $4 -ge 4194304 ]; then echo EIO the disk is broken >&2; exit 1; \
         else dd if={path} skip=$4 count=$3 iflag=skip_bytes,count_bytes,fullblock bs=256k status=none; fi"
    );
    world.nbdkit(name, &["eval", "get_size=echo 8M", &read]).await
}

async fn one_fails_midway() {
    let world = World::new();
    let (one, two) = (world.full("one.raw", 8 * MIB), world.full("two.raw", 8 * MIB));
    let disk = |key: &str, source: &str, id: &str| format!("{key}={source},change-id={id}");
    let good = [
        "--disk",
        &disk("disk-2000", &one.display().to_string(), "a1"),
        "--disk",
        &disk("disk-2001", &two.display().to_string(), "b1"),
    ]
    .map(str::to_owned);
    let good: Vec<&str> = good.iter().map(String::as_str).collect();
    world.replicate(&good).await.ok();

    let server = failing(&world, "broken", "two.raw").await;
    let bad = [
        "--disk",
        &disk("disk-2000", &one.display().to_string(), "a2"),
        "--disk",
        &disk("disk-2001", &world.uri("broken"), "b2"),
    ]
    .map(str::to_owned);
    let bad: Vec<&str> = bad.iter().map(String::as_str).collect();
    let ran = world.replicate(&bad).await;
    assert_ne!(ran.code, 0);
    let report = ran.json();
    assert_eq!(report["status"], Value::from("failed"));
    assert!(report["disks"].as_array().unwrap().iter().all(|disk| disk["change_id"].is_null()), "{report}");
    server.stop().await;
    assert_eq!(world.change_id("disk-2000").await.as_deref(), Some("a1"));
    assert_eq!(world.change_id("disk-2001").await.as_deref(), Some("b1"));

    let report = world.replicate(&good).await.ok().json();
    assert_eq!(report["epoch"], Value::from(2));
    crate::world::assert_same(&one, &world.volume("disk-2000").await);
    crate::world::assert_same(&two, &world.volume("disk-2001").await);
}
