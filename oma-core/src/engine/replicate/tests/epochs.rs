//! Runs that reach their end: what they copy, and when they trust what.

use futures_util::stream::BoxStream;

use super::*;
use crate::Generation;
use crate::record::{CbtRecord, CommittedChange, DiskAttempt, EpochCommit};
use crate::traits::ChangeIdRepo;

#[tokio::test]
async fn a_full_run_then_only_the_changes() {
    let world = World::new(&["disk-2000"]).await;
    let first = world.run().await;
    assert!(first.outcome.is_completed());
    assert_eq!((first.epoch, first.replication_type), (Epoch(1), ReplicationType::Initial));
    assert!(first.disks[0].change_id.is_some());
    world.assert_replicated(1).await;

    world.write("disk-2000", 3 << 20, 70_000, 9).await;
    let second = world.run().await;
    assert_eq!((second.epoch, second.replication_type), (Epoch(2), ReplicationType::Incremental));
    assert_eq!(second.disks[0].bytes_read, ByteSize::new(70_000));
    assert_eq!(second.disks[0].bytes_skipped, ByteSize::new(CAPACITY.bytes() - 70_000));
    world.assert_replicated(2).await;
}

#[tokio::test]
async fn a_run_without_changes_still_makes_an_epoch() {
    let world = World::new(&["disk-2000"]).await;
    world.run().await;
    let report = world.run().await;
    assert_eq!((report.epoch, report.disks[0].bytes_read), (Epoch(2), ByteSize::ZERO));
    world.assert_replicated(2).await;
}

#[tokio::test]
async fn l08_one_failed_disk_and_no_change_id_moves() {
    let world = World::new(&["disk-2000", "disk-2001"]).await;
    world.run().await;
    let before = world.change_ids().await;
    world.write("disk-2000", 0, 100_000, 7).await;
    world.write("disk-2001", 1 << 20, 100_000, 7).await;
    world.source.faults(&key("disk-2001")).fail_as(ErrorKind::Unavailable, Retry::Never);
    world.source.faults(&key("disk-2001")).fail_reads_in(Extent::new(1 << 20, 1).unwrap());
    let report = world.run().await;
    assert_eq!(failure(&report).kind(), ErrorKind::Unavailable);
    assert!(report.disks[1].error.is_some());
    assert!(report.disks.iter().all(|disk| disk.change_id.is_none()));
    assert_eq!(world.change_ids().await, before);
    assert_eq!(world.jobs().await[0].status, JobStatus::Failed);

    world.source.faults(&key("disk-2001")).clear();
    world.run().await;
    world.assert_replicated(2).await;
}

#[tokio::test]
async fn the_next_job_continues_from_the_journal_of_a_failed_one() {
    let world = World::new(&["disk-2000"]).await;
    world.source.faults(&key("disk-2000")).fail_as(ErrorKind::Corrupt, Retry::Never);
    world.source.faults(&key("disk-2000")).fail_reads_in(Extent::new(2 << 20, 1).unwrap());
    failure(&world.run().await);
    let synced = world.disks().await[0].bytes_synced;
    assert!(synced >= ByteSize::kib(400), "{synced}");
    world.source.faults(&key("disk-2000")).clear();
    let second = world.run().await;
    assert_eq!(second.disks[0].bytes_resumed, synced);
    assert_eq!(world.jobs().await.len(), 2);
    world.assert_replicated(1).await;
}

#[tokio::test]
async fn l04_reordered_added_and_removed_disks_never_redirect_data() {
    let world = World::new(&["disk-2001", "disk-2000"]).await;
    world.run().await;
    let volume = world.volume("disk-2001").await.id;
    world.source.remove_disk(&world.vm, &key("disk-2000"));
    world.source.add_disk(&world.vm, &key("disk-1999"), CAPACITY);
    world.write("disk-1999", 5, 1000, 3).await;
    world.write("disk-2001", 0, 1000, 4).await;
    let report = world.run().await;
    assert_eq!(report.disks.iter().map(|d| d.key.as_str()).collect::<Vec<_>>(), ["disk-1999", "disk-2001"]);
    assert_eq!(report.replication_type, ReplicationType::Initial, "one disk is new");
    assert_eq!(report.disks[1].mode, ReplicationType::Incremental);
    assert_eq!(world.volume("disk-2001").await.id, volume);
    for disk in ["disk-1999", "disk-2001"] {
        let source = world.source.disk(&world.vm, &key(disk)).unwrap();
        assert!(source.bytes() == world.target(disk).await.bytes());
    }
}

#[tokio::test]
async fn l09_a_volume_that_somebody_wrote_to_is_copied_in_full() {
    let world = World::new(&["disk-2000"]).await;
    world.run().await;
    let device = world.target("disk-2000").await;
    device.write_at(100, Bytes::from_static(b"foreign"), Durability::Durable).await.unwrap();
    let report = world.run().await;
    assert_eq!(report.disks[0].mode, ReplicationType::Initial);
    assert!(report.warnings[0].contains("written by somebody else"), "{:?}", report.warnings);
    world.assert_replicated(2).await;
}

#[tokio::test]
async fn l09_a_volume_that_is_gone_is_made_anew_and_copied_in_full() {
    let world = World::new(&["disk-2000"]).await;
    world.run().await;
    let old = world.volume("disk-2000").await;
    world.backend.lose(&old.id);
    let report = world.run().await;
    assert_eq!(report.disks[0].mode, ReplicationType::Initial);
    assert!(world.volume("disk-2000").await.generation > old.generation);
    world.assert_replicated(2).await;
}

#[tokio::test]
async fn l09_a_reset_of_tracking_is_a_full_copy() {
    let world = World::new(&["disk-2000"]).await;
    world.run().await;
    world.source.reset_tracking(&world.vm, &key("disk-2000"));
    world.write("disk-2000", 0, 1000, 6).await;
    assert_eq!(world.run().await.disks[0].mode, ReplicationType::Initial);
    world.assert_replicated(2).await;
}

#[tokio::test]
async fn l02_a_volume_with_another_owners_mark_is_not_touched() {
    let world = World::new(&["disk-2000"]).await;
    world.run().await;
    let bytes = world.target("disk-2000").await.bytes();
    // Another deployment's records point at the same volume.
    let store = Arc::new(MemoryStore::new(world.clock.clone()));
    let other = World {
        journal: Fragile::new(store.clone()),
        store,
        clock: world.clock.clone(),
        source: world.source.clone(),
        backend: world.backend.clone(),
        config: world.config,
        vm: world.vm.clone(),
    };
    assert_ne!(world.store.instance().await.unwrap(), other.store.instance().await.unwrap());
    let volume = world.volume("disk-2000").await;
    let tag =
        VolumeTag { instance: InstanceId::mint(), disk: volume.disk.clone(), generation: volume.generation };
    let error = world.backend.open(&volume.id, &tag, Access::ReadWrite).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PermissionDenied);
    other.run().await;
    assert_ne!(other.volume("disk-2000").await.id, volume.id);
    assert!(world.target("disk-2000").await.bytes() == bytes);
}

#[tokio::test]
async fn l13_a_disk_that_grew_gets_a_larger_volume() {
    let world = World::new(&["disk-2000"]).await;
    world.run().await;
    let volume = world.volume("disk-2000").await.id;
    world.source.grow_disk(&world.vm, &key("disk-2000"), ByteSize::mib(6)).unwrap();
    world.write("disk-2000", 5 << 20, 1000, 3).await;
    assert_eq!(world.run().await.disks[0].mode, ReplicationType::Incremental);
    let after = world.volume("disk-2000").await;
    assert_eq!((after.id, after.capacity), (volume, ByteSize::mib(6)));
    world.assert_replicated(2).await;
}

/// A disk with an epoch that grew since by data which its change tracking does not tell.
async fn grown() -> Arc<World> {
    let world = Arc::new(World::new(&["disk-2000"]).await);
    world.run().await;
    world.source.grow_disk_unseen(&world.vm, &key("disk-2000"), ByteSize::mib(6)).unwrap();
    world
}

#[tokio::test]
async fn l13_what_a_disk_has_grown_by_is_copied_though_the_source_does_not_tell_of_it() {
    let world = grown().await;
    let report = world.run().await;
    let disk = &report.disks[0];
    assert_eq!((disk.mode, disk.bytes_written), (ReplicationType::Incremental, ByteSize::mib(2)));
    world.assert_replicated(2).await;
}

#[tokio::test]
async fn l13_what_a_disk_has_grown_by_is_copied_though_its_volume_was_large_enough_before() {
    let backend = Arc::new(MemoryBackend::new().with_granule(ByteSize::mib(16)));
    let world = World { backend, ..World::new(&["disk-2000"]).await };
    world.run().await;
    let volume = world.volume("disk-2000").await;
    assert_eq!(volume.capacity, ByteSize::mib(16));
    let source = world.source.grow_disk_unseen(&world.vm, &key("disk-2000"), ByteSize::mib(6)).unwrap();
    let report = world.run().await;
    let disk = &report.disks[0];
    assert_eq!((disk.mode, disk.bytes_written), (ReplicationType::Incremental, ByteSize::mib(2)));
    let (source, target) = (source.bytes(), world.target("disk-2000").await.bytes());
    assert!(source == target[..source.len()]);
}

#[tokio::test]
async fn l13_what_a_disk_has_grown_by_is_copied_wherever_the_run_before_died() {
    let mut nth = 1;
    loop {
        let world = grown().await;
        if !interrupted::crash(&world, nth).await {
            break;
        }
        if world.disks().await[0].epoch == Epoch(1) {
            assert!(world.run().await.outcome.is_completed(), "event {nth}");
        }
        world.assert_consistent(2).await;
        nth += 1;
    }
    assert!(nth > 15, "only {nth} events");
}

#[tokio::test]
async fn the_history_counts_all_runs_of_an_epoch() {
    let world = Arc::new(World::new(&["disk-2000"]).await);
    world.run().await;
    world.write("disk-2000", 0, 2 << 20, 9).await;
    assert!(interrupted::crash_at(&world, "recorded", 2).await);
    let report = world.run().await;
    assert!(report.disks[0].bytes_written < ByteSize::mib(2), "{report:?}");
    let history: Vec<_> = world.store.history(&world.disks().await[0].disk).try_collect().await.unwrap();
    assert_eq!(history[0].bytes_transferred, ByteSize::mib(2), "{history:?}");
}

#[tokio::test]
async fn l14_a_difference_found_by_verification_commits_nothing_and_the_next_run_mends_it() {
    let world = World::new(&["disk-2000"]).await;
    let request = ReplicateRequest { verify: VerifyLevel::Full, ..world.request() };
    let report =
        world.run_as(&request, &Acting::at("begins verify", 1, || damage(&world, 8192))).await.unwrap();
    let error = failure(&report);
    assert_eq!(error.kind(), ErrorKind::Mismatch);
    assert!(error.chain().contains("8192+4096"), "{}", error.chain());
    assert_eq!(world.change_ids().await, [None]);
    let stored = world.store.report_of(&report.job).await.unwrap().unwrap();
    assert_eq!(Some(&stored), report.verification.as_ref());
    assert_eq!(
        stored.report.disks[0].differences.iter().collect::<Vec<_>>(),
        [Extent::new(8192, 4096).unwrap()]
    );
    // Its mark is that of its record: who looks before the next run can.
    let (services, stop) = (world.services().0, CancellationToken::new());
    let looked = verify(&services, &world.config, &VerifyRequest::new(world.vm.clone()), &Silent, &stop)
        .await
        .unwrap();
    assert_eq!(looked.report.disks[0].differences, stored.report.disks[0].differences);
    let second = world.run_as(&request, &Silent).await.unwrap();
    assert_eq!(
        (second.disks[0].mode, second.disks[0].bytes_resumed),
        (ReplicationType::Initial, ByteSize::ZERO)
    );
    assert_eq!(second.disks[0].bytes_verified, Some(CAPACITY));
    world.assert_replicated(1).await;
}

#[tokio::test]
async fn verification_without_a_job_names_what_differs_and_changes_nothing() {
    let world = World::new(&["disk-2000"]).await;
    world.run().await;
    damage(&world, 4096 * 5);
    let (services, _) = world.services();
    let stop = CancellationToken::new();
    let request = VerifyRequest::new(world.vm.clone());
    let found = verify(&services, &world.config, &request, &Silent, &stop).await.unwrap().report;
    let differences: Vec<_> = found.disks[0].differences.iter().map(<(u64, u64)>::from).collect();
    assert_eq!((found.disks[0].covered(), differences), (CAPACITY, vec![(4096 * 5, 4096)]));
    assert_eq!((found.epoch, found.is_identical(), found.job), (Some(Epoch(1)), false, None));
    assert_eq!(world.jobs().await.len(), 1);
    assert!(world.source.points().is_empty());
}

#[tokio::test]
async fn l12_a_volume_is_marked_before_its_first_write() {
    let world = World::new(&["disk-2000"]).await;
    let marked = AtomicUsize::new(0);
    let look = Acting::at("copied", 1, || {
        assert_eq!(now(world.volume("disk-2000")).content, VolumeContent::Inconsistent);
        marked.fetch_add(1, Ordering::SeqCst);
    });
    world.run_as(&world.request(), &look).await.unwrap();
    assert_eq!(marked.load(Ordering::SeqCst), 1);
    world.assert_replicated(1).await;
}

#[tokio::test]
async fn l14_each_level_compares_what_it_says_and_its_report_is_stored_with_the_job() {
    let world = World::new(&["disk-2000", "disk-2001"]).await;
    world.run().await;
    let leaves = SampleSize::Leaves(5);
    for (level, compared) in [
        (VerifyLevel::None, None),
        (VerifyLevel::Sample(leaves), Some(5 * LEAF)),
        (VerifyLevel::Sample(SampleSize::Permille(1000)), Some(CAPACITY.bytes())),
        (VerifyLevel::Changed, Some(10_000)),
        (VerifyLevel::Full, Some(CAPACITY.bytes())),
    ] {
        world.write("disk-2000", 3 << 20, 10_000, 3).await;
        let request = ReplicateRequest { verify: level, ..world.request() };
        let report = world.run_as(&request, &Silent).await.unwrap();
        assert!(report.outcome.is_completed(), "{level:?}");
        assert_eq!(report.disks[0].bytes_verified, compared.map(ByteSize::new), "{level:?}");
        let stored = world.store.report_of(&report.job).await.unwrap();
        assert_eq!(stored, report.verification);
        assert_eq!(stored.is_some(), level != VerifyLevel::None);
        let Some(stored) = stored.map(|sealed| sealed.report) else { continue };
        assert_eq!((stored.job.as_ref(), stored.epoch), (Some(&report.job), Some(report.epoch)));
        assert_eq!((stored.disks.len(), stored.is_identical()), (2, true));
        let disk = &stored.disks[0];
        assert_eq!(Some(&disk.change_id), report.disks[0].change_id.as_ref());
        assert_eq!(disk.source_root, disk.target_root);
        assert_eq!(Some(disk.covered()), report.disks[0].bytes_verified);
        let is_whole = matches!(compared, Some(compared) if compared == CAPACITY.bytes());
        assert_eq!(disk.source_root.is_some(), is_whole, "{level:?}");
    }
}

#[tokio::test]
async fn l14_what_both_sides_only_promise_to_be_zero_does_not_count_as_compared() {
    let mut world = World::new(&["disk-2000"]).await;
    for trust_zeroes in [true, false] {
        world.config.trust_zeroes = trust_zeroes;
        let request = ReplicateRequest { verify: VerifyLevel::Full, ..world.request() };
        let report = world.run_as(&request, &Silent).await.unwrap().verification.unwrap().report;
        let disk = &report.disks[0];
        // Of 4 MiB, 1.3 MB have data.
        let promised = disk.promised_zero.unwrap().bytes();
        assert_eq!(promised > CAPACITY.bytes() / 2, trust_zeroes, "{disk:?}");
        assert_eq!((promised > 0, disk.compared.bytes() + promised), (trust_zeroes, CAPACITY.bytes()));
    }
}

#[tokio::test]
async fn the_root_of_a_report_is_that_of_the_disk() {
    let world = World::new(&["disk-2000"]).await;
    let request = ReplicateRequest { verify: VerifyLevel::Full, ..world.request() };
    let report = world.run_as(&request, &Silent).await.unwrap();
    let reported = report.verification.unwrap().report.disks[0].source_root;
    for device in [world.source.disk(&world.vm, &key("disk-2000")).unwrap(), world.target("disk-2000").await]
    {
        let device: Arc<dyn BlockDevice> = Arc::new(device);
        let root = tree_root(&device, CAPACITY, &world.config, &CancellationToken::new()).await.unwrap();
        assert_eq!(Some(root), reported);
        let larger = tree_root(&device, ByteSize::gib(1), &world.config, &CancellationToken::new()).await;
        assert_eq!(larger.unwrap_err().kind(), ErrorKind::Invalid);
    }
}

#[tokio::test]
async fn l14_a_difference_counts_though_another_disk_could_not_be_compared() {
    let world = World::new(&["disk-2000", "disk-2001"]).await;
    let request = ReplicateRequest { verify: VerifyLevel::Full, ..world.request() };
    let faults = world.source.faults(&key("disk-2001"));
    let spoil = || {
        damage(&world, 8192);
        faults.fail_reads_in(Extent::new(0, 1).unwrap());
    };
    let report = world.run_as(&request, &Acting::at("begins verify", 1, spoil)).await.unwrap();
    assert_eq!(failure(&report).kind(), ErrorKind::Mismatch);
    faults.clear();
    assert!(world.run().await.outcome.is_completed());
    world.assert_replicated(1).await;
}

/// Commits, and answers with an error.
#[derive(Debug)]
struct LostAnswer(Arc<MemoryStore>, ErrorKind);

#[async_trait::async_trait]
impl ChangeIdRepo for LostAnswer {
    async fn current(
        &self,
        disk: &DiskRef,
        generation: Generation,
        endpoint: &Endpoint,
    ) -> Result<Option<CommittedChange>> {
        self.0.current(disk, generation, endpoint).await
    }

    async fn begin(&self, lease: &Lease, attempt: &DiskAttempt) -> Result<()> {
        ChangeIdRepo::begin(&*self.0, lease, attempt).await
    }

    async fn commit_epoch(&self, lease: &Lease, commit: &EpochCommit) -> Result<()> {
        self.0.commit_epoch(lease, commit).await?;
        Err(Error::new(self.1, "commit epoch", &lease.job))
    }

    fn history(&self, disk: &DiskRef) -> BoxStream<'_, Result<CbtRecord>> {
        self.0.history(disk)
    }
}

#[tokio::test]
async fn l08_an_epoch_that_is_committed_is_reported_so_though_the_answer_was_lost() {
    let world = World::new(&["disk-2000"]).await;
    let report = run_whose_commit_answers(&world, ErrorKind::Unavailable).await.unwrap();
    assert!(report.outcome.is_completed(), "{report:?}");
    world.assert_replicated(1).await;
}

/// Whoever took the job over may have committed another point in time.
#[tokio::test]
async fn l16_a_run_that_was_fenced_off_at_its_commit_reports_no_epoch() {
    let world = World::new(&["disk-2000"]).await;
    let fenced = run_whose_commit_answers(&world, ErrorKind::Fenced).await;
    assert_eq!(fenced.unwrap_err().kind(), ErrorKind::Fenced);
}

async fn run_whose_commit_answers(world: &World, kind: ErrorKind) -> Result<Report> {
    let (services, _) = world.services();
    let services = Services { change_ids: Arc::new(LostAnswer(world.store.clone(), kind)), ..services };
    let replicator = Replicator::new(services, worker("appliance"), world.config);
    replicator.run(&world.request(), &Silent, &CancellationToken::new()).await
}

/// In pull mode the engine is the only writer: whoever connects may look.
#[tokio::test]
async fn l06_the_export_of_a_volume_that_is_copied_cannot_be_written() {
    let world = World::new(&["disk-2000"]).await;
    let (services, server) = world.services();
    let uuid = crate::InstanceUuid::from_path(&world.vm);
    let name = crate::ExportName::for_disk(&uuid, &key("disk-2000")).unwrap();
    let looked = Arc::new(AtomicUsize::new(0));
    let looks = {
        let looked = Arc::clone(&looked);
        Acting::at("copied", 1, move || {
            assert_eq!(server.connect(&name).unwrap().info().access, Access::ReadOnly);
            looked.store(1, Ordering::SeqCst);
        })
    };
    let replicator = Replicator::new(services, worker("appliance"), world.config);
    let report = replicator.run(&world.request(), &looks, &CancellationToken::new()).await.unwrap();
    assert!(report.outcome.is_completed() && looked.load(Ordering::SeqCst) == 1);
}
