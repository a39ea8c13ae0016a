use super::super::runner::table;
use super::*;
use crate::record::{
    JobEnd, Needless, PointVolume, RecoveryPoint, RecoveryPointSpec, VolumeContent, VolumeFilter, VolumeTag,
};
use crate::state::PointStatus;
use crate::traits::SnapshotSpec;
use crate::{Epoch, InstanceId, RecoveryPointId, SnapshotId};

pub(super) fn cases() -> Vec<Case<StoreSubject>> {
    table![
        a_point_comes_back_as_it_was_begun,
        a_point_that_was_begun_is_idempotent_by_id,
        a_point_is_of_all_disks_of_the_job_or_invalid,
        l20_a_snapshot_of_another_job_is_invalid,
        l15_a_job_that_begins_another_point_gives_up_its_earlier_ones,
        l08_a_job_that_writes_again_gives_up_the_point_that_it_took,
        l16_only_the_holder_of_the_newest_lease_makes_a_point,
        take_is_idempotent_and_is_of_the_job_that_began,
        l08_the_commit_of_its_epoch_makes_a_taken_point_ready,
        l08_a_job_that_fails_makes_no_point_ready,
        a_point_that_was_not_taken_is_not_ready_after_the_commit,
        a_point_is_condemned_then_removed,
        l15_an_unfinished_point_is_condemned_only_when_its_job_has_ended,
        l12_the_newest_ready_point_stays_while_a_job_is_live_or_a_volume_holds_no_epoch,
        l12_a_point_that_was_finished_since_it_was_judged_is_not_condemned_as_unfinished,
        l12_a_policy_never_condemns_one_of_the_newest_ready_points_whatever_was_deleted_since,
        l12_no_ready_point_is_condemned_while_a_job_of_its_vm_reverts,
        points_are_listed_newest_first_by_vm,
        l12_the_newest_point_is_that_of_the_latest_epoch_whatever_its_id,
        a_revert_is_recorded_for_all_volumes_at_once,
        a_revert_to_what_cannot_be_is_refused_and_changes_nothing,
        l08_a_job_that_reverts_makes_no_epoch_and_one_that_replicates_goes_back_to_none,
    ]
}

/// The store with comfort for these tests.
impl StoreSubject {
    /// A point of all disks of a job, to be made.
    async fn point_spec(&self, vm: &VmContext, lease: &Lease) -> RecoveryPointSpec {
        let mut volumes = Vec::new();
        for disk in self.inventory.disks(&vm.id).await.unwrap() {
            let volume = self.volumes.volume_of(&disk.disk).await.unwrap();
            let instance = InstanceId::parse("instance").unwrap();
            let generation = volume.as_ref().map_or(Generation::FIRST, |volume| volume.generation);
            let snapshot = SnapshotSpec {
                id: SnapshotId::mint(&lease.job),
                volume: volume.map_or(VolumeId::parse("vol-none").unwrap(), |volume| volume.id),
                tag: VolumeTag { instance, disk: disk.disk, generation },
                job: lease.job.clone(),
            };
            volumes.push(PointVolume { change_id: change_id("52 3c ec 11/446"), snapshot });
        }
        RecoveryPointSpec { id: RecoveryPointId::mint(), volumes }
    }

    async fn begun(&self, vm: &VmContext, lease: &Lease) -> RecoveryPoint {
        let spec = self.point_spec(vm, lease).await;
        self.points.begin_point(lease, &spec).await.unwrap()
    }

    /// The next epoch of a VM with a point, which is ready.
    async fn epoch_with_point(&self, vm: &VmContext, marker: &str) -> RecoveryPoint {
        self.epoch_with_point_of(vm, marker, RecoveryPointId::mint()).await
    }

    async fn epoch_with_point_of(&self, vm: &VmContext, marker: &str, id: RecoveryPointId) -> RecoveryPoint {
        let lease = self.second_job(vm).await;
        let commit = self.ready_to_commit(vm, &lease, marker).await;
        let spec = RecoveryPointSpec { id, ..self.point_spec(vm, &lease).await };
        let point = self.points.begin_point(&lease, &spec).await.unwrap();
        self.points.take_point(&lease, &point.id).await.unwrap();
        self.change_ids.commit_epoch(&lease, &commit).await.unwrap();
        self.point(&point.id).await
    }

    async fn point(&self, id: &RecoveryPointId) -> RecoveryPoint {
        self.points.point(id).await.unwrap().unwrap()
    }

    async fn status(&self, point: &RecoveryPoint) -> PointStatus {
        self.point(&point.id).await.status
    }
}

async fn a_point_comes_back_as_it_was_begun(store: StoreSubject) {
    let (vm, lease) = store.claimed().await;
    let spec = store.point_spec(&vm, &lease).await;
    assert_eq!(store.points.point(&spec.id).await.unwrap(), None);
    let point = store.points.begin_point(&lease, &spec).await.unwrap();
    assert_eq!((&point.id, &point.volumes, &point.job), (&spec.id, &spec.volumes, &lease.job));
    assert_eq!((&point.context, point.epoch, point.status), (&vm.id, Epoch(1), PointStatus::Creating));
    assert_eq!((&point.reason, point.created_at), (&None, store.clock.now()));
    assert_eq!(store.point(&spec.id).await, point);
}

async fn a_point_that_was_begun_is_idempotent_by_id(store: StoreSubject) {
    let (vm, lease) = store.claimed().await;
    let spec = store.point_spec(&vm, &lease).await;
    let point = store.points.begin_point(&lease, &spec).await.unwrap();
    store.clock.advance(Duration::from_secs(1));
    assert_eq!(store.points.begin_point(&lease, &spec).await.unwrap(), point);
    let other = RecoveryPointSpec { id: spec.id.clone(), ..store.point_spec(&vm, &lease).await };
    assert_kind(store.points.begin_point(&lease, &other).await, ErrorKind::AlreadyExists);
    assert_eq!(store.point(&spec.id).await, point);
}

async fn a_point_is_of_all_disks_of_the_job_or_invalid(store: StoreSubject) {
    let (vm, lease) = store.claimed().await;
    let whole = store.point_spec(&vm, &lease).await;
    let (mut less, mut more, mut other) = (whole.clone(), whole.clone(), whole.clone());
    less.volumes.pop();
    more.volumes.push(more.volumes[0].clone());
    other.volumes[0].snapshot.tag.disk.context = ContextId::parse("ctx-other").unwrap();
    let none = RecoveryPointSpec { volumes: Vec::new(), ..whole.clone() };
    for wrong in [less, more, other, none] {
        assert_kind(store.points.begin_point(&lease, &wrong).await, ErrorKind::Invalid);
    }
    assert_eq!(store.points.point(&whole.id).await.unwrap(), None);
}

async fn l20_a_snapshot_of_another_job_is_invalid(store: StoreSubject) {
    let (vm, lease) = store.claimed().await;
    let mut spec = store.point_spec(&vm, &lease).await;
    spec.volumes[1].snapshot.job = JobId::parse("job-of-another").unwrap();
    assert_kind(store.points.begin_point(&lease, &spec).await, ErrorKind::Invalid);
    assert_eq!(store.points.point(&spec.id).await.unwrap(), None);
}

async fn l15_a_job_that_begins_another_point_gives_up_its_earlier_ones(store: StoreSubject) {
    let (vm, lease) = store.claimed().await;
    let first = store.begun(&vm, &lease).await;
    let second = store.begun(&vm, &lease).await;
    store.points.take_point(&lease, &second.id).await.unwrap();
    let third = store.begun(&vm, &lease).await;
    assert_eq!(store.status(&first).await, PointStatus::Deleting);
    assert_eq!(store.status(&second).await, PointStatus::Deleting);
    assert_eq!(store.status(&third).await, PointStatus::Creating);
    assert_kind(store.points.take_point(&lease, &first.id).await, ErrorKind::Conflict);
}

async fn l08_a_job_that_writes_again_gives_up_the_point_that_it_took(store: StoreSubject) {
    let (vm, lease) = store.claimed().await;
    let commit = store.ready_to_commit(&vm, &lease, "first").await;
    let point = store.begun(&vm, &lease).await;
    store.points.take_point(&lease, &point.id).await.unwrap();
    store.volumes.mark_inconsistent(&lease, &commit.disks[0].volume).await.unwrap();
    assert_eq!(store.status(&point).await, PointStatus::Deleting);
    store.change_ids.commit_epoch(&lease, &commit).await.unwrap();
    assert_eq!(store.status(&point).await, PointStatus::Deleting);
}

async fn l16_only_the_holder_of_the_newest_lease_makes_a_point(store: StoreSubject) {
    let (vm, lease) = store.claimed().await;
    let point = store.begun(&vm, &lease).await;
    let spec = store.point_spec(&vm, &lease).await;
    let newer = store.take_over(&lease).await;
    assert_kind(store.points.begin_point(&lease, &spec).await, ErrorKind::Fenced);
    assert_kind(store.points.take_point(&lease, &point.id).await, ErrorKind::Fenced);
    assert_kind(store.points.reverted_to(&lease, &point.id, &[]).await, ErrorKind::Fenced);
    assert_eq!(store.status(&point).await, PointStatus::Creating);
    store.points.take_point(&newer, &point.id).await.unwrap();
}

async fn take_is_idempotent_and_is_of_the_job_that_began(store: StoreSubject) {
    let (vm, lease) = store.claimed().await;
    let point = store.begun(&vm, &lease).await;
    for _ in 0..2 {
        store.points.take_point(&lease, &point.id).await.unwrap();
        assert_eq!(store.status(&point).await, PointStatus::Taken);
    }
    let other = store.job_of_another_vm().await;
    assert_kind(store.points.take_point(&other, &point.id).await, ErrorKind::NotFound);
    let unknown = RecoveryPointId::mint();
    assert_kind(store.points.take_point(&lease, &unknown).await, ErrorKind::NotFound);
}

async fn l08_the_commit_of_its_epoch_makes_a_taken_point_ready(store: StoreSubject) {
    let (vm, lease) = store.claimed().await;
    let commit = store.ready_to_commit(&vm, &lease, "first").await;
    let given_up = store.begun(&vm, &lease).await;
    let point = store.begun(&vm, &lease).await;
    store.points.take_point(&lease, &point.id).await.unwrap();
    for _ in 0..2 {
        store.change_ids.commit_epoch(&lease, &commit).await.unwrap();
        assert_eq!(store.status(&point).await, PointStatus::Ready);
        assert_eq!(store.status(&given_up).await, PointStatus::Deleting);
    }
}

async fn l08_a_job_that_fails_makes_no_point_ready(store: StoreSubject) {
    let (vm, lease) = store.claimed().await;
    let mut commit = store.ready_to_commit(&vm, &lease, "first").await;
    let point = store.begun(&vm, &lease).await;
    store.points.take_point(&lease, &point.id).await.unwrap();
    commit.disks.pop();
    assert_kind(store.change_ids.commit_epoch(&lease, &commit).await, ErrorKind::Conflict);
    assert_eq!(store.status(&point).await, PointStatus::Taken);
    store.jobs.end(&lease, JobEnd::Failed("why".to_owned())).await.unwrap();
    assert_eq!(store.status(&point).await, PointStatus::Taken);
}

async fn a_point_that_was_not_taken_is_not_ready_after_the_commit(store: StoreSubject) {
    let (vm, lease) = store.claimed().await;
    let commit = store.ready_to_commit(&vm, &lease, "first").await;
    let point = store.begun(&vm, &lease).await;
    store.change_ids.commit_epoch(&lease, &commit).await.unwrap();
    assert_eq!(store.status(&point).await, PointStatus::Creating);
    assert_kind(store.points.take_point(&lease, &point.id).await, ErrorKind::Fenced);
}

async fn a_point_is_condemned_then_removed(store: StoreSubject) {
    let vm = store.replicated().await;
    let point = store.epoch_with_point(&vm, "second").await;
    store.epoch_with_point(&vm, "third").await;
    assert_kind(store.points.remove_point(&point.id).await, ErrorKind::Conflict);
    for reason in ["it is old", "another reason"] {
        store.points.condemn_point(&point.id, Needless::Unwanted, reason).await.unwrap();
        let now = store.point(&point.id).await;
        assert_eq!((now.status, now.reason.as_deref()), (PointStatus::Deleting, Some("it is old")));
    }
    for _ in 0..2 {
        store.points.remove_point(&point.id).await.unwrap();
        assert_eq!(store.points.point(&point.id).await.unwrap(), None);
    }
    assert_kind(store.points.condemn_point(&point.id, Needless::Unwanted, "gone").await, ErrorKind::NotFound);
}

async fn l15_an_unfinished_point_is_condemned_only_when_its_job_has_ended(store: StoreSubject) {
    let (vm, lease) = store.claimed().await;
    let point = store.begun(&vm, &lease).await;
    assert_kind(
        store.points.condemn_point(&point.id, Needless::Unwanted, "in the way").await,
        ErrorKind::Conflict,
    );
    store.points.take_point(&lease, &point.id).await.unwrap();
    assert_kind(
        store.points.condemn_point(&point.id, Needless::Unwanted, "in the way").await,
        ErrorKind::Conflict,
    );
    store.jobs.end(&lease, JobEnd::Failed("why".to_owned())).await.unwrap();
    let next = store.second_job(&vm).await;
    store.points.condemn_point(&point.id, Needless::Unwanted, "left over").await.unwrap();
    assert_eq!(store.status(&point).await, PointStatus::Deleting);
    store.jobs.release(&next).await.unwrap();
}

async fn l12_the_newest_ready_point_stays_while_a_job_is_live_or_a_volume_holds_no_epoch(
    store: StoreSubject,
) {
    let vm = store.replicated().await;
    let older = store.epoch_with_point(&vm, "second").await;
    let newest = store.epoch_with_point(&vm, "third").await;
    let lease = store.second_job(&vm).await;
    assert_kind(store.points.condemn_point(&newest.id, Needless::Unwanted, "old").await, ErrorKind::Conflict);
    store.volumes.mark_inconsistent(&lease, &newest.volumes[1].snapshot.volume).await.unwrap();
    store.jobs.end(&lease, JobEnd::Failed("why".to_owned())).await.unwrap();
    assert_kind(store.points.condemn_point(&newest.id, Needless::Unwanted, "old").await, ErrorKind::Conflict);
    assert_eq!(store.status(&newest).await, PointStatus::Ready);
    store.points.condemn_point(&older.id, Needless::Unwanted, "old").await.unwrap();
    let latest = store.epoch_with_point(&vm, "fifth").await;
    store.points.condemn_point(&newest.id, Needless::Unwanted, "old").await.unwrap();
    store.points.condemn_point(&latest.id, Needless::Unwanted, "every volume holds an epoch").await.unwrap();
}

/// A sweep lists points, then a job commits and ends, then the sweep goes on.
async fn l12_a_point_that_was_finished_since_it_was_judged_is_not_condemned_as_unfinished(
    store: StoreSubject,
) {
    let (vm, lease) = store.claimed().await;
    let commit = store.ready_to_commit(&vm, &lease, "first").await;
    let point = store.begun(&vm, &lease).await;
    store.points.take_point(&lease, &point.id).await.unwrap();
    store.change_ids.commit_epoch(&lease, &commit).await.unwrap();
    let late = store.points.condemn_point(&point.id, Needless::Unfinished, "its job ended").await;
    assert_kind(late, ErrorKind::Conflict);
    assert_eq!(store.status(&point).await, PointStatus::Ready);
}

/// Two sweeps, or a sweep and an operator, at once.
async fn l12_a_policy_never_condemns_one_of_the_newest_ready_points_whatever_was_deleted_since(
    store: StoreSubject,
) {
    let vm = store.replicated().await;
    let mut made = Vec::new();
    for marker in ["second", "third", "fourth"] {
        made.insert(0, store.epoch_with_point(&vm, marker).await);
    }
    let condemn = |at: usize, needless| store.points.condemn_point(&made[at].id, needless, "old");
    for (at, newer) in [(0, 0), (0, 1), (1, 2), (2, 3)] {
        assert_kind(condemn(at, Needless::Behind(newer)).await, ErrorKind::Conflict);
    }
    condemn(0, Needless::Unwanted).await.unwrap();
    assert_kind(condemn(1, Needless::Behind(1)).await, ErrorKind::Conflict);
    assert_kind(condemn(2, Needless::Behind(2)).await, ErrorKind::Conflict);
    condemn(2, Needless::Behind(1)).await.unwrap();
    condemn(2, Needless::Behind(100)).await.unwrap();
    let lease = store.second_job(&vm).await;
    let begun = store.begun(&vm, &lease).await;
    store.jobs.end(&lease, JobEnd::Failed("why".to_owned())).await.unwrap();
    let unready = store.points.condemn_point(&begun.id, Needless::Behind(0), "old").await;
    assert_kind(unready, ErrorKind::Conflict);
    let left = [store.status(&made[1]).await, store.status(&begun).await];
    assert_eq!(left, [PointStatus::Ready, PointStatus::Creating]);
}

/// It may be the one that the volumes go back to.
async fn l12_no_ready_point_is_condemned_while_a_job_of_its_vm_reverts(store: StoreSubject) {
    let vm = store.replicated().await;
    let mut made = Vec::new();
    for marker in ["second", "third"] {
        made.insert(0, store.epoch_with_point(&vm, marker).await);
    }
    let lease = store.second_job(&vm).await;
    let begun = store.begun(&vm, &lease).await;
    store.jobs.end(&lease, JobEnd::Failed("why".to_owned())).await.unwrap();
    let revert = store.job_of(store.revert_spec(&vm)).await;
    for point in &made {
        for needless in [Needless::Unwanted, Needless::Behind(1)] {
            let refused = store.points.condemn_point(&point.id, needless, "old").await;
            assert_kind(refused, ErrorKind::Conflict);
        }
        assert_eq!(store.status(point).await, PointStatus::Ready);
    }
    store.points.condemn_point(&begun.id, Needless::Unfinished, "left over").await.unwrap();
    store.jobs.end(&revert, JobEnd::Cancelled("done".to_owned())).await.unwrap();
    store.points.condemn_point(&made[1].id, Needless::Behind(1), "old").await.unwrap();
}

async fn points_are_listed_newest_first_by_vm(store: StoreSubject) {
    let vm = store.replicated().await;
    let mut made = Vec::new();
    for marker in ["second", "third", "fourth"] {
        made.insert(0, store.epoch_with_point(&vm, marker).await);
    }
    let other = store.job_of_another_vm().await;
    let listed: Vec<_> = store.points.points(&vm.id).try_collect().await.unwrap();
    assert_eq!(listed, made);
    let job = store.job(&other.job).await;
    let none: Vec<_> = store.points.points(&job.context).try_collect().await.unwrap();
    assert!(none.is_empty(), "{none:?}");
}

/// Ids are minted by the clocks of many machines.
async fn l12_the_newest_point_is_that_of_the_latest_epoch_whatever_its_id(store: StoreSubject) {
    let vm = store.replicated().await;
    let mut made = Vec::new();
    for id in ["point-9", "point-5", "point-7", "point-1"] {
        made.insert(0, store.epoch_with_point_of(&vm, id, RecoveryPointId::parse(id).unwrap()).await);
    }
    let listed: Vec<_> = store.points.points(&vm.id).try_collect().await.unwrap();
    assert_eq!(listed, made);
    store.second_job(&vm).await;
    assert_kind(
        store.points.condemn_point(&made[0].id, Needless::Unwanted, "old").await,
        ErrorKind::Conflict,
    );
    store.points.condemn_point(&made[3].id, Needless::Unwanted, "old").await.unwrap();
}

async fn a_revert_is_recorded_for_all_volumes_at_once(store: StoreSubject) {
    let vm = store.replicated().await;
    let point = store.epoch_with_point(&vm, "second").await;
    store.epoch_with_point(&vm, "third").await;
    let lease = store.job_of(store.revert_spec(&vm)).await;
    let mut stamps = Vec::new();
    for volume in point.volumes.iter().map(|volume| &volume.snapshot.volume) {
        store.volumes.advance_generation(&lease, volume).await.unwrap();
        stamps.push((volume.clone(), Some(ContentStamp(format!("of {volume}")))));
    }
    let before: Vec<VolumeRecord> =
        store.volumes.volumes(VolumeFilter::default()).try_collect().await.unwrap();
    for _ in 0..2 {
        store.points.reverted_to(&lease, &point.id, &stamps).await.unwrap();
        let after: Vec<VolumeRecord> =
            store.volumes.volumes(VolumeFilter::default()).try_collect().await.unwrap();
        for (after, before) in after.iter().zip(&before) {
            assert_eq!(
                (after.content, after.generation),
                (VolumeContent::Epoch(Epoch(2)), before.generation)
            );
            assert_eq!(after.stamp, Some(ContentStamp(format!("of {}", after.id))));
            let change = store.change_ids.current(&after.disk, after.generation, &vm.identity.endpoint);
            assert_eq!(change.await.unwrap(), None, "L09");
        }
    }
    let disks = store.inventory.disks(&vm.id).await.unwrap();
    assert!(disks.iter().all(|disk| disk.epoch == Epoch(3)), "{disks:?}");
}

async fn a_revert_to_what_cannot_be_is_refused_and_changes_nothing(store: StoreSubject) {
    let vm = store.replicated().await;
    let point = store.epoch_with_point(&vm, "second").await;
    let later = store.epoch_with_point(&vm, "third").await;
    let replication = store.second_job(&vm).await;
    let begun = store.begun(&vm, &replication).await;
    store.jobs.end(&replication, JobEnd::Failed("why".to_owned())).await.unwrap();
    let lease = store.job_of(store.revert_spec(&vm)).await;
    let gone = store.points.reverted_to(&lease, &RecoveryPointId::mint(), &[]).await;
    assert_kind(gone, ErrorKind::NotFound);
    let other_vm = store.inventory.record(&source_vm("uuid-2")).await.unwrap();
    let other = store.job_of(store.revert_spec(&other_vm)).await;
    assert_kind(store.points.reverted_to(&other, &point.id, &[]).await, ErrorKind::NotFound);
    assert_kind(store.points.reverted_to(&lease, &begun.id, &[]).await, ErrorKind::Conflict);
    let (first, second) = (&point.volumes[0].snapshot.volume, &point.volumes[1].snapshot.volume);
    store.volumes.mark_inconsistent(&lease, first).await.unwrap();
    store.volumes.forget(&lease, second).await.unwrap();
    let before = store.world(&vm).await;
    assert_kind(store.points.reverted_to(&lease, &later.id, &[]).await, ErrorKind::Conflict);
    assert_eq!(store.world(&vm).await, before);
}

async fn l08_a_job_that_reverts_makes_no_epoch_and_one_that_replicates_goes_back_to_none(
    store: StoreSubject,
) {
    let vm = store.replicated().await;
    let point = store.epoch_with_point(&vm, "second").await;
    let replication = store.second_job(&vm).await;
    store.volumes.mark_inconsistent(&replication, &point.volumes[0].snapshot.volume).await.unwrap();
    let before = store.world(&vm).await;
    assert_kind(store.points.reverted_to(&replication, &point.id, &[]).await, ErrorKind::Conflict);
    assert_eq!(store.world(&vm).await, before);
    store.jobs.end(&replication, JobEnd::Failed("why".to_owned())).await.unwrap();
    let revert = store.job_of(store.revert_spec(&vm)).await;
    let commit = store.ready_to_commit(&vm, &revert, "third").await;
    let (before, spec) = (store.world(&vm).await, store.point_spec(&vm, &revert).await);
    assert_kind(store.points.begin_point(&revert, &spec).await, ErrorKind::Conflict);
    assert_kind(store.change_ids.commit_epoch(&revert, &commit).await, ErrorKind::Conflict);
    assert_eq!(store.points.point(&spec.id).await.unwrap(), None);
    assert_eq!(store.world(&vm).await, before);
}
