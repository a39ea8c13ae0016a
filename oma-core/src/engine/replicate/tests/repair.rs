//! Comparing in place of copying, when a change id cannot be trusted.

use super::interrupted::crash_as;
use super::*;
use crate::engine::config::TrustPolicy;
use crate::traits::{BackendCapabilities, ReadManner};
use crate::tree::LEAF;
use proptest::prelude::*;

const DISK: &str = "disk-2000";

fn request(world: &World, trust: TrustPolicy) -> ReplicateRequest {
    ReplicateRequest { trust, ..world.request() }
}

/// A world with one epoch, whose source then changes a little.
async fn replicated() -> World {
    let world = World::new(&[DISK]).await;
    assert!(world.run().await.outcome.is_completed());
    world.write(DISK, 3 << 20, 10_000, 7).await;
    world
}

/// Copied little, and the rest found equal.
fn assert_repaired(report: &Report) {
    assert!(report.outcome.is_completed(), "{report:?}");
    let disk = &report.disks[0];
    assert_eq!(disk.mode, ReplicationType::Initial);
    assert!(disk.bytes_equal.bytes() > CAPACITY.bytes() / 2, "{disk:?}");
    assert_eq!(disk.bytes_resumed, ByteSize::ZERO);
    assert!(disk.bytes_read.bytes() + disk.bytes_equal.bytes() <= CAPACITY.bytes(), "{disk:?}");
}

#[tokio::test]
async fn l09_after_a_reset_of_tracking_only_what_differs_is_copied() {
    let world = replicated().await;
    world.source.reset_tracking(&world.vm, &key(DISK));
    let report = world.run().await;
    assert_repaired(&report);
    assert!(report.disks[0].bytes_written.bytes() <= 12_288, "{report:?}");
    world.assert_replicated(2).await;
    // Tracking goes on from here.
    world.write(DISK, 0, 5000, 9).await;
    assert_eq!(world.run().await.disks[0].mode, ReplicationType::Incremental);
    world.assert_replicated(3).await;
}

#[tokio::test]
async fn l09_a_volume_that_somebody_wrote_to_is_mended_by_comparing() {
    let world = replicated().await;
    damage(&world, 1 << 20);
    damage(&world, 5);
    assert_repaired(&world.run().await);
    world.assert_replicated(2).await;
}

#[tokio::test]
async fn l14_after_a_failed_verification_only_what_differs_is_copied() {
    let world = World::new(&[DISK]).await;
    let verified = ReplicateRequest { verify: VerifyLevel::Full, ..world.request() };
    let failed =
        world.run_as(&verified, &Acting::at("begins verify", 1, || damage(&world, 8192))).await.unwrap();
    assert_eq!(failure(&failed).kind(), ErrorKind::Mismatch);
    let mended = world.run_as(&verified, &Silent).await.unwrap();
    assert_repaired(&mended);
    assert_eq!(mended.disks[0].bytes_written, ByteSize::kib(4));
    world.assert_replicated(1).await;
}

#[tokio::test]
async fn whoever_never_trusts_compares_and_never_asks_what_changed() {
    let world = untold().await;
    let report = world.run_as(&request(&world, TrustPolicy::AlwaysCompare), &Silent).await.unwrap();
    assert_repaired(&report);
    world.assert_replicated(2).await;
}

/// As [`replicated`], with a volume that differs where the source says nothing changed, and a backend that cannot tell that
/// somebody wrote to it.
async fn untold() -> World {
    let mut world = World::new(&[DISK]).await;
    let backend = MemoryBackend::new();
    let capabilities = BackendCapabilities { content_stamp: false, ..backend.capabilities() };
    world.backend = Arc::new(backend.with_capabilities(capabilities));
    world.run().await;
    world.write(DISK, 3 << 20, 10_000, 7).await;
    damage(&world, 2 << 20);
    world
}

#[tokio::test]
async fn l09_a_spot_check_that_finds_a_difference_has_all_compared() {
    let world = untold().await;
    let report =
        world.run_as(&request(&world, TrustPolicy::SpotCheck { permille: 1000 }), &Silent).await.unwrap();
    assert_repaired(&report);
    world.assert_replicated(2).await;
}

#[tokio::test]
async fn l09_a_doubt_outlives_the_run_that_found_it_however_soon_that_dies() {
    for moment in 1..=4 {
        let world = Arc::new(untold().await);
        // An interrupted run leaves the journal of an incremental copy behind.
        assert!(crash_as(&world, "copied", 1, world.request()).await);
        world.journal.die_at(moment);
        assert!(
            crash_as(&world, "never", 1, request(&world, TrustPolicy::SpotCheck { permille: 1000 })).await
        );
        world.run().await;
        world.assert_consistent(2).await;
    }
}

#[tokio::test]
async fn a_spot_check_that_finds_nothing_leaves_the_run_incremental() {
    let world = replicated().await;
    let report =
        world.run_as(&request(&world, TrustPolicy::SpotCheck { permille: 10 }), &Silent).await.unwrap();
    assert_eq!(report.disks[0].mode, ReplicationType::Incremental);
    assert_eq!(report.disks[0].bytes_equal, ByteSize::ZERO);
    world.assert_replicated(2).await;
}

#[tokio::test]
async fn a_first_copy_compares_nothing() {
    let world = World::new(&[DISK]).await;
    let report = world.run_as(&request(&world, TrustPolicy::AlwaysCompare), &Silent).await.unwrap();
    assert_eq!(report.disks[0].bytes_equal, ByteSize::ZERO);
    world.assert_replicated(1).await;
}

#[tokio::test]
async fn l11_a_comparison_that_fails_commits_nothing_and_the_next_run_mends() {
    let world = replicated().await;
    world.source.reset_tracking(&world.vm, &key(DISK));
    let faults = world.source.faults(&key(DISK));
    faults.fail_reads_in(Extent::new(1 << 19, 1).unwrap());
    let failed = world.run().await;
    assert!(!failed.outcome.is_completed());
    assert_eq!(world.disks().await[0].epoch, Epoch(1));
    faults.clear();
    assert!(world.run().await.outcome.is_completed());
    world.assert_replicated(2).await;
}

#[tokio::test]
async fn l12_killed_at_any_event_of_a_repair_the_next_run_completes_it_and_copies_no_more_than_differs() {
    let mut nth = 1;
    loop {
        let world = Arc::new(replicated().await);
        for offset in [64 << 10, 600_000, 1 << 20, 2_500_000] {
            damage(&world, offset);
        }
        if !crash_as(&world, "any", nth, request(&world, TrustPolicy::AlwaysCompare)).await {
            break;
        }
        if world.disks().await[0].epoch == Epoch(1) {
            let report = world.run_as(&request(&world, TrustPolicy::AlwaysCompare), &Silent).await.unwrap();
            assert!(report.outcome.is_completed(), "event {nth}: {report:?}");
            assert!(report.disks[0].bytes_written.bytes() <= 40_000, "event {nth}: {report:?}");
        }
        world.assert_consistent(2).await;
        nth += 1;
    }
    assert!(nth > 15, "only {nth} events");
}

fn policies() -> impl Strategy<Value = TrustPolicy> {
    prop_oneof![
        Just(TrustPolicy::AlwaysCompare),
        (1u16..=1000).prop_map(|permille| TrustPolicy::SpotCheck { permille }),
        Just(TrustPolicy::Trust),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    /// Whatever the volume holds, whoever wrote it, wherever a run died: afterwards it is the source.
    #[test]
    fn l09_a_repaired_volume_is_the_source_whatever_it_held(
        foreign in prop::collection::vec((0u64..4_000_000, 1usize..190_000, any::<u8>()), 0..6),
        guest in prop::collection::vec((0u64..4_000_000, 1usize..190_000, any::<u8>()), 0..4),
        reset in any::<bool>(),
        policy in policies(),
        dies in 0usize..60,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let world = Arc::new(World::new(&[DISK]).await);
            world.run().await;
            let target = world.target(DISK).await;
            for (offset, length, byte) in foreign {
                target.write_at(offset, Bytes::from(vec![byte; length]), Durability::Cached).await.unwrap();
            }
            for (offset, length, seed) in guest {
                world.write(DISK, offset, length, seed).await;
            }
            if reset {
                world.source.reset_tracking(&world.vm, &key(DISK));
            }
            let request = request(&world, policy);
            if dies > 0 && crash_as(&world, "any", dies, request.clone()).await {
                world.source.forget_points();
            }
            if world.disks().await[0].epoch == Epoch(1) {
                let report = world.run_as(&request, &Silent).await.unwrap();
                assert!(report.outcome.is_completed(), "{report:?}");
            }
            world.assert_consistent(2).await;
        });
    }
}

/// The world after a run that copied and died of a flush that failed, on volumes whose hashes are read like that. Its source then loses its point in time and resets its tracking, so that hashes are compared.
async fn after_a_failed_flush(manner: ReadManner) -> World {
    let world = replicated().await;
    let faults = world.backend.faults(&key(DISK));
    faults.fail_as(ErrorKind::Unavailable, Retry::Never);
    faults.fail_nth(crate::memory::DeviceCall::Flush, 1);
    assert!(!world.run().await.outcome.is_completed());
    faults.clear();
    faults.hash_as(manner);
    world.source.forget_points();
    world.source.reset_tracking(&world.vm, &key(DISK));
    world
}

#[tokio::test]
async fn l14_after_a_failed_flush_nothing_read_through_the_cache_counts_as_equal() {
    let world = after_a_failed_flush(ReadManner::ThroughCache).await;
    let report = world.run().await;
    assert!(report.outcome.is_completed(), "{report:?}");
    let disk = &report.disks[0];
    assert!(disk.bytes_equal == ByteSize::ZERO && disk.bytes_written.bytes() >= 1_300_000, "{disk:?}");
    world.assert_replicated(2).await;
}

/// What differs within a leaf is looked at through the page cache, which may hold what the device lost.
#[tokio::test]
async fn l14_after_a_failed_flush_a_leaf_that_differs_on_the_device_is_copied_whole() {
    let world = after_a_failed_flush(ReadManner::PastCache).await;
    damage(&world, 0);
    let report = world.run().await;
    assert!(report.outcome.is_completed(), "{report:?}");
    let disk = &report.disks[0];
    assert!(disk.bytes_equal > ByteSize::ZERO && disk.bytes_equal.bytes().is_multiple_of(LEAF), "{disk:?}");
    assert_eq!(disk.bytes_equal + disk.bytes_written + disk.bytes_zero, disk.capacity, "{disk:?}");
    world.assert_replicated(2).await;
}

#[tokio::test]
async fn what_is_read_through_the_cache_counts_as_equal_on_a_volume_that_was_left_flushed() {
    let world = replicated().await;
    world.backend.faults(&key(DISK)).hash_as(ReadManner::ThroughCache);
    world.source.reset_tracking(&world.vm, &key(DISK));
    assert_repaired(&world.run().await);
    world.assert_replicated(2).await;
}

#[tokio::test]
async fn what_lies_in_memory_alone_counts_as_equal_whoever_wrote_it() {
    let world = replicated().await;
    damage(&world, 1 << 20);
    assert_repaired(&world.run().await);
}

/// A run that dies right after its plan leaves a journal that is right: what is finished is durable, and the volume in mid-epoch.
#[tokio::test]
async fn l12_what_is_found_equal_is_durable_and_the_volume_marked_before_anything_is_written() {
    let world = replicated().await;
    world.source.reset_tracking(&world.vm, &key(DISK));
    let (target, store) = (world.target(DISK).await, world.store.clone());
    let disk = world.disk(DISK).await.unwrap().disk;
    // What the volume holds already, written once more and not flushed.
    let old = target.bytes();
    let device = target.clone();
    let writes = Acting::at("begins plan", 1, move || {
        let bytes = Bytes::copy_from_slice(&old[..65_536]);
        now(device.write_at(0, bytes, Durability::Cached)).unwrap();
    });
    let seen = Arc::new(AtomicUsize::new(0));
    let looks = {
        let (seen, target) = (Arc::clone(&seen), target.clone());
        Acting::at("planned", 1, move || {
            let volume = now(store.volume_of(&disk)).unwrap().unwrap();
            assert_eq!(volume.content, VolumeContent::Inconsistent);
            assert!(target.unflushed().is_empty(), "it would be lost with the power");
            seen.store(1, Ordering::SeqCst);
        })
    };
    let report = world.run_as(&world.request(), &Both(writes, looks)).await.unwrap();
    assert_repaired(&report);
    assert_eq!(seen.load(Ordering::SeqCst), 1);
}

/// Tells two listeners.
#[derive(Debug)]
struct Both<A, B>(A, B);

impl<A: Progress, B: Progress> Progress for Both<A, B> {
    fn event(&self, event: Event<'_>) {
        self.0.event(event);
        self.1.event(event);
    }
}
