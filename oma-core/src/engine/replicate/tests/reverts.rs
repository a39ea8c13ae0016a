//! Going back to recovery points: whatever failed or crashed, nothing is taken for an epoch that is none.

use super::interrupted::crash_as;
use super::points::{DISKS, Epochs, three_epochs};
use super::shaky::{Moments, Trouble, flipping, troubled};
use super::*;
use crate::RecoveryPointId;
use crate::engine::{delete_point, revert, verify};
use crate::record::RecoveryPoint;
use crate::state::JobKind;
use crate::traits::{BackendCapabilities, ChangeIdRepo, Snapshots};

impl World {
    async fn revert(&self, services: &Services, point: &RecoveryPointId) -> Result<RecoveryPoint> {
        self.clock.advance(Duration::from_secs(1));
        revert(services, &worker("appliance"), &self.config, point, &CancellationToken::new()).await
    }
}

#[tokio::test]
async fn l09_after_a_revert_no_change_id_is_trusted_and_the_next_epoch_is_right() {
    let (world, mut epochs) = three_epochs().await;
    let (services, _) = world.services();
    let point = world.ready().await[1].clone();
    world.revert(&services, &point.id).await.unwrap();
    for (name, held) in DISKS.iter().zip(&epochs[&2]) {
        assert!(world.target(name).await.bytes() == *held, "{name}");
        let volume = world.volume(name).await;
        assert_eq!(volume.content, VolumeContent::Epoch(Epoch(2)));
        let endpoint = Endpoint::parse("vcenter").unwrap();
        let trusted = ChangeIdRepo::current(&*world.store, &volume.disk, volume.generation, &endpoint).await;
        assert_eq!(trusted.unwrap(), None);
    }
    assert_eq!(world.jobs().await[0].status, JobStatus::Cancelled);
    world.write("disk-2000", 600_000, 1000, 4).await;
    let report = world.epoch(2, &mut epochs).await;
    assert!(report.disks[0].bytes_equal > ByteSize::ZERO, "hashes were compared");
    world.assert_replicated(4).await;
    world.assert_points(&epochs).await;
}

#[tokio::test]
async fn a_revert_is_refused_while_a_job_lives_and_where_the_volume_is_another() {
    let world = Arc::new(three_epochs().await.0);
    let (services, _) = world.services();
    let id = world.ready().await[0].id.clone();
    assert!(crash_as(&world, "begins copy", 1, world.with_points(2)).await);
    let refused = world.revert(&services, &id).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Conflict, "{}", refused.chain());
    let unknown = world.revert(&services, &RecoveryPointId::mint()).await.unwrap_err();
    assert_eq!(unknown.kind(), ErrorKind::NotFound);
    world.source.forget_points();
    world.backend.lose(&world.volume("disk-2001").await.id);
    world.run().await;
    let before = world.target("disk-2000").await.bytes();
    let refused = world.revert(&services, &id).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Conflict, "{}", refused.chain());
    assert!(world.target("disk-2000").await.bytes() == before, "nothing was touched");
    assert_eq!(world.volume("disk-2000").await.content, VolumeContent::Epoch(Epoch(4)));
}

#[tokio::test]
async fn l12_a_revert_that_cannot_be_made_leaves_every_volume_as_it_was() {
    let (world, epochs) = three_epochs().await;
    let (services, _) = world.services();
    let (first, before) = (world.ready().await.last().unwrap().clone(), world.change_ids().await);
    let disks = world.disks().await;
    let last = world.volume(disks.last().unwrap().disk.key.as_str()).await;
    let tag = world.backend.get(&last.id).await.unwrap().unwrap().tag.unwrap();
    // Somebody reads one of the volumes, as a verification does.
    let reader = world.backend.open(&last.id, &tag, Access::ReadOnly).await.unwrap();
    assert_eq!(world.revert(&services, &first.id).await.unwrap_err().kind(), ErrorKind::Busy);
    drop(reader);
    for disk in &disks {
        let volume = world.volume(disk.disk.key.as_str()).await;
        assert!(matches!(volume.content, VolumeContent::Epoch(_)), "{volume:?}");
    }
    assert_eq!(world.change_ids().await, before);
    world.assert_points(&epochs).await;
    world.revert(&services, &first.id).await.unwrap();
}

#[tokio::test]
async fn a_revert_to_a_point_without_a_disk_that_was_added_since_is_refused() {
    let (world, _) = three_epochs().await;
    let id = world.ready().await[0].id.clone();
    world.source.add_disk(&world.vm, &key("disk-2002"), CAPACITY);
    world.run().await;
    let (services, _) = world.services();
    let refused = world.revert(&services, &id).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Conflict, "{}", refused.chain());
    assert!(refused.chain().contains("disk-2002"), "{}", refused.chain());
    world.assert_replicated(4).await;
}

#[tokio::test]
async fn l15_a_revert_in_trouble_at_any_moment_is_never_taken_for_an_epoch() {
    for trouble in [Trouble::Death, Trouble::Failure] {
        let mut nth = 1;
        loop {
            let (world, mut epochs) = three_epochs().await;
            let world = Arc::new(world);
            let id = world.ready().await[1].id.clone();
            let moments = Moments::new(nth, trouble);
            let (services, reverting) = (troubled(&world, &moments), world.clone());
            let task = tokio::spawn(async move { reverting.revert(&services, &id).await });
            let outcome = task.await;
            if !moments.has_come() {
                break;
            }
            let done = outcome.is_ok_and(|answer| answer.is_ok());
            assert!(!done, "{trouble:?} {nth}");
            let contents: Vec<_> =
                [world.volume(DISKS[0]).await.content, world.volume(DISKS[1]).await.content].into();
            let torn = [VolumeContent::Inconsistent; 2];
            let held = [VolumeContent::Epoch(Epoch(2)); 2];
            assert!(contents == torn || contents == held, "{trouble:?} {nth}: {contents:?}");
            if trouble == Trouble::Death {
                world.go_on_reverting(nth % 2, &epochs).await;
            }
            world.write("disk-2000", 700_000, 1000, 4).await;
            let epoch = world.epoch(2, &mut epochs).await.epoch.0;
            world.assert_replicated(epoch).await;
            world.assert_points(&epochs).await;
            nth += 1;
        }
        assert!(nth > 6, "only {nth} moments");
    }
}

/// Two epochs of a backend whose snapshots are copies, and the recovery point of the first.
pub(super) async fn by_copy() -> (World, Epochs, RecoveryPointId) {
    let by_copy = BackendCapabilities { snapshots: Snapshots::ByCopy, ..MemoryBackend::new().capabilities() };
    let backend = Arc::new(MemoryBackend::new().with_capabilities(by_copy));
    let (world, mut epochs) = (World { backend, ..World::empty(&DISKS, ByteSize::mib(1)) }, Epochs::new());
    for seed in 1..3 {
        world.write("disk-2001", 300_000, 50_000, seed).await;
        world.epoch(2, &mut epochs).await;
    }
    let id = world.ready().await[1].id.clone();
    (world, epochs, id)
}

#[tokio::test]
async fn l27_a_revert_by_copy_is_compared_with_its_snapshot_before_it_counts() {
    let (world, epochs, id) = by_copy().await;
    for offset in [0, 340_000, (1 << 20) - 1] {
        let refused = world.revert(&flipping(&world, offset), &id).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Mismatch, "{}", refused.chain());
        assert_eq!(world.jobs().await[0].status, JobStatus::Failed);
        for name in DISKS {
            assert_eq!(world.volume(name).await.content, VolumeContent::Inconsistent);
        }
    }
    let (services, _) = world.services();
    world.revert(&services, &id).await.unwrap();
    assert_eq!(world.volume(DISKS[1]).await.content, VolumeContent::Epoch(Epoch(1)));
    assert!(world.target(DISKS[1]).await.bytes() == epochs[&1][1]);
    assert!(!world.backend.is_written(&world.volume(DISKS[1]).await.id));
}

#[tokio::test]
async fn l27_a_revert_by_copy_compares_what_its_volume_has_grown_by_since() {
    let (world, _, id) = by_copy().await;
    for name in DISKS {
        world.source.grow_disk(&world.vm, &key(name), ByteSize::mib(2)).unwrap();
    }
    world.write(DISKS[1], 1_500_000, 1000, 9).await;
    assert!(world.run_as(&world.with_points(3), &Silent).await.unwrap().outcome.is_completed());
    for offset in [1 << 20, (2 << 20) - 1] {
        let refused = world.revert(&flipping(&world, offset), &id).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Mismatch, "{}", refused.chain());
        assert_eq!(world.volume(DISKS[1]).await.content, VolumeContent::Inconsistent);
    }
    world.revert(&world.services().0, &id).await.unwrap();
    let bytes = world.target(DISKS[1]).await.bytes();
    assert!(bytes.len() == 2 << 20 && bytes[1 << 20..].iter().all(|byte| *byte == 0));
}

#[tokio::test]
async fn l14_a_volume_that_was_reverted_can_be_verified() {
    let (world, _) = three_epochs().await;
    let (services, _) = world.services();
    let newest = world.ready().await[0].id.clone();
    world.revert(&services, &newest).await.unwrap();
    let stop = CancellationToken::new();
    let report = verify(&services, &world.config, &VerifyRequest::new(world.vm.clone()), &Silent, &stop)
        .await
        .unwrap();
    assert!(report.report.disks.iter().all(|disk| disk.differences.is_empty()), "{report:?}");
}

#[tokio::test]
async fn a_revert_that_is_stopped_leaves_volumes_that_nobody_believes() {
    let (world, _, id) = by_copy().await;
    let (services, _) = world.services();
    let stop = CancellationToken::new();
    stop.cancel();
    let stopped = revert(&services, &worker("appliance"), &world.config, &id, &stop).await.unwrap_err();
    assert_eq!(stopped.kind(), ErrorKind::Cancelled, "{}", stopped.chain());
    assert_eq!(world.volume(DISKS[0]).await.content, VolumeContent::Inconsistent);
    world.revert(&services, &id).await.unwrap();
    assert_eq!(world.volume(DISKS[0]).await.content, VolumeContent::Epoch(Epoch(1)));
}

impl World {
    /// After a revert that was killed: nothing is replicated, and a revert goes on with its job, or takes its place when it is to go
    /// to another point.
    async fn go_on_reverting(&self, to: usize, epochs: &Epochs) {
        let jobs = self.jobs().await;
        let refused = self.run_as(&self.with_points(2), &Silent).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Conflict, "{}", refused.chain());
        assert!(refused.chain().contains("revert again"), "{}", refused.chain());
        let (services, _) = self.services();
        let point = self.ready().await[to].clone();
        self.revert(&services, &point.id).await.unwrap();
        for (name, held) in DISKS.iter().zip(&epochs[&point.epoch.0]) {
            assert!(self.target(name).await.bytes() == *held, "{name} of epoch {}", point.epoch);
            assert_eq!(self.volume(name).await.content, VolumeContent::Epoch(point.epoch));
        }
        let now = self.jobs().await;
        let left = now.iter().find(|job| job.id == jobs[0].id).unwrap();
        let took_its_place = left.error.as_ref().is_some_and(|error| error.contains("took its place"));
        assert_eq!((now.len() > jobs.len(), took_its_place), (to == 0, to == 0), "{now:?}");
        assert_eq!((now[0].kind, now[0].status), (JobKind::Revert, JobStatus::Cancelled));
    }
}

/// A revert to the newest point that dies once its first volume was reverted.
pub(super) async fn killed_revert(world: &Arc<World>, id: &RecoveryPointId) {
    let moments = Moments::new(2, Trouble::Death);
    let (services, reverting, id) = (troubled(world, &moments), world.clone(), id.clone());
    let task = tokio::spawn(async move { reverting.revert(&services, &id).await });
    assert!(task.await.is_err() && moments.has_come());
}

#[tokio::test]
async fn l16_a_killed_revert_is_taken_over_by_another_worker_once_its_lease_is_over() {
    let (world, epochs) = three_epochs().await;
    let (id, world) = (world.ready().await[1].id.clone(), Arc::new(world));
    killed_revert(&world, &id).await;
    let (services, _) = world.services();
    let other = worker("other");
    let stop = CancellationToken::new();
    let take_over = || revert(&services, &other, &world.config, &id, &stop);
    assert_eq!(take_over().await.unwrap_err().kind(), ErrorKind::Busy);
    let refused = delete_point(&services, &id, "an operator").await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Conflict, "it is gone back to: {}", refused.chain());
    world.clock.advance(world.config.lease * 2);
    take_over().await.unwrap();
    for (name, held) in DISKS.iter().zip(&epochs[&2]) {
        assert!(world.target(name).await.bytes() == *held, "{name}");
    }
    delete_point(&services, &id, "an operator").await.unwrap();
}

#[tokio::test]
async fn a_killed_revert_to_a_point_of_other_disks_gives_way_to_another_one() {
    let (world, mut epochs) = three_epochs().await;
    world.source.remove_disk(&world.vm, &key(DISKS[1]));
    let report = world.run_as(&world.with_points(5), &Silent).await.unwrap();
    assert!(report.recovery_point.is_some(), "{:?}", report.warnings);
    epochs.clear();
    let world = Arc::new(world);
    let ready = world.ready().await;
    assert_eq!((ready[0].volumes.len(), ready[1].volumes.len()), (1, 2));
    killed_revert(&world, &ready[0].id).await;
    let (services, _) = world.services();
    world.revert(&services, &ready[1].id).await.unwrap();
    let jobs = world.jobs().await;
    assert!(jobs[..2].iter().all(|job| job.kind == JobKind::Revert && job.status == JobStatus::Cancelled));
    assert!(jobs[1].error.as_ref().unwrap().contains("took its place"), "{jobs:?}");
    for name in DISKS {
        assert_eq!(world.volume(name).await.content, VolumeContent::Epoch(Epoch(3)));
    }
}

#[tokio::test]
async fn a_killed_revert_is_cancelled_though_its_source_is_dead() {
    let world = Arc::new(three_epochs().await.0);
    let id = world.ready().await[0].id.clone();
    killed_revert(&world, &id).await;
    let job = world.jobs().await[0].id.clone();
    let (services, _) = world.services();
    world.source.disconnect();
    let ended = cancel(&services, &worker("appliance"), &job, "an operator").await.unwrap();
    assert_eq!(ended.status, JobStatus::Cancelled);
    world.source.reconnect();
    world.run().await;
    world.assert_replicated(4).await;
}

/// Whoever has the volume open may be the one that the job was taken from, as when an operator asks twice.
#[tokio::test]
async fn l16_a_revert_that_takes_over_and_finds_a_volume_open_leaves_the_job_for_the_next() {
    let world = Arc::new(three_epochs().await.0);
    let id = world.ready().await[1].id.clone();
    killed_revert(&world, &id).await;
    let (services, last) = (world.services().0, world.volume(DISKS[1]).await.id);
    let tag = world.backend.get(&last).await.unwrap().unwrap().tag.unwrap();
    let open = world.backend.open(&last, &tag, Access::ReadWrite).await.unwrap();
    let busy = world.revert(&services, &id).await.unwrap_err();
    assert_eq!(busy.kind(), ErrorKind::Busy, "{}", busy.chain());
    let left = world.jobs().await[0].clone();
    assert_eq!((left.kind, left.status.is_terminal(), &left.owner), (JobKind::Revert, false, &None));
    drop(open);
    world.revert(&services, &id).await.unwrap();
    let now = world.jobs().await[0].clone();
    assert_eq!((now.id, now.status), (left.id, JobStatus::Cancelled));
}
