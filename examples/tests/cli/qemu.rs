//! A qcow2 image with a persistent dirty bitmap, through qemu's own programs.

use oma_core::conformance::{Requirement, Trial, trial};
use serde_json::Value;

use crate::world::{MIB, Server, VM, World, number};

const QEMU: [Requirement; 3] =
    [Requirement::Program("qemu-img"), Requirement::Program("qemu-io"), Requirement::Program("qemu-nbd")];

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("qcow2_is_replicated_in_full_and_then_by_its_bitmap", &QEMU, full_then_by_bitmap),
        trial("a_forecast_is_told_after_two_incremental_epochs", &QEMU, a_forecast_is_told),
        trial("l09_a_bitmap_that_did_not_begin_at_the_epoch_is_not_believed", &QEMU, another_bitmap),
        trial("changes_that_no_bitmap_tells_of_are_found_as_far_as_it_is_not_trusted", &QEMU, untold_changes),
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

async fn a_forecast_is_told() {
    let world = World::new();
    let (image, uri) = ("web01.qcow2", world.uri("web01"));
    world.must("qemu-img", &["create", "-q", "-f", "qcow2", image, "8M"]).await;
    let forecast = ["forecast", "--vm-path", VM];
    for (write, before, after) in
        [("write 0 4M", None, "b0"), ("write 1M 256k", Some("b0"), "b1"), ("write 2M 128k", Some("b1"), "b2")]
    {
        world.run(&forecast).await.refused(7, &[]);
        world.must("qemu-io", &["-c", write, image]).await;
        world.must("qemu-img", &["bitmap", "--add", image, after]).await;
        let bitmap = before.map(|before| ["--bitmap", before]);
        let server = ["--read-only", "--format", "qcow2"];
        let server = world
            .qemu_nbd("web01", &[&server[..], bitmap.as_slice().as_flattened(), &[image]].concat())
            .await;
        let args = [&["--source", &uri, "--change-id", after][..], bitmap.as_slice().as_flattened()].concat();
        world.replicate(&args).await.ok();
        server.stop().await;
    }
    let told = world.run(&[&["--json"][..], &forecast].concat()).await.ok().json();
    assert_eq!((&told["vm_path"], &told["epochs"]), (&Value::from(VM), &Value::from(2)));
    for name in ["change_bytes_per_second", "next_bytes", "next_seconds", "cutover_seconds"] {
        let [low, middle, high] = ["p10", "p50", "p90"].map(|part| told[name][part].as_f64().unwrap());
        assert!(0.0 < low && low <= middle && middle <= high, "{name}: {told}");
    }
    let metrics = world.text("forecast.prom");
    let text = world.run(&[&forecast[..], &["--metrics", &metrics]].concat()).await.ok().out;
    assert!(text.contains("the last 2 incremental epochs") && text.contains("stand-still"), "{text}");
    let text = std::fs::read_to_string(metrics).unwrap();
    assert!(text.contains(&format!("oma_forecast_epochs{{vm=\"{VM}\"}} 2\n")), "{text}");
    world
        .run(&[&forecast[..], &["--metrics", &world.text(image)]].concat())
        .await
        .refused(4, &["no file of metrics"]);
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

async fn another_bitmap() {
    let world = World::new();
    let image = "web01.qcow2";
    world.must("qemu-img", &["create", "-q", "-f", "qcow2", image, "16M"]).await;
    world.must("qemu-io", &["-c", "write -P 0x11 0 4M", image]).await;
    world.must("qemu-img", &["bitmap", "--add", image, "b0"]).await;
    let uri = world.uri("web01");
    let server = serve_image(&world).await;
    world.replicate(&["--source", &uri, "--change-id", "b0"]).await.ok();
    server.stop().await;
    // What b1 knows is less than what changed.
    world.must("qemu-io", &["-c", "write -P 0x22 1M 1M", image]).await;
    world.must("qemu-img", &["bitmap", "--add", image, "b1"]).await;
    let args = ["--read-only", "--format", "qcow2", "--bitmap", "b1", image];
    let server = world.qemu_nbd("web01", &args).await;
    let ran = world.replicate(&["--source", &uri, "--bitmap", "b1", "--change-id", "b2"]).await.ok();
    server.stop().await;
    assert_eq!(number(&ran.json()["disks"][0]["bytes_written"]), MIB, "{ran:?}");
    assert!(ran.err.contains("since b1, not since b0"), "{ran:?}");
    compare(&world).await;
}

/// An epoch by a bitmap after a write that it does not know.
async fn untold(world: &World, write: &str, [since, next]: [&str; 2], trust: &str) -> Value {
    let image = "web01.qcow2";
    world.must("qemu-io", &["-c", write, image]).await;
    world.must("qemu-img", &["bitmap", "--add", image, since]).await;
    let args = ["--read-only", "--format", "qcow2", "--bitmap", since, image];
    let server = world.qemu_nbd("web01", &args).await;
    let uri = world.uri("web01");
    let args = ["--source", &uri, "--bitmap", since, "--change-id", next, "--trust-changes", trust];
    let report = world.replicate(&args).await.ok().json();
    server.stop().await;
    report["disks"][0].clone()
}

async fn untold_changes() {
    let world = World::new();
    let (image, uri) = ("web01.qcow2", world.uri("web01"));
    world.must("qemu-img", &["create", "-q", "-f", "qcow2", image, "16M"]).await;
    world.must("qemu-io", &["-c", "write -P 0x11 0 4M", image]).await;
    let server = world.qemu_nbd("web01", &["--read-only", "--format", "qcow2", image]).await;
    world.replicate(&["--source", &uri, "--change-id", "b0"]).await.ok();
    server.stop().await;
    let believed = untold(&world, "write -P 0x22 1M 1M", ["b0", "b1"], "yes").await;
    assert_eq!(number(&believed["bytes_read"]), 0, "{believed}");
    let volume = std::fs::read(world.volume("disk-2000").await).unwrap();
    assert!(volume[1 << 20..2 << 20].iter().all(|byte| *byte == 0x11), "the old content stays");
    for (write, ids, trust, differs) in [
        ("write -P 0x33 2M 1M", ["b1", "b2"], "spot-check=1000/1000", 2 * MIB),
        ("write -P 0x44 3M 64k", ["b2", "b3"], "no", 65_536),
    ] {
        let mended = untold(&world, write, ids, trust).await;
        assert_eq!(number(&mended["bytes_written"]), differs, "{trust}: {mended}");
        assert!(number(&mended["bytes_equal"]) > 0, "{trust}: {mended}");
        compare(&world).await;
    }
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
    let report = world.replicate(&bad).await.refused(5, &["broken.sock"]).json();
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
