//! Volumes are deleted at once when they never held an epoch, and else in two steps.

use super::super::runner::table;
use super::*;
use crate::record::JobEnd;
use crate::state::{OperationStatus, VolumeStatus};

pub(super) fn cases() -> Vec<Case<StoreSubject>> {
    table![
        a_volume_without_an_epoch_is_deleted_at_once,
        a_delete_that_the_backend_did_not_do_leaves_the_volume_detached,
        only_a_job_that_operates_deletes,
        a_volume_knows_whether_it_ever_held_an_epoch,
        l07_a_volume_that_held_an_epoch_is_not_deleted_at_once,
        an_attached_volume_is_neither_deleted_nor_condemned,
        a_condemned_volume_has_a_pending_delete_that_is_due_later,
        a_condemned_volume_is_deleted_only_once_that_is_due,
        a_condemned_volume_that_is_pardoned_is_used_as_before,
        nothing_else_is_begun_on_the_disk_of_a_condemned_volume,
        a_pending_delete_neither_completes_nor_fails,
        only_a_delete_condemns,
    ]
}

const GRACE: Duration = Duration::from_secs(3600);

/// The detached volume of a VM's first disk, under the lease of a job that operates.
struct Unused {
    vm: VmContext,
    lease: Lease,
    disk: DiskRef,
    volume: VolumeRecord,
}

impl Unused {
    /// One that holds an epoch.
    async fn with_epoch(store: &StoreSubject) -> Self {
        let vm = store.replicated().await;
        Self::detached(store, vm).await
    }

    /// One that never held an epoch.
    async fn blank(store: &StoreSubject) -> Self {
        let (vm, lease) = store.claimed().await;
        store.provision(&lease, &store.disk(&vm, KEYS[0]), "vol-1").await;
        store.jobs.end(&lease, JobEnd::Cancelled("why".to_owned())).await.unwrap();
        Self::detached(store, vm).await
    }

    async fn detached(store: &StoreSubject, vm: VmContext) -> Self {
        let lease = store.job_of(store.operate_spec(&vm)).await;
        let disk = store.disk(&vm, KEYS[0]);
        let volume = store.volumes.volume_of(&disk).await.unwrap().unwrap();
        let detach = store.operation(&lease, &disk, OperationKind::Detach, Some(&volume.id));
        let answer = store.backend_volume(volume.id.as_str(), None);
        let volume = store.carry_out(&lease, &detach, &answer).await.unwrap();
        Self { vm, lease, disk, volume }
    }

    fn delete(&self, store: &StoreSubject) -> OperationSpec {
        store.operation(&self.lease, &self.disk, OperationKind::Delete, Some(&self.volume.id))
    }

    /// The job ends, a later one has its lease.
    async fn handed_on(self, store: &StoreSubject) -> Self {
        store.jobs.end(&self.lease, JobEnd::Done).await.unwrap();
        let lease = store.job_of(store.operate_spec(&self.vm)).await;
        Self { lease, ..self }
    }

    async fn status(&self, store: &StoreSubject) -> VolumeStatus {
        store.volumes.volume(&self.volume.id).await.unwrap().unwrap().status
    }
}

async fn a_volume_without_an_epoch_is_deleted_at_once(store: StoreSubject) {
    let unused = Unused::blank(&store).await;
    let spec = unused.delete(&store);
    let begun = store.volumes.begin(&unused.lease, &spec).await.unwrap();
    assert_eq!((begun.status, begun.due_at), (OperationStatus::Executing, None));
    assert_eq!(unused.status(&store).await, VolumeStatus::Deleting);
    let answer = store.backend_volume(unused.volume.id.as_str(), None);
    let last = store.volumes.complete(&unused.lease, &spec.id, &answer, false).await.unwrap();
    assert_eq!(last.status, VolumeStatus::Deleted);
    assert_eq!(store.volumes.volume(&unused.volume.id).await.unwrap(), None);
    assert_eq!(store.volumes.volume_of(&unused.disk).await.unwrap(), None);
    assert_eq!(store.inventory.disk(&unused.disk).await.unwrap().unwrap().volume, None);
}

async fn a_delete_that_the_backend_did_not_do_leaves_the_volume_detached(store: StoreSubject) {
    let unused = Unused::blank(&store).await;
    let spec = unused.delete(&store);
    store.volumes.begin(&unused.lease, &spec).await.unwrap();
    store.volumes.fail(&unused.lease, &spec.id, "not ours").await.unwrap();
    assert_eq!(unused.status(&store).await, VolumeStatus::Detached);
    assert_eq!(store.volumes.volume_of(&unused.disk).await.unwrap().unwrap().id, unused.volume.id);
}

async fn only_a_job_that_operates_deletes(store: StoreSubject) {
    let unused = Unused::blank(&store).await;
    store.jobs.end(&unused.lease, JobEnd::Done).await.unwrap();
    let lease = store.second_job(&unused.vm).await;
    let unused = Unused { lease, ..unused };
    let before = store.world(&unused.vm).await;
    let spec = unused.delete(&store);
    assert_kind(store.volumes.begin(&unused.lease, &spec).await, ErrorKind::Conflict);
    assert_kind(store.volumes.condemn(&unused.lease, &spec, GRACE).await, ErrorKind::Conflict);
    assert_eq!(store.world(&unused.vm).await, before);
}

async fn a_volume_knows_whether_it_ever_held_an_epoch(store: StoreSubject) {
    let (vm, lease) = store.claimed().await;
    let commit = store.ready_to_commit(&vm, &lease, "first").await;
    let id = &commit.disks[0].volume;
    let held = async || store.volumes.volume(id).await.unwrap().unwrap().held_epoch;
    assert!(!held().await);
    store.change_ids.commit_epoch(&lease, &commit).await.unwrap();
    assert!(held().await);
    let next = store.second_job(&vm).await;
    store.volumes.mark_inconsistent(&next, id).await.unwrap();
    store.volumes.advance_generation(&next, id).await.unwrap();
    assert!(held().await, "whatever it holds now");
}

async fn l07_a_volume_that_held_an_epoch_is_not_deleted_at_once(store: StoreSubject) {
    let unused = Unused::with_epoch(&store).await;
    let before = store.world(&unused.vm).await;
    assert_kind(store.volumes.begin(&unused.lease, &unused.delete(&store)).await, ErrorKind::Conflict);
    assert_eq!(store.world(&unused.vm).await, before);
}

async fn an_attached_volume_is_neither_deleted_nor_condemned(store: StoreSubject) {
    let unused = Unused::blank(&store).await;
    let attach = store.operation(&unused.lease, &unused.disk, OperationKind::Attach, Some(&unused.volume.id));
    let answer = store.backend_volume(unused.volume.id.as_str(), Some("/dev/vdb"));
    store.carry_out(&unused.lease, &attach, &answer).await.unwrap();
    let before = store.world(&unused.vm).await;
    let spec = unused.delete(&store);
    assert_kind(store.volumes.begin(&unused.lease, &spec).await, ErrorKind::Conflict);
    assert_kind(store.volumes.condemn(&unused.lease, &spec, GRACE).await, ErrorKind::Conflict);
    assert_eq!(store.world(&unused.vm).await, before);
}

async fn a_condemned_volume_has_a_pending_delete_that_is_due_later(store: StoreSubject) {
    let unused = Unused::with_epoch(&store).await;
    let spec = unused.delete(&store);
    let condemned = store.volumes.condemn(&unused.lease, &spec, GRACE).await.unwrap();
    assert_eq!((&condemned.spec, condemned.status), (&spec, OperationStatus::Pending));
    assert_eq!(condemned.due_at, Some(store.clock.now().after(GRACE)));
    assert_eq!(unused.status(&store).await, VolumeStatus::Condemned);
    store.clock.advance(Duration::from_secs(1));
    assert_eq!(store.volumes.condemn(&unused.lease, &spec, GRACE).await.unwrap(), condemned);
    let other = OperationSpec { capacity: None, ..spec };
    assert_kind(store.volumes.condemn(&unused.lease, &other, GRACE).await, ErrorKind::AlreadyExists);
    assert_eq!(store.volumes.unfinished(&unused.disk).await.unwrap(), Some(condemned));
}

async fn a_condemned_volume_is_deleted_only_once_that_is_due(store: StoreSubject) {
    let unused = Unused::with_epoch(&store).await;
    let spec = unused.delete(&store);
    store.volumes.condemn(&unused.lease, &spec, GRACE).await.unwrap();
    let unused = unused.handed_on(&store).await;
    store.clock.advance(GRACE - Duration::from_secs(2));
    let before = store.world(&unused.vm).await;
    assert_kind(store.volumes.execute(&unused.lease, &spec.id).await, ErrorKind::Conflict);
    assert_eq!(store.world(&unused.vm).await, before);
    store.clock.advance(Duration::from_secs(2));
    let executing = store.volumes.execute(&unused.lease, &spec.id).await.unwrap();
    assert_eq!((executing.status, executing.due_at), (OperationStatus::Executing, None));
    assert_eq!(unused.status(&store).await, VolumeStatus::Deleting);
    assert_eq!(store.volumes.execute(&unused.lease, &spec.id).await.unwrap(), executing);
    assert_kind(store.volumes.pardon(&unused.lease, &spec.id, "late").await, ErrorKind::Conflict);
    let answer = store.backend_volume(unused.volume.id.as_str(), None);
    store.volumes.complete(&unused.lease, &spec.id, &answer, false).await.unwrap();
    assert_eq!(store.volumes.volume(&unused.volume.id).await.unwrap(), None);
    assert_kind(store.volumes.execute(&unused.lease, &spec.id).await, ErrorKind::Conflict);
}

async fn a_condemned_volume_that_is_pardoned_is_used_as_before(store: StoreSubject) {
    let unused = Unused::with_epoch(&store).await;
    let spec = unused.delete(&store);
    store.volumes.condemn(&unused.lease, &spec, GRACE).await.unwrap();
    let unused = unused.handed_on(&store).await;
    let pardoned = store.volumes.pardon(&unused.lease, &spec.id, "still wanted").await.unwrap();
    assert_eq!((pardoned.status, pardoned.due_at), (OperationStatus::Cancelled, None));
    assert_eq!(pardoned.error.as_deref(), Some("still wanted"));
    assert_eq!(store.volumes.pardon(&unused.lease, &spec.id, "again").await.unwrap(), pardoned);
    assert_kind(store.volumes.execute(&unused.lease, &spec.id).await, ErrorKind::Conflict);
    let now = store.volumes.volume(&unused.volume.id).await.unwrap().unwrap();
    let generation = unused.volume.generation.next();
    let before = VolumeRecord { generation, updated_at: now.updated_at, ..unused.volume.clone() };
    assert_eq!(now, before, "the content is what it was, of a generation that no record of before knows");
    let endpoint = &unused.vm.identity.endpoint;
    let current = store.change_ids.current(&unused.disk, generation, endpoint).await.unwrap();
    assert!(current.is_some(), "what was committed holds");
    let attach = store.operation(&unused.lease, &unused.disk, OperationKind::Attach, Some(&now.id));
    let answer = store.backend_volume(now.id.as_str(), Some("/dev/vdb"));
    store.carry_out(&unused.lease, &attach, &answer).await.unwrap();
}

async fn nothing_else_is_begun_on_the_disk_of_a_condemned_volume(store: StoreSubject) {
    let unused = Unused::with_epoch(&store).await;
    let spec = unused.delete(&store);
    store.volumes.condemn(&unused.lease, &spec, GRACE).await.unwrap();
    for kind in OperationKind::ALL {
        let other = store.operation(&unused.lease, &unused.disk, *kind, Some(&unused.volume.id));
        let error = store.volumes.begin(&unused.lease, &other).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Conflict, "{kind}");
        assert!(error.chain().contains(spec.id.as_str()), "{}", error.chain());
    }
}

async fn a_pending_delete_neither_completes_nor_fails(store: StoreSubject) {
    let unused = Unused::with_epoch(&store).await;
    let spec = unused.delete(&store);
    store.volumes.condemn(&unused.lease, &spec, GRACE).await.unwrap();
    let before = store.world(&unused.vm).await;
    let answer = store.backend_volume(unused.volume.id.as_str(), None);
    assert_kind(store.volumes.complete(&unused.lease, &spec.id, &answer, false).await, ErrorKind::Conflict);
    assert_kind(store.volumes.fail(&unused.lease, &spec.id, "no").await, ErrorKind::Conflict);
    assert_kind(store.volumes.doubt(&unused.lease, &spec.id, "why").await, ErrorKind::Conflict);
    assert_eq!(store.world(&unused.vm).await, before);
}

async fn only_a_delete_condemns(store: StoreSubject) {
    let unused = Unused::with_epoch(&store).await;
    let before = store.world(&unused.vm).await;
    for kind in OperationKind::ALL.iter().filter(|kind| **kind != OperationKind::Delete) {
        let other = store.operation(&unused.lease, &unused.disk, *kind, Some(&unused.volume.id));
        assert_kind(store.volumes.condemn(&unused.lease, &other, GRACE).await, ErrorKind::Invalid);
    }
    assert_eq!(store.world(&unused.vm).await, before);
}
