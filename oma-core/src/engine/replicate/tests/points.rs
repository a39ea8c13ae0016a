//! Recovery points: each ready one holds exactly its epoch, whatever failed or crashed.

use std::collections::BTreeMap;

use super::interrupted::crash_as;
use super::shaky::{Moments, Trouble, lagging, overtaken, troubled};
use super::*;
use crate::engine::{KeepPoints, delete_point, points};
use crate::record::{JobSpec, PointVolume, RecoveryPoint, RecoveryPointSpec};
use crate::state::PointStatus;
use crate::traits::{BackendCapabilities, RecoveryPoints, SnapshotSpec, Snapshots};
use crate::{JobId, RecoveryPointId, SnapshotId};

pub(super) const DISKS: [&str; 2] = ["disk-2000", "disk-2001"];

/// What each committed epoch held, by disk.
pub(super) type Epochs = BTreeMap<u64, Vec<Vec<u8>>>;

/// The comfort of these tests.
impl World {
    pub(super) fn with_points(&self, last: u32) -> ReplicateRequest {
        let keep = KeepPoints { last: Some(last), younger_than: None };
        ReplicateRequest { points: Some(keep), ..self.request() }
    }

    async fn points(&self) -> Vec<RecoveryPoint> {
        let Some(context) = self.store.by_path(&self.vm).await.unwrap() else { return Vec::new() };
        self.store.points(&context.id).try_collect().await.unwrap()
    }

    pub(super) async fn ready(&self) -> Vec<RecoveryPoint> {
        let points = self.points().await.into_iter();
        points.filter(|point| point.status == PointStatus::Ready).collect()
    }

    fn content(&self) -> Vec<Vec<u8>> {
        DISKS.iter().map(|name| self.source.disk(&self.vm, &key(name)).unwrap().bytes()).collect()
    }

    /// A committed epoch with a point of it.
    pub(super) async fn epoch(&self, last: u32, epochs: &mut Epochs) -> Report {
        let report = self.run_as(&self.with_points(last), &Silent).await.unwrap();
        assert!(report.outcome.is_completed(), "{report:?}");
        assert!(report.recovery_point.is_some(), "{:?}", report.warnings);
        epochs.insert(report.epoch.0, self.content());
        report
    }

    /// Every ready point holds its epoch, byte for byte, in snapshots that are there.
    pub(super) async fn assert_points(&self, epochs: &Epochs) {
        for point in self.ready().await {
            let epoch = &epochs[&point.epoch.0];
            assert_eq!(point.volumes.len(), epoch.len());
            for (volume, held) in point.volumes.iter().zip(epoch) {
                let frozen = self.backend.frozen_device(&volume.snapshot.id);
                let frozen = frozen.unwrap_or_else(|| panic!("the snapshot of {volume:?} is gone")).bytes();
                assert!(frozen[..held.len()] == *held, "{} of epoch {}", volume.key(), point.epoch);
            }
        }
    }

    /// No snapshot is there that no record knows.
    pub(super) async fn assert_nothing_forgotten(&self) {
        let points = self.points().await;
        let known: Vec<_> = points.iter().flat_map(|point| &point.volumes).map(|v| &v.snapshot.id).collect();
        let found = self.backend.frozen();
        let forgotten: Vec<_> = found.iter().filter(|id| !known.contains(id)).collect();
        assert!(forgotten.is_empty(), "{forgotten:?}");
    }

    /// As [`World::assert_nothing_forgotten`], and every point is ready.
    async fn assert_tidy(&self, ready: &[u64]) {
        let points = self.points().await;
        let found: Vec<_> = points.iter().map(|point| (point.epoch.0, point.status)).collect();
        let wanted: Vec<_> = ready.iter().map(|epoch| (*epoch, PointStatus::Ready)).collect();
        assert_eq!(found, wanted);
        self.assert_nothing_forgotten().await;
        assert_eq!(self.backend.frozen().len(), ready.len() * DISKS.len());
    }
}

/// Three epochs with points, of which two are kept.
pub(super) async fn three_epochs() -> (World, Epochs) {
    // Small, for some tests make it a hundred times.
    let (world, mut epochs) = (World::empty(&DISKS, ByteSize::mib(1)), Epochs::new());
    world.write("disk-2000", 0, 100_000, 1).await;
    for seed in 10..13 {
        world.write("disk-2001", u64::from(seed) * 40_000, 50_000, seed).await;
        world.epoch(2, &mut epochs).await;
    }
    (world, epochs)
}

#[tokio::test]
async fn each_epoch_has_a_point_and_only_the_newest_are_kept() {
    let (world, epochs) = three_epochs().await;
    world.assert_points(&epochs).await;
    world.assert_tidy(&[3, 2]).await;
    let report = world.run().await;
    assert_eq!((report.epoch, report.recovery_point), (Epoch(4), None));
    world.assert_points(&epochs).await;
    world.assert_tidy(&[3, 2]).await;
}

#[tokio::test]
async fn points_are_kept_for_a_while() {
    let (world, mut epochs) = (World::new(&DISKS).await, Epochs::new());
    let keep = KeepPoints { last: None, younger_than: Some(Duration::from_secs(3600)) };
    let request = ReplicateRequest { points: Some(keep), ..world.request() };
    for minutes in [0, 20, 30, 20] {
        world.clock.advance(Duration::from_secs(minutes * 60));
        let report = world.run_as(&request, &Silent).await.unwrap();
        epochs.insert(report.epoch.0, world.content());
    }
    world.assert_points(&epochs).await;
    world.assert_tidy(&[4, 3, 2]).await;
    world.clock.advance(Duration::from_secs(1_000_000));
    world.run_as(&request, &Silent).await.unwrap();
    world.assert_tidy(&[5]).await;
}

#[tokio::test]
async fn l12_in_mid_epoch_the_last_point_is_intact_and_cannot_be_deleted() {
    let (world, epochs) = three_epochs().await;
    world.write("disk-2000", 0, 900_000, 77).await;
    let looked = AtomicUsize::new(0);
    let (services, _) = world.services();
    let last = world.ready().await[0].clone();
    let look = Acting::at("copied", 3, || {
        assert_eq!(now(world.volume("disk-2000")).content, VolumeContent::Inconsistent);
        for (volume, held) in last.volumes.iter().zip(&epochs[&3]) {
            let device = now(world.backend.open_snapshot(&volume.snapshot)).unwrap();
            let buffer = bytes::BytesMut::zeroed(held.len());
            assert!(now(device.read_at(0, buffer)).unwrap() == held[..]);
        }
        let deleted = now(delete_point(&services, &last.id, "an operator")).unwrap_err();
        assert_eq!(deleted.kind(), ErrorKind::Conflict, "{}", deleted.chain());
        looked.fetch_add(1, Ordering::SeqCst);
        world.source.faults(&key("disk-2000")).fail_all();
    });
    let report = world.run_as(&world.with_points(1), &look).await.unwrap();
    assert_eq!((failure(&report).kind(), looked.load(Ordering::SeqCst)), (ErrorKind::Unavailable, 1));
    assert_eq!(report.recovery_point, None);
    let deleted = delete_point(&services, &last.id, "an operator").await.unwrap_err();
    assert_eq!(deleted.kind(), ErrorKind::Conflict, "its volumes are torn");
    world.assert_points(&epochs).await;
    world.source.faults(&key("disk-2000")).clear();
    world.run_as(&world.with_points(1), &Silent).await.unwrap();
    world.assert_tidy(&[4]).await;
}

#[tokio::test]
async fn l12_a_backend_without_snapshots_makes_no_point_and_says_so_once() {
    let plain = BackendCapabilities { snapshots: Snapshots::None, ..MemoryBackend::new().capabilities() };
    let backend = Arc::new(MemoryBackend::new().with_capabilities(plain));
    let world = World { backend, ..World::new(&DISKS).await };
    let report = world.run_as(&world.with_points(3), &Silent).await.unwrap();
    assert!(report.outcome.is_completed());
    assert_eq!((report.recovery_point, report.warnings.len()), (None, 1));
    assert!(report.warnings[0].contains("makes no snapshots"), "{:?}", report.warnings);
    world.assert_replicated(1).await;
    assert!(world.points().await.is_empty());
}

#[tokio::test]
async fn l20_snapshots_of_others_are_never_deleted() {
    let (world, mut epochs) = three_epochs().await;
    let mine = world.ready().await[1].volumes[0].snapshot.clone();
    let job = JobId::parse("job-of-another").unwrap();
    // Of another job on the same volume, and one that took an id of ours.
    let other = SnapshotSpec { id: SnapshotId::mint(&job), job: job.clone(), ..mine.clone() };
    let taken = SnapshotSpec { job, ..mine.clone() };
    world.backend.plant(other.clone(), &MemoryDevice::new("other", CAPACITY));
    world.backend.plant(taken, &MemoryDevice::new("taken", CAPACITY));
    for _ in 0..2 {
        let report = world.epoch(1, &mut epochs).await;
        assert!(report.warnings.iter().any(|warning| warning.contains("permission denied")), "{report:?}");
        let frozen = world.backend.frozen();
        assert!(frozen.contains(&other.id) && frozen.contains(&mine.id), "{frozen:?}");
    }
    let left: Vec<_> = world.points().await.iter().map(|point| (point.epoch.0, point.status)).collect();
    assert_eq!(left, [(5, PointStatus::Ready), (2, PointStatus::Deleting)]);
}

/// As a worker that was fenced off among its snapshots makes one, long after its point was given up and forgotten.
#[tokio::test]
async fn l15_a_snapshot_that_came_after_its_record_was_gone_is_deleted_by_the_next_run() {
    let (world, mut epochs) = three_epochs().await;
    let point = world.ready().await[0].clone();
    let kept = &point.volumes[0].snapshot;
    let late = SnapshotSpec { id: SnapshotId::mint(&point.job), ..kept.clone() };
    world.backend.snapshot(&late).await.unwrap();
    // These are not provably ours: of an unknown job, of another VM, of another deployment.
    let job = JobId::parse("job-of-another").unwrap();
    let mut others = vec![SnapshotSpec { id: SnapshotId::mint(&job), job, ..kept.clone() }];
    let mut tag = kept.tag.clone();
    tag.disk.context = crate::ContextId::parse("ctx-of-another").unwrap();
    others.push(SnapshotSpec { id: SnapshotId::mint(&point.job), tag, ..kept.clone() });
    let tag = VolumeTag { instance: InstanceId::parse("another").unwrap(), ..kept.tag.clone() };
    others.push(SnapshotSpec { id: SnapshotId::mint(&point.job), tag, ..kept.clone() });
    for other in &others {
        world.backend.plant(other.clone(), &MemoryDevice::new("other", CAPACITY));
    }
    let report = world.epoch(2, &mut epochs).await;
    assert!(report.warnings.is_empty(), "{:?}", report.warnings);
    let frozen = world.backend.frozen();
    assert!(!frozen.contains(&late.id), "{frozen:?}");
    assert!(others.iter().all(|other| frozen.contains(&other.id)), "{frozen:?}");
    world.assert_points(&epochs).await;
}

/// With points that fill the disk every run fails: one that swept at its end only would never sweep.
#[tokio::test]
async fn a_run_that_fails_has_made_room_before_it_copied() {
    let (world, epochs) = three_epochs().await;
    world.write("disk-2000", 0, 900_000, 77).await;
    let swept = AtomicUsize::new(0);
    let look = Acting::at("begins copy", 1, || {
        assert_eq!(world.backend.frozen().len(), DISKS.len());
        swept.fetch_add(1, Ordering::SeqCst);
    });
    world.source.faults(&key("disk-2000")).fail_all();
    let report = world.run_as(&world.with_points(1), &look).await.unwrap();
    assert_eq!((failure(&report).kind(), swept.load(Ordering::SeqCst)), (ErrorKind::Unavailable, 1));
    world.assert_tidy(&[3]).await;
    world.assert_points(&epochs).await;
}

/// By age too, and by the clock of the records.
#[tokio::test]
async fn points_that_grew_too_old_go_before_the_copy_and_the_newest_stays() {
    let (world, _) = three_epochs().await;
    world.clock.advance(Duration::from_secs(10_000));
    let keep = KeepPoints { last: None, younger_than: Some(Duration::from_secs(3600)) };
    let request = ReplicateRequest { points: Some(keep), ..world.request() };
    let look = Acting::at("begins copy", 1, || assert_eq!(world.backend.frozen().len(), DISKS.len()));
    world.run_as(&request, &look).await.unwrap();
    world.assert_tidy(&[4]).await;
}

#[tokio::test]
async fn l15_a_run_that_is_in_trouble_at_any_moment_of_its_point_leaves_none_that_differs() {
    for trouble in [Trouble::Death, Trouble::Hiccup, Trouble::Failure] {
        let mut nth = 1;
        loop {
            let (world, mut epochs) = three_epochs().await;
            world.write("disk-2000", 200_000, 300_000, 99).await;
            let moments = Moments::new(nth, trouble);
            let services = troubled(&world, &moments);
            let (request, config) = (world.with_points(2), world.config);
            world.clock.advance(Duration::from_secs(1));
            let task = tokio::spawn(async move {
                let replicator = Replicator::new(services, worker("appliance"), config);
                replicator.run(&request, &Silent, &CancellationToken::new()).await
            });
            let outcome = task.await;
            if !moments.has_come() {
                break;
            }
            let held = world.content();
            if let Ok(report) = outcome {
                let report = report.unwrap();
                assert!(report.outcome.is_completed(), "{trouble:?} {nth}: {report:?}");
                if trouble == Trouble::Hiccup && nth < 9 {
                    assert!(report.recovery_point.is_some(), "{trouble:?} {nth}: {:?}", report.warnings);
                }
            }
            world.source.forget_points();
            // The epoch may be committed or not: its point is ready only if it is.
            epochs.insert(4, held);
            let committed = world.disks().await[0].epoch;
            assert!(world.ready().await.iter().all(|point| point.epoch <= committed), "{trouble:?} {nth}");
            world.assert_points(&epochs).await;
            world.assert_nothing_forgotten().await;
            world.write("disk-2001", 500_000, 10_000, 98).await;
            let last = world.epoch(2, &mut epochs).await.epoch.0;
            world.assert_points(&epochs).await;
            world.assert_replicated(last).await;
            assert_eq!(world.points().await.len(), 2, "{trouble:?} {nth}");
            assert!(world.points().await.iter().all(|point| point.status == PointStatus::Ready));
            world.assert_nothing_forgotten().await;
            nth += 1;
        }
        assert!(nth > 16, "only {nth} moments");
    }
}

#[tokio::test]
async fn a_foreign_write_before_the_snapshot_makes_no_point() {
    let (world, epochs) = three_epochs().await;
    let spoil = Acting::at("begins snapshot", 1, || damage(&world, 8192));
    let report = world.run_as(&world.with_points(2), &spoil).await.unwrap();
    assert!(report.outcome.is_completed());
    assert_eq!(report.recovery_point, None);
    assert!(report.warnings[0].contains("somebody else wrote"), "{:?}", report.warnings);
    world.assert_points(&epochs).await;
    world.assert_tidy(&[3, 2]).await;
}

#[tokio::test]
async fn l08_a_point_that_was_taken_is_not_of_what_a_later_run_of_the_job_commits() {
    for points in [None, Some(KeepPoints::default())] {
        let world = Arc::new(World::new(&DISKS).await);
        assert!(crash_as(&world, "begins commit", 1, world.with_points(2)).await);
        assert_eq!(world.points().await[0].status, PointStatus::Taken);
        world.source.forget_points();
        world.write("disk-2001", 0, 700_000, 5).await;
        let request = ReplicateRequest { points, ..world.request() };
        let report = world.run_as(&request, &Silent).await.unwrap();
        assert!(report.outcome.is_completed() && report.epoch == Epoch(1));
        world.assert_points(&Epochs::from([(1, world.content())])).await;
        assert_eq!(world.ready().await.len(), usize::from(points.is_some()));
        world.assert_nothing_forgotten().await;
    }
}

/// Two workers that sweep at once, or one that sweeps while another one commits or an operator deletes.
#[tokio::test]
async fn l12_a_sweep_by_an_old_list_deletes_neither_what_became_ready_since_nor_the_newest() {
    let (world, epochs) = three_epochs().await;
    let (context, listed) = (world.ready().await[0].context.clone(), world.ready().await);
    for status in [PointStatus::Creating, PointStatus::Taken] {
        let earlier = vec![RecoveryPoint { status, ..listed[0].clone() }, listed[1].clone()];
        let left = points::sweep(&lagging(&world, earlier), &context, None, world.clock.now()).await;
        assert_eq!(left.unwrap(), [""; 0]);
        world.assert_tidy(&[3, 2]).await;
    }
    let (services, _) = world.services();
    delete_point(&services, &listed[0].id, "an operator").await.unwrap();
    let keep = Some(KeepPoints { last: Some(1), younger_than: None });
    points::sweep(&lagging(&world, listed), &context, keep, world.clock.now()).await.unwrap();
    world.assert_tidy(&[2]).await;
    world.assert_points(&epochs).await;
}

#[tokio::test]
async fn a_point_that_an_operator_deletes_is_gone_and_the_others_are_not() {
    let (world, epochs) = three_epochs().await;
    let (services, _) = world.services();
    let older = world.ready().await[1].id.clone();
    delete_point(&services, &older, "an operator").await.unwrap();
    world.assert_tidy(&[3]).await;
    world.assert_points(&epochs).await;
    let again = delete_point(&services, &older, "an operator").await.unwrap_err();
    assert_eq!(again.kind(), ErrorKind::NotFound);
}

/// One worker looks for what nobody knows while another one makes a point.
#[tokio::test]
async fn l15_a_snapshot_made_between_both_lists_is_not_forgotten() {
    let world = Arc::new(three_epochs().await.0);
    let last = world.ready().await[0].clone();
    assert!(crash_as(&world, "begins snapshot", 1, world.with_points(2)).await);
    let job = world.jobs().await[0].id.clone();
    let lease = world.store.claim(&job, &worker("appliance"), world.config.lease).await.unwrap();
    let made = |volume: &PointVolume| {
        let id = SnapshotId::mint(&job);
        let snapshot = SnapshotSpec { id, job: job.clone(), ..volume.snapshot.clone() };
        PointVolume { snapshot, ..volume.clone() }
    };
    let volumes = last.volumes.iter().map(made).collect();
    let spec = RecoveryPointSpec { id: RecoveryPointId::mint(), volumes };
    let (other, before) = (world.clone(), world.backend.frozen().len());
    let services = overtaken(&world, move || {
        now(other.store.begin_point(&lease, &spec)).unwrap();
        for volume in &spec.volumes {
            now(other.backend.snapshot(&volume.snapshot)).unwrap();
        }
    });
    let left = points::delete_forgotten(&services, &last.context).await;
    assert_eq!(left.unwrap(), [""; 0]);
    assert_eq!(world.backend.frozen().len(), before + DISKS.len());
}

#[tokio::test]
async fn l20_a_snapshot_that_an_operator_asked_for_is_not_forgotten() {
    let world = three_epochs().await.0;
    let last = world.ready().await[0].volumes[0].snapshot.clone();
    let job = JobId::mint(world.clock.now());
    world.store.insert(JobSpec::operate(job.clone(), last.tag.disk.clone())).await.unwrap();
    let asked = SnapshotSpec { id: SnapshotId::mint(&job), job, ..last.clone() };
    world.backend.snapshot(&asked).await.unwrap();
    let (services, _) = world.services();
    let left = points::delete_forgotten(&services, &last.tag.disk.context).await;
    assert_eq!(left.unwrap(), [""; 0]);
    assert!(world.backend.frozen().contains(&asked.id));
}
