//! Runs that go on after their source lost the point in time that the ones before were of.

use super::interrupted::crash_at;
use super::*;

/// How much of a disk a run may write before it dies in the tests below.
const BEFORE: u64 = 1 << 20;

/// A VM of one disk full of data, so that every byte that is copied counts.
async fn full_world() -> Arc<World> {
    let world = Arc::new(World::new(&["disk-2000"]).await);
    world.write("disk-2000", 0, usize::try_from(CAPACITY.bytes()).unwrap(), 3).await;
    world
}

/// A run that dies at the `nth` record of its journal; the source then loses its point in time.
async fn die_and_forget(world: &Arc<World>, nth: usize) {
    assert!(crash_at(world, "recorded", nth).await);
    world.source.forget_points();
}

#[tokio::test]
async fn a_full_copy_whose_point_is_gone_goes_on_with_the_union_of_changes() {
    let world = full_world().await;
    die_and_forget(&world, 3).await;
    let durable = world.disks().await[0].bytes_synced;
    assert!(durable.bytes() >= BEFORE / 2, "{durable}");
    world.write("disk-2000", 0, 70_000, 9).await;
    let report = world.run().await;
    let disk = &report.disks[0];
    assert_eq!(
        (disk.mode, disk.bytes_resumed),
        (ReplicationType::Initial, ByteSize::new(durable.bytes() - 70_000))
    );
    assert_eq!(disk.bytes_read, ByteSize::new(CAPACITY.bytes() - disk.bytes_resumed.bytes()));
    assert_eq!(disk.bytes_recopied, ByteSize::new(70_000 + world.config.journal_step.bytes()));
    world.assert_replicated(1).await;
}

#[tokio::test]
async fn a_copy_goes_on_over_any_number_of_lost_points() {
    let world = full_world().await;
    for round in 0..4 {
        die_and_forget(&world, 2).await;
        world.write("disk-2000", round * 300_000, 1000, 10).await;
    }
    let report = world.run().await;
    assert!(report.disks[0].bytes_read.bytes() < CAPACITY.bytes() * 5 / 8, "{report:?}");
    world.assert_replicated(1).await;

    for round in 0..4 {
        world.write("disk-2000", round << 20, 700_000, 11).await;
        die_and_forget(&world, 1).await;
    }
    let report = world.run().await;
    assert_eq!(report.replication_type, ReplicationType::Incremental);
    assert!(report.disks[0].bytes_resumed > ByteSize::ZERO, "{report:?}");
    world.assert_replicated(2).await;
}

#[tokio::test]
async fn l09_a_reset_between_two_points_copies_everything_again_and_says_why() {
    let world = full_world().await;
    die_and_forget(&world, 3).await;
    world.source.reset_tracking(&world.vm, &key("disk-2000"));
    world.write("disk-2000", 5000, 1000, 9).await;
    let notes = Notes::default();
    let report = world.run_as(&world.request(), &notes).await.unwrap();
    assert_eq!(report.disks[0].bytes_read, CAPACITY);
    assert!(report.disks[0].bytes_recopied.bytes() >= BEFORE / 2, "{report:?}");
    assert!(notes.text().contains("cannot tell what changed since"), "{}", notes.text());
    world.assert_replicated(1).await;
}

#[tokio::test]
async fn l13_a_disk_that_grew_between_two_points_is_covered_to_its_end() {
    let world = full_world().await;
    die_and_forget(&world, 3).await;
    world.source.grow_disk(&world.vm, &key("disk-2000"), ByteSize::mib(6)).unwrap();
    world.write("disk-2000", 5 << 20, 1000, 3).await;
    let report = world.run().await;
    assert!(report.disks[0].bytes_resumed.bytes() >= BEFORE / 2, "{report:?}");
    world.assert_replicated(1).await;
}

#[tokio::test]
async fn l09_the_journal_of_a_volume_that_was_made_anew_is_not_believed() {
    let world = full_world().await;
    die_and_forget(&world, 3).await;
    world.backend.lose(&world.volume("disk-2000").await.id);
    let report = world.run().await;
    assert_eq!((report.disks[0].bytes_resumed, report.disks[0].bytes_read), (ByteSize::ZERO, CAPACITY));
    world.assert_replicated(1).await;
}

#[tokio::test]
async fn each_disk_goes_on_from_its_own_journal() {
    let world = Arc::new(World::new(&["disk-2000", "disk-2001"]).await);
    world.run().await;
    world.write("disk-2000", 0, 900_000, 4).await;
    world.write("disk-2001", 1 << 20, 900_000, 4).await;
    die_and_forget(&world, 3).await;
    world.source.reset_tracking(&world.vm, &key("disk-2001"));
    let report = world.run().await;
    let modes: Vec<_> = report.disks.iter().map(|disk| disk.mode).collect();
    assert_eq!(modes, [ReplicationType::Incremental, ReplicationType::Initial]);
    assert_eq!(report.disks[1].bytes_resumed, ByteSize::ZERO);
    world.assert_replicated(2).await;
}

#[tokio::test]
async fn a_damaged_journal_is_told_and_everything_is_copied_again() {
    let world = full_world().await;
    world.run().await;
    world.write("disk-2000", 0, 2_000_000, 4).await;
    die_and_forget(&world, 2).await;
    world.journal.damage(key("disk-2000"));
    let notes = Notes::default();
    let report = world.run_as(&world.request(), &notes).await.unwrap();
    assert!(report.outcome.is_completed(), "{report:?}");
    let disk = &report.disks[0];
    // All of it, but for what is equal by its hashes.
    assert_eq!((disk.mode, disk.bytes_read + disk.bytes_equal), (ReplicationType::Initial, CAPACITY));
    assert_eq!(disk.bytes_resumed, ByteSize::ZERO);
    assert!(notes.text().contains("copied again"), "{}", notes.text());
    world.assert_replicated(2).await;
}

#[tokio::test]
async fn what_a_committed_epoch_needs_is_kept_over_any_number_of_interruptions() {
    let world = Arc::new(World::new(&["disk-2000"]).await);
    world.run().await;
    for offset in [3 << 20, 1 << 20, 100_000] {
        world.write("disk-2000", offset, 200_000, 7).await;
        assert!(crash_at(&world, "copied", 1).await);
        // Each goes on from a point in time of its own.
        world.source.forget_points();
    }
    let report = world.run().await;
    assert_eq!(report.disks[0].mode, ReplicationType::Incremental, "{report:?}");
    world.assert_replicated(2).await;
}
