//! Disks that became smaller: their volumes do not.

use super::*;
use crate::traits::{BlockStatus, BlockStatusKind};

const SMALLER: ByteSize = ByteSize::mib(2);

/// The volume holds the disk, and nothing behind it.
async fn assert_ends(world: &World) {
    let source = world.source.disk(&world.vm, &key("disk-2000")).unwrap().bytes();
    let target = world.target("disk-2000").await.bytes();
    assert_eq!((source.len(), target.len()), (2 << 20, 4 << 20));
    assert!(target.starts_with(&source), "the disk differs");
    assert!(target[source.len()..].iter().all(|byte| *byte == 0), "the old end of the disk is still there");
}

#[tokio::test]
async fn what_a_larger_disk_left_in_its_volume_is_zeroed() {
    let world = World::new(&["disk-2000"]).await;
    world.run().await;
    world.source.shrink_disk(&world.vm, &key("disk-2000"), SMALLER).unwrap();
    let report = world.run().await;
    assert_eq!((report.epoch, report.disks[0].mode), (Epoch(2), ReplicationType::Incremental));
    assert_ends(&world).await;
}

#[tokio::test]
async fn a_disk_that_was_never_as_large_at_an_epoch_leaves_nothing_behind_its_end() {
    let world = World::new(&["disk-2000"]).await;
    world.source.shrink_disk(&world.vm, &key("disk-2000"), SMALLER).unwrap();
    world.run().await;
    // An epoch of the larger disk fails in its middle.
    world.source.grow_disk(&world.vm, &key("disk-2000"), CAPACITY).unwrap();
    world.write("disk-2000", 2 << 20, 600_000, 3).await;
    world.source.faults(&key("disk-2000")).fail_as(ErrorKind::Corrupt, Retry::Never);
    world.source.faults(&key("disk-2000")).fail_reads_in(Extent::new((2 << 20) + 590_000, 1).unwrap());
    failure(&world.run().await);
    assert!(world.target("disk-2000").await.bytes()[2 << 20..].iter().any(|byte| *byte != 0));
    world.source.faults(&key("disk-2000")).clear();
    world.source.shrink_disk(&world.vm, &key("disk-2000"), SMALLER).unwrap();
    assert!(world.run().await.outcome.is_completed());
    assert_ends(&world).await;
}

#[tokio::test]
async fn a_disk_that_grows_again_has_what_it_has_then() {
    let world = World::new(&["disk-2000"]).await;
    world.run().await;
    world.source.shrink_disk(&world.vm, &key("disk-2000"), SMALLER).unwrap();
    world.run().await;
    world.source.grow_disk_unseen(&world.vm, &key("disk-2000"), ByteSize::mib(3)).unwrap();
    assert!(world.run().await.outcome.is_completed());
    let source = world.source.disk(&world.vm, &key("disk-2000")).unwrap().bytes();
    let target = world.target("disk-2000").await.bytes();
    assert!(target[..3 << 20] == source[..] && target[3 << 20..].iter().all(|byte| *byte == 0));
}

#[tokio::test]
async fn a_target_that_tells_of_what_it_was_not_asked_for_is_not_zeroed_there() {
    let world = World::new(&["disk-2000"]).await;
    world.run().await;
    let before = world.target("disk-2000").await.bytes();
    world.source.shrink_disk(&world.vm, &key("disk-2000"), SMALLER).unwrap();
    let whole = Extent::new(0, CAPACITY.bytes()).unwrap();
    world
        .backend
        .faults(&key("disk-2000"))
        .tell(vec![BlockStatus { extent: whole, kind: BlockStatusKind::Data }]);
    let report = world.run().await;
    assert_eq!(failure(&report).kind(), ErrorKind::Corrupt, "{report:?}");
    assert!(world.target("disk-2000").await.bytes() == before);
    world.backend.faults(&key("disk-2000")).clear();
    assert!(world.run().await.outcome.is_completed());
    assert_ends(&world).await;
}
