//! A source whose reads fail: nothing but its own bytes ever reaches the target.

use std::path::Path;

use oma_core::conformance::{Requirement, Trial, trial};

use crate::world::{MIB, World, assert_same};

const BLOCK: usize = 4096;

pub(crate) fn trials() -> Vec<Trial> {
    let need = [Requirement::Program("nbdkit")];
    vec![
        trial("cve_2022_0485_reads_that_fail_now_and_then_put_nothing_into_the_target", &need, || {
            failing("20%")
        }),
        trial("cve_2022_0485_reads_that_all_fail_put_nothing_into_the_target", &need, || failing("100%")),
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
