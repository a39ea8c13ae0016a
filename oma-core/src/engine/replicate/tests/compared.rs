//! Comparisons that are interrupted, and the runs that go on with them.

use super::interrupted::crash_as;
use super::*;
use crate::engine::config::TrustPolicy;
use crate::memory::DeviceCall;

const DISK: &str = "disk-2000";
const GIB: u64 = 1 << 30;
/// What is hashed of each window of a vast disk: its data, and a leaf of what is promised to be zero.
const HASHED: u64 = 3 * LEAF;

/// A VM with one epoch of a disk of so many bytes, of which each GiB has two leaves of data. Its tracking was reset since, so that
/// all is compared.
async fn vast(capacity: ByteSize) -> Arc<World> {
    let world = World::empty(&[DISK], capacity);
    for window in 0..capacity.bytes() / GIB {
        world.write(DISK, window * GIB + (5 << 20), 2 << 16, 3).await;
    }
    assert!(world.run().await.outcome.is_completed());
    world.source.reset_tracking(&world.vm, &key(DISK));
    Arc::new(world)
}

fn always(world: &World) -> ReplicateRequest {
    ReplicateRequest { trust: TrustPolicy::AlwaysCompare, ..world.request() }
}

/// Dies before it records the window after so many.
async fn die_after(world: &Arc<World>, windows: usize, request: ReplicateRequest) {
    // Before and after the journal is begun, and before and after each record.
    world.journal.die_at(3 + 2 * windows);
    assert!(crash_as(world, "never", 1, request).await);
    let volume = world.volume(DISK).await;
    assert_eq!(volume.content, VolumeContent::Inconsistent, "it is marked before anything is recorded");
    let finished = world.disks().await[0].bytes_synced;
    assert_eq!(finished.bytes(), u64::try_from(windows).unwrap() * GIB);
}

/// The run committed epoch 2, and the volume is the source.
async fn assert_same(world: &World, report: &Report) {
    assert!(report.outcome.is_completed(), "{report:?}");
    world.source.forget_points();
    let (services, _) = world.services();
    let (request, stop) = (VerifyRequest::new(world.vm.clone()), CancellationToken::new());
    let found = verify(&services, &world.config, &request, &Silent, &stop).await.unwrap().report;
    assert_eq!((found.is_identical(), found.epoch), (true, Some(Epoch(2))));
}

#[tokio::test]
async fn l12_a_comparison_that_was_killed_goes_on_with_the_window_that_it_was_at() {
    for windows in 0..4 {
        let world = vast(ByteSize::gib(4)).await;
        die_after(&world, windows, world.request()).await;
        let report = world.run().await;
        let (done, disk) = (u64::try_from(windows).unwrap(), &report.disks[0]);
        assert_eq!(disk.bytes_hashed.bytes(), (4 - done) * HASHED, "{windows} windows were recorded");
        assert_eq!(disk.bytes_resumed.bytes(), done * GIB);
        assert_eq!(
            (disk.bytes_resumed + disk.bytes_equal, disk.bytes_written),
            (ByteSize::gib(4), ByteSize::ZERO)
        );
        assert_same(&world, &report).await;
    }
}

#[tokio::test]
async fn what_changed_since_a_comparison_was_killed_is_compared_again_and_nothing_else() {
    let world = vast(ByteSize::gib(4)).await;
    die_after(&world, 3, world.request()).await;
    // The source moves on while the appliance is down: another point in time.
    world.source.forget_points();
    world.write(DISK, GIB + (5 << 20), 1 << 16, 9).await;
    let report = world.run().await;
    let disk = &report.disks[0];
    assert_eq!(disk.bytes_hashed.bytes(), HASHED + LEAF);
    assert_eq!(disk.bytes_written.bytes(), LEAF);
    assert_same(&world, &report).await;
}

#[tokio::test]
async fn whoever_never_trusts_compares_all_again_after_a_kill_and_goes_on_after_a_failure() {
    let world = vast(ByteSize::gib(4)).await;
    die_after(&world, 3, always(&world)).await;
    let report = world.run_as(&always(&world), &Silent).await.unwrap();
    assert_eq!(report.disks[0].bytes_hashed.bytes(), 4 * HASHED, "nobody knows who wrote meanwhile");
    assert_same(&world, &report).await;

    let world = vast(ByteSize::gib(4)).await;
    let faults = world.source.faults(&key(DISK));
    faults.fail_as(ErrorKind::Unavailable, Retry::Never);
    faults.fail_reads_in(Extent::new(2 * GIB + (5 << 20), 1).unwrap());
    let failed = world.run_as(&always(&world), &Silent).await.unwrap();
    assert!(!failed.outcome.is_completed());
    assert!(world.volume(DISK).await.stamp.is_some(), "the next run must see whether somebody else wrote");
    faults.clear();
    let report = world.run_as(&always(&world), &Silent).await.unwrap();
    assert_eq!(report.disks[0].bytes_hashed.bytes(), 2 * HASHED);
    assert_same(&world, &report).await;
}

#[tokio::test]
async fn l09_a_foreign_write_after_a_comparison_that_failed_is_noticed() {
    let world = vast(ByteSize::gib(4)).await;
    let faults = world.source.faults(&key(DISK));
    faults.fail_as(ErrorKind::Unavailable, Retry::Never);
    faults.fail_reads_in(Extent::new(2 * GIB + (5 << 20), 1).unwrap());
    assert!(!world.run().await.outcome.is_completed());
    faults.clear();
    damage(&world, 5 << 20);
    let report = world.run().await;
    assert_eq!(
        (report.disks[0].bytes_resumed, report.disks[0].bytes_hashed.bytes()),
        (ByteSize::ZERO, 4 * HASHED)
    );
    assert_same(&world, &report).await;
}

#[tokio::test]
async fn l12_killed_at_any_moment_of_a_long_comparison_the_next_run_mends_all_that_differs() {
    for moment in 1.. {
        let world = vast(ByteSize::gib(4)).await;
        for window in 0..4 {
            damage(&world, window * GIB + (5 << 20));
            damage(&world, window * GIB + (700 << 20));
        }
        world.journal.die_at(moment);
        if !crash_as(&world, "never", 1, always(&world)).await {
            // Two of the plan, eight of its windows, and those of the copy.
            assert!(moment > 12, "only {moment} moments");
            return;
        }
        assert_eq!(world.disks().await[0].epoch, Epoch(1));
        let report = world.run().await;
        assert!(report.disks[0].bytes_written.bytes() <= 4 * 4096, "moment {moment}: {report:?}");
        assert_same(&world, &report).await;
    }
}

/// The disk ends with a leaf that the source promises to be zero, and is not: it is the only one of its window, so it is looked at.
#[tokio::test]
async fn l10_a_broken_promise_ends_the_generation_of_what_was_recorded_before_it() {
    let world = vast(ByteSize::new(2 * GIB + LEAF)).await;
    let lie = Extent::new(2 * GIB, LEAF).unwrap();
    world.write(DISK, lie.offset(), 1 << 16, 5).await;
    let faults = world.source.faults(&key(DISK));
    faults.hide(lie);
    let before = world.volume(DISK).await.generation;
    let failed = world.run().await;
    assert_eq!(failure(&failed).kind(), ErrorKind::Corrupt);
    assert!(world.volume(DISK).await.generation > before);
    faults.clear();
    let report = world.run().await;
    assert_eq!(report.disks[0].bytes_resumed, ByteSize::ZERO, "nothing of that generation is believed");
    assert_same(&world, &report).await;
}

#[tokio::test]
async fn l14_what_was_not_flushed_before_it_was_compared_is_never_recorded() {
    let world = vast(ByteSize::gib(4)).await;
    let faults = world.backend.faults(&key(DISK));
    faults.fail_as(ErrorKind::Unavailable, Retry::Never);
    faults.fail_nth(DeviceCall::Flush, 1);
    assert!(!world.run().await.outcome.is_completed());
    assert_eq!(world.disks().await[0].bytes_synced, ByteSize::ZERO);
    assert_eq!(world.volume(DISK).await.content, VolumeContent::Epoch(Epoch(1)), "nothing was recorded");
}
