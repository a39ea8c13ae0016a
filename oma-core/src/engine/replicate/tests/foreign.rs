//! Somebody else writes to a volume between two runs of one epoch.

use super::interrupted::{crash_as, crash_at};
use super::shaky::stamping;
use super::*;
use crate::Generation;
use crate::engine::config::TrustPolicy;

const DISK: &str = "disk-2000";
/// Copied and recorded by the runs below before they end.
const COPIED: u64 = 4096;

/// A VM of one disk full of data.
async fn world() -> Arc<World> {
    let world = Arc::new(World::new(&[DISK]).await);
    world.write(DISK, 0, usize::try_from(CAPACITY.bytes()).unwrap(), 3).await;
    world
}

fn request(world: &World, trust: TrustPolicy) -> ReplicateRequest {
    ReplicateRequest { trust, ..world.request() }
}

/// A run that fails at its source when some of the disk is copied.
async fn fail(world: &World) {
    let faults = world.source.faults(&key(DISK));
    faults.fail_as(ErrorKind::Unavailable, Retry::Never);
    faults.fail_reads_in(Extent::new(3 << 20, 1).unwrap());
    failure(&world.run().await);
    faults.clear();
    assert!(world.disks().await[0].bytes_synced.bytes() > COPIED);
}

/// A run that is stopped when some of the disk is copied.
async fn stop(world: &World) {
    world.clock.advance(Duration::from_secs(1));
    let stop = CancellationToken::new();
    let acting = Acting::at("recorded", 2, || stop.cancel());
    let replicator = Replicator::new(world.services().0, worker("appliance"), world.config);
    let report = replicator.run(&world.request(), &acting, &stop).await.unwrap();
    assert!(matches!(report.outcome, Outcome::Suspended), "{report:?}");
}

/// The next run notices, and compares all.
async fn assert_noticed(world: &World) {
    let report = world.run().await;
    assert!(report.outcome.is_completed(), "{report:?}");
    assert!(report.warnings[0].contains("written by somebody else since the last run"), "{report:?}");
    assert_eq!(report.disks[0].bytes_resumed, ByteSize::ZERO);
    assert!(report.disks[0].bytes_equal > ByteSize::ZERO, "{report:?}");
    world.assert_replicated(1).await;
}

#[tokio::test]
async fn l09_a_foreign_write_after_a_failed_run_is_noticed_by_the_next() {
    let world = world().await;
    fail(&world).await;
    damage(&world, COPIED);
    assert_noticed(&world).await;
}

#[tokio::test]
async fn l09_a_foreign_write_after_a_stopped_run_is_noticed_by_the_next() {
    let world = world().await;
    stop(&world).await;
    damage(&world, COPIED);
    assert_noticed(&world).await;
}

#[tokio::test]
async fn l09_a_foreign_write_is_noticed_after_any_number_of_runs_that_ended_before_their_copy() {
    let world = world().await;
    fail(&world).await;
    damage(&world, COPIED);
    for _ in 0..2 {
        // It finds the write, and then dies before it copies anything.
        assert!(crash_at(&world, "begins plan", 1).await);
    }
    let report = world.run().await;
    assert!(report.outcome.is_completed(), "{report:?}");
    world.assert_replicated(1).await;
}

#[tokio::test]
async fn a_run_that_nobody_disturbed_goes_on_from_its_journal() {
    for how in ["fails", "stops"] {
        let world = world().await;
        if how == "fails" {
            fail(&world).await;
        } else {
            stop(&world).await;
        }
        assert!(world.volume(DISK).await.stamp.is_some(), "{how}");
        let synced = world.disks().await[0].bytes_synced;
        let report = world.run().await;
        assert_eq!((report.disks[0].bytes_resumed, report.disks[0].bytes_equal), (synced, ByteSize::ZERO));
        world.assert_replicated(1).await;
    }
}

#[tokio::test]
async fn l09_a_foreign_write_after_a_kill_is_found_by_whoever_does_not_trust() {
    for trust in [TrustPolicy::AlwaysCompare, TrustPolicy::SpotCheck { permille: 1000 }] {
        let world = world().await;
        assert!(crash_as(&world, "recorded", 3, request(&world, trust)).await);
        assert_eq!(world.volume(DISK).await.stamp, None, "{trust:?}");
        damage(&world, COPIED);
        let report = world.run_as(&request(&world, trust), &Silent).await.unwrap();
        assert!(report.outcome.is_completed(), "{trust:?}: {report:?}");
        assert!(report.disks[0].bytes_equal.bytes() > COPIED, "{trust:?}: {report:?}");
        world.assert_replicated(1).await;
    }
}

#[tokio::test]
async fn a_killed_run_goes_on_without_a_comparison_by_whoever_trusts() {
    let world = world().await;
    assert!(crash_at(&world, "recorded", 3).await);
    let synced = world.disks().await[0].bytes_synced;
    let report = world.run().await;
    assert_eq!((report.disks[0].bytes_resumed, report.disks[0].bytes_equal), (synced, ByteSize::ZERO));
    world.assert_replicated(1).await;
}

#[tokio::test]
async fn l10_a_new_volume_that_somebody_wrote_to_before_its_first_copy_is_not_taken_for_blank() {
    for event in ["ended provision", "begins copy"] {
        let world = Arc::new(World::empty(&[DISK], CAPACITY));
        assert!(crash_at(&world, event, 1).await);
        damage(&world, 1 << 20);
        assert!(world.run().await.outcome.is_completed());
        world.assert_replicated(1).await;
    }
}

#[tokio::test]
async fn l09_a_write_between_the_look_and_the_lock_is_noticed() {
    let world = world().await;
    fail(&world).await;
    let report = world
        .run_as(&world.request(), &Acting::at("ended provision", 1, || damage(&world, COPIED)))
        .await
        .unwrap();
    assert!(report.outcome.is_completed(), "{report:?}");
    assert!(report.warnings[0].contains("written by somebody else"), "{report:?}");
    world.assert_replicated(1).await;
}

#[tokio::test]
async fn l09_the_stamp_of_an_epoch_is_that_of_the_locked_volume() {
    let world = world().await;
    // Nobody holds the lock any more when an epoch is committed.
    let act = || damage(&world, COPIED);
    assert!(
        world
            .run_as(&world.request(), &Acting::at("begins commit", 1, act))
            .await
            .unwrap()
            .outcome
            .is_completed()
    );
    let report = world.run().await;
    assert!(report.warnings[0].contains("written by somebody else since its last epoch"), "{report:?}");
    world.assert_replicated(2).await;
}

#[tokio::test]
async fn a_volume_whose_flush_failed_is_left_without_a_stamp() {
    let world = world().await;
    let faults = world.backend.faults(&key(DISK));
    faults.fail_as(ErrorKind::Unavailable, Retry::Never);
    faults.fail_nth(crate::memory::DeviceCall::Flush, 2);
    failure(&world.run().await);
    assert_eq!(world.volume(DISK).await.stamp, None);
    assert!(world.run().await.outcome.is_completed());
    world.assert_replicated(1).await;
}

#[tokio::test]
async fn l09_a_volume_is_made_durable_before_its_stamp_is_kept() {
    let world = world().await;
    let faults = world.source.faults(&key(DISK));
    faults.fail_as(ErrorKind::Unavailable, Retry::Never);
    // Not at the end of a journal step.
    faults.fail_reads_in(Extent::new((2 << 20) + (320 << 10), 1).unwrap());
    failure(&world.run().await);
    let (target, recorded) = (world.target(DISK).await, world.disks().await[0].bytes_synced);
    assert!(target.calls().bytes_written > recorded.bytes(), "all of it was recorded");
    assert!(world.volume(DISK).await.stamp.is_some());
    assert!(target.unflushed().is_empty(), "a stamp of what may be lost with the power");
}

#[tokio::test]
async fn l09_a_write_to_a_volume_that_was_lost_before_its_stamp_is_noticed() {
    let world = world().await;
    // As when the connection to its machine is lost, with it the lock, and somebody there opens it.
    let (faults, lost) = (world.backend.faults(&key(DISK)), world.clone());
    let act = move || {
        faults.fail_as(ErrorKind::Unavailable, Retry::Never);
        faults.fail_all();
        damage(&lost, COPIED);
    };
    let replicator = Replicator::new(stamping(&world, act), worker("appliance"), world.config);
    let report = replicator.run(&world.request(), &Silent, &CancellationToken::new()).await.unwrap();
    assert_eq!(failure(&report).kind(), ErrorKind::Unavailable);
    let volume = world.volume(DISK).await;
    assert_eq!((volume.stamp, volume.generation), (None, Generation::FIRST.next()), "whose write is it?");
    assert_eq!(world.change_ids().await, [None]);
    world.backend.faults(&key(DISK)).clear();
    let report = world.run().await;
    assert!(report.outcome.is_completed(), "{report:?}");
    assert_eq!(report.disks[0].bytes_resumed, ByteSize::ZERO);
    world.assert_replicated(1).await;
}

#[tokio::test]
async fn l11_a_volume_that_was_cut_from_outside_is_not_written() {
    let world = world().await;
    assert!(world.run().await.outcome.is_completed());
    let (writes, before) = (world.target(DISK).await.calls().writes, world.change_ids().await);
    world.backend.cut(&world.volume(DISK).await.id, ByteSize::mib(3));
    world.write(DISK, 0, 100_000, 4).await;
    let report = world.run().await;
    let error = failure(&report);
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{}", error.chain());
    assert!(error.chain().contains("it was cut from outside"), "{}", error.chain());
    assert_eq!(world.target(DISK).await.calls().writes, writes);
    assert_eq!(world.change_ids().await, before);
}

#[tokio::test(start_paused = true)]
async fn l11_a_stop_ends_a_copy_whose_flush_never_answers_and_nothing_counts_as_durable() {
    let world = world().await;
    world.backend.faults(&key(DISK)).stall_flushes();
    let stop = CancellationToken::new();
    let replicator = Replicator::new(world.services().0, worker("appliance"), world.config);
    let (request, asked) = (world.request(), stop.clone());
    let silent = Silent;
    let run = replicator.run(&request, &silent, &stop);
    let end = async {
        tokio::time::sleep(Duration::from_secs(60)).await;
        asked.cancel();
    };
    let limit = world.config.drain * 20;
    let (report, ()) = tokio::time::timeout(limit, futures_util::future::join(run, end)).await.unwrap();
    assert!(matches!(report.unwrap().outcome, Outcome::Suspended));
    assert_eq!(world.disks().await[0].bytes_synced, ByteSize::ZERO);
    assert_eq!(world.volume(DISK).await.stamp, None);
}

#[tokio::test]
async fn l09_what_a_killed_run_had_copied_is_not_believed_of_a_volume_that_was_cut_and_mended() {
    let world = Arc::new(World::new(&["disk-2000"]).await);
    assert!(crash_at(&world, "recorded", 1).await);
    let volume = world.volume("disk-2000").await.id;
    world.backend.cut(&volume, ByteSize::kib(64));
    assert_eq!(failure(&world.run().await).kind(), ErrorKind::Corrupt);
    // Long again, without what it had.
    let target = world.backend.device(&volume).unwrap().with_capacity(CAPACITY);
    let all = Extent::between(0, CAPACITY.bytes()).unwrap();
    target.write_zeroes(all, crate::traits::Zeroing::Punch, Durability::Cached).await.unwrap();
    world.backend.cut(&volume, CAPACITY);
    world.run().await;
    world.assert_consistent(1).await;
}
