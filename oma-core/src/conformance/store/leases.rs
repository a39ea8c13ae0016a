use super::super::runner::table;
use super::*;
use crate::Retry;
use crate::record::JobEnd;
use crate::state::{ExportEvent, JobStatus};

pub(super) fn cases() -> Vec<Case<StoreSubject>> {
    table![
        a_claim_gives_a_token_and_an_end_by_the_clock,
        l17_a_job_is_another_workers_until_its_lease_has_expired,
        a_worker_that_was_restarted_gets_its_job_back_with_a_newer_token,
        a_job_given_back_is_free_and_its_token_is_never_used_again,
        of_many_claims_at_once_exactly_one_wins,
        renewing_prolongs_and_keeps_the_token,
        l17_an_expired_lease_stays_good_until_somebody_claims,
        giving_back_a_stale_lease_changes_nothing,
        a_lease_of_another_worker_is_worth_nothing,
        l16_a_stale_token_changes_nothing_anywhere,
    ]
}

async fn a_claim_gives_a_token_and_an_end_by_the_clock(store: StoreSubject) {
    let (_, lease) = store.claimed().await;
    assert_eq!((lease.fence.0, lease.expires_at), (1, store.clock.now().after(TTL)));
    let job = store.jobs.get(&lease.job).await.unwrap().unwrap();
    assert_eq!((job.fence, job.owner), (lease.fence, Some(lease.worker)));
}

async fn l17_a_job_is_another_workers_until_its_lease_has_expired(store: StoreSubject) {
    let (_, lease) = store.claimed().await;
    store.clock.advance(TTL - Duration::from_millis(1));
    let error = store.jobs.claim(&lease.job, &worker("two"), TTL).await.unwrap_err();
    assert_eq!((error.kind(), error.retry()), (ErrorKind::Busy, Retry::Later));
    store.clock.advance(Duration::from_millis(1));
    let second = store.jobs.claim(&lease.job, &worker("two"), TTL).await.unwrap();
    assert!(second.fence > lease.fence);
}

async fn a_worker_that_was_restarted_gets_its_job_back_with_a_newer_token(store: StoreSubject) {
    let (_, lease) = store.claimed().await;
    let again = store.jobs.claim(&lease.job, &worker("one"), TTL).await.unwrap();
    assert!(again.fence > lease.fence);
    assert_kind(store.jobs.renew(&lease, TTL).await, ErrorKind::Fenced);
    store.jobs.renew(&again, TTL).await.unwrap();
}

async fn a_job_given_back_is_free_and_its_token_is_never_used_again(store: StoreSubject) {
    let (_, lease) = store.claimed().await;
    store.jobs.release(&lease).await.unwrap();
    assert_kind(store.jobs.renew(&lease, TTL).await, ErrorKind::Fenced);
    assert_eq!(store.jobs.get(&lease.job).await.unwrap().unwrap().owner, None);
    let second = store.jobs.claim(&lease.job, &worker("two"), TTL).await.unwrap();
    assert!(second.fence > lease.fence);
}

async fn of_many_claims_at_once_exactly_one_wins(store: StoreSubject) {
    let vm = store.vm().await;
    let job = store.jobs.insert(store.spec(&vm)).await.unwrap();
    let workers: Vec<_> = (0..16).map(|number| worker(&format!("worker-{number}"))).collect();
    let claims = workers.iter().map(|worker| store.jobs.claim(&job.id, worker, TTL));
    let results = futures_util::future::join_all(claims).await;
    assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 1);
    for refused in results.into_iter().filter(Result::is_err) {
        assert_kind(refused, ErrorKind::Busy);
    }
}

async fn renewing_prolongs_and_keeps_the_token(store: StoreSubject) {
    let (_, lease) = store.claimed().await;
    store.clock.advance(TTL / 2);
    let renewed = store.jobs.renew(&lease, TTL).await.unwrap();
    assert_eq!((renewed.fence, renewed.expires_at), (lease.fence, store.clock.now().after(TTL)));
    store.clock.advance(TTL - Duration::from_millis(1));
    assert_kind(store.jobs.claim(&lease.job, &worker("two"), TTL).await, ErrorKind::Busy);
}

async fn l17_an_expired_lease_stays_good_until_somebody_claims(store: StoreSubject) {
    let (_, lease) = store.claimed().await;
    store.clock.advance(TTL * 10);
    store.jobs.advance(&lease, JobStatus::Initializing, JobEvent::Provision).await.unwrap();
    store.jobs.renew(&lease, TTL).await.unwrap();
    store.take_over(&lease).await;
    assert_kind(store.jobs.renew(&lease, TTL).await, ErrorKind::Fenced);
}

async fn giving_back_a_stale_lease_changes_nothing(store: StoreSubject) {
    let (_, lease) = store.claimed().await;
    let newest = store.take_over(&lease).await;
    store.jobs.release(&lease).await.unwrap();
    assert_eq!(store.jobs.get(&lease.job).await.unwrap().unwrap().owner, Some(worker("two")));
    store.jobs.renew(&newest, TTL).await.unwrap();
}

async fn a_lease_of_another_worker_is_worth_nothing(store: StoreSubject) {
    let (_, lease) = store.claimed().await;
    let forged = Lease { worker: worker("two"), ..lease };
    assert_kind(store.jobs.renew(&forged, TTL).await, ErrorKind::Fenced);
    let advance = store.jobs.advance(&forged, JobStatus::Initializing, JobEvent::Provision).await;
    assert_kind(advance, ErrorKind::Fenced);
}

async fn l16_a_stale_token_changes_nothing_anywhere(store: StoreSubject) {
    let (vm, lease) = store.claimed().await;
    let commit = store.ready_to_commit(&vm, &lease, "first").await;
    let (disk, volume) = (store.disk(&vm, KEYS[0]), commit.disks[0].volume.clone());
    store.exports.begin(&lease, &name("x"), &disk.key, &volume).await.unwrap();
    let detach = store.operation(&lease, &disk, OperationKind::Detach, Some(&volume));
    VolumeRegistry::begin(&*store.volumes, &lease, &detach).await.unwrap();
    store.take_over(&lease).await;
    let before = store.committed(&vm).await;
    let fenced = ErrorKind::Fenced;
    assert_kind(store.jobs.advance(&lease, JobStatus::Finalizing, JobEvent::Copied).await, fenced);
    assert_kind(store.jobs.end(&lease, JobEnd::Failed("no".to_owned())).await, fenced);
    assert_kind(store.change_ids.commit_epoch(&lease, &commit).await, fenced);
    stale_records(&store, &lease, &disk, &volume, &detach).await;
    assert_eq!(store.committed(&vm).await, before);
    let export = store.exports.export(&name("x")).await.unwrap().unwrap();
    assert_eq!(export.status, crate::state::ExportStatus::Starting);
    assert_eq!(store.volumes.unfinished(&disk).await.unwrap().unwrap().spec, detach);
}

/// Every writing call but those on the job itself.
async fn stale_records(
    store: &StoreSubject,
    lease: &Lease,
    disk: &DiskRef,
    volume: &VolumeId,
    detach: &OperationSpec,
) {
    let fenced = ErrorKind::Fenced;
    let attempt = DiskAttempt {
        key: disk.key.clone(),
        change_id: change_id("stale"),
        previous: None,
        sync_type: ReplicationType::Incremental,
    };
    assert_kind(ChangeIdRepo::begin(&*store.change_ids, lease, &attempt).await, fenced);
    let basis = basis(Generation(9));
    assert_kind(store.journal.begin(lease, &disk.key, &basis, &ExtentSet::new()).await, fenced);
    assert_kind(store.journal.record(lease, &disk.key, extent(0, 1), ByteSize::new(1)).await, fenced);
    let create = store.operation(lease, disk, OperationKind::Create, None);
    assert_kind(VolumeRegistry::begin(&*store.volumes, lease, &create).await, fenced);
    let answer = store.backend_volume(volume.as_str(), None);
    assert_kind(store.volumes.complete(lease, &detach.id, &answer, true).await, fenced);
    assert_kind(store.volumes.fail(lease, &detach.id, "no").await, fenced);
    assert_kind(store.volumes.mark_inconsistent(lease, volume).await, fenced);
    assert_kind(store.volumes.advance_generation(lease, volume).await, fenced);
    assert_kind(store.volumes.forget(lease, volume).await, fenced);
    assert_kind(store.exports.begin(lease, &name("y"), &disk.key, volume).await, fenced);
    assert_kind(store.exports.advance(lease, &name("x"), ExportEvent::Started).await, fenced);
}
