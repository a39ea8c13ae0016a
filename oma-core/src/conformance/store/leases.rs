use super::super::runner::table;
use super::*;
use crate::record::JobEnd;
use crate::state::JobStatus;
use crate::{Retry, Timestamp};

pub(super) fn cases() -> Vec<Case<StoreSubject>> {
    table![
        a_claim_gives_a_token_and_an_end_by_the_clock,
        l17_a_job_is_another_workers_until_its_lease_has_expired,
        a_worker_that_was_restarted_gets_its_job_back_with_a_newer_token,
        a_job_given_back_is_free_and_its_token_is_never_used_again,
        renewing_prolongs_and_keeps_the_token,
        l17_an_expired_lease_stays_good_until_somebody_claims,
        giving_back_a_stale_lease_changes_nothing,
        giving_back_what_is_not_held_is_fine,
        the_lease_of_an_unknown_job_is_fenced,
        a_lease_of_another_worker_is_worth_nothing,
        a_lease_may_be_as_long_as_can_be,
    ]
}

async fn a_lease_may_be_as_long_as_can_be(store: StoreSubject) {
    let (_, lease) = store.claimed().await;
    let endless = store.jobs.renew(&lease, Duration::MAX).await.unwrap();
    assert_eq!(endless.expires_at, Timestamp::MAX);
    assert_eq!(store.job(&lease.job).await.due_at, Some(Timestamp::MAX));
    assert_kind(store.jobs.claim(&lease.job, &worker("two"), TTL).await, ErrorKind::Busy);
    store.jobs.release(&lease).await.unwrap();
    assert_eq!(
        store.jobs.claim(&lease.job, &worker("two"), Duration::MAX).await.unwrap().expires_at,
        Timestamp::MAX
    );
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

async fn giving_back_what_is_not_held_is_fine(store: StoreSubject) {
    let (vm, lease) = store.claimed().await;
    store.jobs.release(&lease).await.unwrap();
    let unknown = Lease { job: JobId::mint(store.clock.now()), ..lease.clone() };
    let before = store.world(&vm).await;
    store.jobs.release(&lease).await.unwrap();
    store.jobs.release(&unknown).await.unwrap();
    assert_eq!(store.world(&vm).await, before);
    let again = store.jobs.claim(&lease.job, &worker("one"), TTL).await.unwrap();
    store.jobs.end(&again, JobEnd::Failed("why".to_owned())).await.unwrap();
    store.jobs.release(&again).await.unwrap();
}

async fn the_lease_of_an_unknown_job_is_fenced(store: StoreSubject) {
    let (_, lease) = store.claimed().await;
    let unknown = Lease { job: JobId::mint(store.clock.now()), ..lease };
    assert_kind(store.jobs.renew(&unknown, TTL).await, ErrorKind::Fenced);
    assert_kind(store.jobs.end(&unknown, JobEnd::Failed("why".to_owned())).await, ErrorKind::Fenced);
}
