//! A source whose reads fail: nothing but its own bytes ever reaches the target.

use std::path::Path;

use oma_core::conformance::{Requirement, Trial, trial};
use serde_json::Value;

use crate::world::{MIB, Server, VM, World, assert_same, number};

const BLOCK: usize = 4096;

pub(crate) fn trials() -> Vec<Trial> {
    let need = [Requirement::Program("nbdkit")];
    vec![
        trial("cve_2022_0485_reads_that_fail_now_and_then_put_nothing_into_the_target", &need, || {
            failing("20%")
        }),
        trial("cve_2022_0485_reads_that_all_fail_put_nothing_into_the_target", &need, || failing("100%")),
        trial("a_sector_that_cannot_be_read_is_named_and_the_next_run_goes_on", &need, one_sector),
        trial("l10_a_server_that_lies_about_holes_is_found_and_copied_when_it_is_not_believed", &need, lying),
        trial("l13_a_server_whose_disk_has_shrunk_is_refused_or_fails_by_name", &need, shrunk),
        trial("a_server_that_is_slow_in_every_answer_is_waited_for", &need, slow),
    ]
}

/// How many blocks of a volume are written; each of them is the source's.
fn written(source: &Path, volume: &Path) -> usize {
    let (source, volume) = (std::fs::read(source).unwrap(), std::fs::read(volume).unwrap());
    let blocks = source.chunks(BLOCK).zip(volume.chunks(BLOCK)).enumerate();
    blocks
        .filter(|(number, (source, volume))| {
            let zero = volume.iter().all(|byte| *byte == 0);
            assert!(zero || source == volume, "block {number} holds what the source never held");
            !zero
        })
        .count()
}

async fn failing(rate: &str) {
    let world = World::new();
    let source = world.full("web01.raw", 16 * MIB);
    let (file, rate) = (source.display().to_string(), format!("error-pread-rate={rate}"));
    let server = world.nbdkit("web01", &["--filter=error", "file", &file, "error=EIO", &rate]).await;
    let uri = world.uri("web01");
    let ran = world.replicate(&["--source", &uri, "--change-id", "c1"]).await;
    server.stop().await;
    if ran.code == 0 {
        // Every read that failed was tried again until it did not.
        assert_same(&source, &world.volume("disk-2000").await);
        assert_ne!(rate, "error-pread-rate=100%");
        return;
    }
    assert_eq!(world.change_id("disk-2000").await, None, "nothing was finished");
    let before = written(&source, &world.volume("disk-2000").await);
    assert!(rate != "error-pread-rate=100%" || before == 0, "{before} blocks were written");

    let server = world.nbdkit("web01", &["file", &file]).await;
    world.replicate(&["--source", &uri, "--change-id", "c1", "--verify", "full"]).await.ok();
    server.stop().await;
    assert_same(&source, &world.volume("disk-2000").await);
}

/// nbdkit with reads by a script; `$3` is the length and `$4` the offset.
async fn scripted(world: &World, file: &Path, size: u64, before: &str, more: &[&str]) -> Server {
    let read = format!(
        "pread={before} dd if={} skip=$4 count=$3 iflag=skip_bytes,count_bytes,fullblock bs=256k status=none",
        file.display()
    );
    let size = format!("get_size=echo {size}");
    world.nbdkit("web01", &[&["eval", &size, &read], more].concat()).await
}

async fn one_sector() {
    let world = World::new();
    let source = world.full("web01.raw", 8 * MIB);
    let before =
        "if [ $4 -le 5242880 ] && [ $(($4 + $3)) -gt 5242880 ]; then echo EIO bad sector >&2; exit 1; fi;";
    let server = scripted(&world, &source, 8 * MIB, before, &[]).await;
    let uri = world.uri("web01");
    let args = ["--source", &uri, "--change-id", "c1", "--journal-step", "1MiB"];
    let ran = world.replicate(&args).await;
    server.stop().await;
    let report = ran.json();
    assert_eq!((ran.code == 0, &report["status"]), (false, &Value::from("failed")), "{ran:?}");
    // Pieces of 1 MiB: the one that begins there has the sector in it.
    let error = report["disks"][0]["error"].as_str().unwrap();
    assert!(error.contains("5242880+"), "{error}");
    assert_eq!(world.change_id("disk-2000").await, None);

    let server = world.nbdkit("web01", &["file", &source.display().to_string()]).await;
    let report = world.replicate(&args).await.ok().json();
    server.stop().await;
    assert!(number(&report["disks"][0]["bytes_resumed"]) > 0, "{report}");
    assert_same(&source, &world.volume("disk-2000").await);
}

async fn lying() {
    let world = World::new();
    let source = world.full("web01.raw", 8 * MIB);
    let lie = "extents=echo 0 2097152; echo 2097152 1048576 hole,zero; echo 3145728 5242880";
    let server = scripted(&world, &source, 8 * MIB, "", &[lie, "can_extents=exit 0"]).await;
    let uri = world.uri("web01");
    // A promise is believed until a comparison reads what it is of: here that is the only one there is. Then none of the disk is.
    let believing = ["--source", &uri, "--change-id", "c1"];
    world
        .replicate(&[&believing[..], &["--verify", "full"]].concat())
        .await
        .refused(8, &["--distrust-zeroes"]);
    let ran = world.replicate(&believing).await.ok();
    assert!(ran.err.contains("once promised zeroes"), "{ran:?}");
    assert_same(&source, &world.volume("disk-2000").await);

    let lied_to = World::new();
    lied_to.replicate(&believing).await.ok();
    let verify = ["--json", "verify", "--vm-path", VM, "--source", &uri];
    lied_to.run(&verify).await.refused(3, &["--distrust-zeroes"]);
    let ran = lied_to.run(&[&verify[..], &["--distrust-zeroes"]].concat()).await.refused(3, &["1048576"]);
    assert_eq!(number(&ran.json()["disks"][0]["bytes_different"]), MIB);

    // Not believed from the beginning.
    let other = World::new();
    let distrust = ["--source", &uri, "--change-id", "c1", "--distrust-zeroes"];
    other.replicate(&distrust).await.ok();
    assert_same(&source, &other.volume("disk-2000").await);
    let copy = other.path("copy.raw");
    other.run(&["copy", &uri, &other.text("copy.raw")]).await.ok();
    assert_eq!(written(&source, &copy) * BLOCK, 7 << 20, "the lie is believed");
    other.run(&["copy", "--overwrite", "--distrust-zeroes", &uri, &other.text("copy.raw")]).await.ok();
    assert_same(&source, &copy);
    server.stop().await;
}

async fn shrunk() {
    let world = World::new();
    let source = world.full("web01.raw", 8 * MIB);
    let uri = world.uri("web01");
    // It tells 16 MiB and has 8: dd answers nothing beyond, which nbdkit tells as an error.
    let server = scripted(&world, &source, 16 * MIB, "", &[]).await;
    let ran = world.replicate(&["--source", &uri, "--change-id", "c1"]).await;
    server.stop().await;
    ran.refused(5, &["web01.sock"]);
    assert_eq!(world.change_id("disk-2000").await, None);
    let server = world.nbdkit("web01", &["file", &source.display().to_string()]).await;
    world.replicate(&["--source", &uri, "--change-id", "c2"]).await.ok();
    server.stop().await;
    let volume = world.volume("disk-2000").await;
    let (source, volume) = (std::fs::read(source).unwrap(), std::fs::read(volume).unwrap());
    assert!(volume[..source.len()] == source && volume[source.len()..].iter().all(|byte| *byte == 0));
}

async fn slow() {
    let world = World::new();
    let source = world.full("web01.raw", 4 * MIB);
    let file = source.display().to_string();
    let delays = ["--filter=delay", "file", &file, "rdelay=300ms", "delay-open=500ms", "delay-extents=300ms"];
    let server = world.nbdkit("web01", &delays).await;
    world.replicate(&["--source", &world.uri("web01"), "--change-id", "c1", "--verify", "full"]).await.ok();
    server.stop().await;
    assert_same(&source, &world.volume("disk-2000").await);
}
