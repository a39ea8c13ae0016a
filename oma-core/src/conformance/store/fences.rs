use super::super::runner::table;
use super::*;
use crate::record::{JobEnd, RetryPolicy};
use crate::state::{ExportEvent, JobStatus};

pub(super) fn cases() -> Vec<Case<StoreSubject>> {
    table![
        l16_a_token_that_is_not_the_newest_changes_nothing_anywhere,
        l16_a_lease_given_back_changes_nothing_anywhere,
        l16_the_lease_of_an_ended_job_changes_nothing_anywhere,
    ]
}

/// A job about to commit, with an export and an operation under way, and all that its lease could write.
struct Busy {
    vm: VmContext,
    lease: Lease,
    disk: DiskRef,
    volume: VolumeId,
    detach: OperationSpec,
    commit: EpochCommit,
}

async fn busy(store: &StoreSubject) -> Busy {
    let (vm, lease) = store.claimed().await;
    let commit = store.ready_to_commit(&vm, &lease, "first").await;
    let (disk, volume) = (store.disk(&vm, KEYS[0]), commit.disks[0].volume.clone());
    store.exports.begin(&lease, &name("x"), &disk.key, &volume).await.unwrap();
    let detach = store.operation(&lease, &disk, OperationKind::Detach, Some(&volume));
    store.volumes.begin(&lease, &detach).await.unwrap();
    Busy { vm, lease, disk, volume, detach, commit }
}

async fn l16_a_token_that_is_not_the_newest_changes_nothing_anywhere(store: StoreSubject) {
    let busy = busy(&store).await;
    store.take_over(&busy.lease).await;
    changes_nothing(&store, &busy).await;
}

async fn l16_a_lease_given_back_changes_nothing_anywhere(store: StoreSubject) {
    let busy = busy(&store).await;
    store.jobs.release(&busy.lease).await.unwrap();
    changes_nothing(&store, &busy).await;
}

async fn l16_the_lease_of_an_ended_job_changes_nothing_anywhere(store: StoreSubject) {
    let busy = busy(&store).await;
    store.jobs.end(&busy.lease, JobEnd::Cancelled("why".to_owned())).await.unwrap();
    changes_nothing(&store, &busy).await;
}

async fn changes_nothing(store: &StoreSubject, busy: &Busy) {
    let (fenced, lease) = (ErrorKind::Fenced, &busy.lease);
    store.clock.advance(Duration::from_secs(1));
    let before = store.world(&busy.vm).await;
    assert_kind(store.jobs.renew(lease, TTL).await, fenced);
    assert_kind(store.jobs.advance(lease, JobStatus::Initializing, JobEvent::Provision).await, fenced);
    assert_kind(store.jobs.end(lease, JobEnd::Failed("no".to_owned())).await, fenced);
    assert_kind(store.jobs.defer(lease, "no", &RetryPolicy::default()).await, fenced);
    assert_kind(store.change_ids.commit_epoch(lease, &busy.commit).await, fenced);
    no_disk_moves(store, busy, fenced).await;
    no_volume_moves(store, busy, fenced).await;
    assert_kind(store.exports.begin(lease, &name("y"), &busy.disk.key, &busy.volume).await, fenced);
    assert_kind(store.exports.advance(lease, &name("x"), ExportEvent::Started).await, fenced);
    store.jobs.release(lease).await.unwrap();
    assert_eq!(store.world(&busy.vm).await, before);
}

async fn no_disk_moves(store: &StoreSubject, busy: &Busy, fenced: ErrorKind) {
    let (lease, key) = (&busy.lease, &busy.disk.key);
    assert_kind(store.change_ids.begin(lease, &attempt(key.as_str(), "stale")).await, fenced);
    assert_kind(store.journal.begin(lease, key, &empty_journal()).await, fenced);
    assert_kind(store.journal.record(lease, key, extent(0, 1), ByteSize::new(1)).await, fenced);
}

async fn no_volume_moves(store: &StoreSubject, busy: &Busy, fenced: ErrorKind) {
    let (lease, volume) = (&busy.lease, &busy.volume);
    let create = store.operation(lease, &busy.disk, OperationKind::Create, None);
    assert_kind(store.volumes.begin(lease, &create).await, fenced);
    assert_kind(store.volumes.begin(lease, &busy.detach).await, fenced);
    let answer = store.backend_volume(volume.as_str(), None);
    assert_kind(store.volumes.complete(lease, &busy.detach.id, &answer, true).await, fenced);
    assert_kind(store.volumes.fail(lease, &busy.detach.id, "no").await, fenced);
    assert_kind(store.volumes.doubt(lease, &busy.detach.id, "no").await, fenced);
    let delete = store.operation(lease, &busy.disk, OperationKind::Delete, Some(volume));
    assert_kind(store.volumes.condemn(lease, &delete, TTL).await, fenced);
    assert_kind(store.volumes.execute(lease, &busy.detach.id).await, fenced);
    assert_kind(store.volumes.pardon(lease, &busy.detach.id, "no").await, fenced);
    assert_kind(store.volumes.mark_inconsistent(lease, volume).await, fenced);
    let stamp = ContentStamp("stale".to_owned());
    assert_kind(store.volumes.keep_stamp(lease, volume, &stamp).await, fenced);
    assert_kind(store.volumes.advance_generation(lease, volume).await, fenced);
    assert_kind(store.volumes.renew_generation(lease, volume).await, fenced);
    assert_kind(store.volumes.distrust_zeroes(lease, volume).await, fenced);
    assert_kind(store.volumes.forget(lease, volume).await, fenced);
    let unknown = VolumeId::parse("vol-none").unwrap();
    assert_kind(store.volumes.forget(lease, &unknown).await, fenced);
}
