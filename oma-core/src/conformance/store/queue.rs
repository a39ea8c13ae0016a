//! Which job is given out next.

use super::super::runner::table;
use super::*;
use crate::record::{ClaimLimits, ClaimRequest, JobEnd};
use crate::state::{JobKind, JobStatus};

pub(super) fn cases() -> Vec<Case<StoreSubject>> {
    table![
        the_next_job_is_that_of_the_largest_priority_then_the_oldest,
        the_next_job_comes_with_a_token_an_owner_and_an_end_by_the_clock,
        without_a_job_there_is_no_next_one,
        a_job_that_somebody_holds_is_not_the_next,
        an_ended_job_is_never_the_next,
        a_job_that_reverts_is_never_the_next_and_is_driven_by_who_names_it,
        a_released_job_is_the_next_at_once_and_has_had_no_attempt,
        a_job_whose_lease_has_ended_is_the_next_with_a_newer_token,
        priority_goes_before_age_among_jobs_taken_over_too,
    ]
}

async fn the_next_job_is_that_of_the_largest_priority_then_the_oldest(store: StoreSubject) {
    let mut made = Vec::new();
    for (number, priority) in [0, 5, -5, 5, 0, i32::MAX, i32::MIN].into_iter().enumerate() {
        // The ids go the other way: age is the order of insertion, whatever the ids are.
        made.push(store.queued(100 - number, |_, spec| spec.priority = priority).await);
    }
    let mut given = Vec::new();
    while let Some(lease) = store.next("one").await {
        given.push(lease.job);
    }
    assert_eq!(given, [5, 1, 3, 0, 4, 2, 6].map(|index: usize| made[index].clone()));
}

async fn the_next_job_comes_with_a_token_an_owner_and_an_end_by_the_clock(store: StoreSubject) {
    let id = store.queued(1, |_, _| ()).await;
    store.clock.advance(Duration::from_secs(1));
    let lease = store.next("one").await.unwrap();
    assert_eq!((&lease.job, &lease.worker), (&id, &worker("one")));
    assert_eq!((lease.fence.0, lease.expires_at), (1, store.clock.now().after(TTL)));
    let job = store.job(&id).await;
    assert_eq!((job.fence, job.owner.as_ref()), (lease.fence, Some(&lease.worker)));
    assert_eq!((job.due_at, job.updated_at), (Some(lease.expires_at), store.clock.now()));
    assert_eq!((job.attempts, job.error), (0, None));
    store.jobs.renew(&lease, TTL).await.unwrap();
}

async fn without_a_job_there_is_no_next_one(store: StoreSubject) {
    assert_eq!(store.next("one").await, None);
}

async fn a_job_that_somebody_holds_is_not_the_next(store: StoreSubject) {
    store.queued(1, |_, _| ()).await;
    store.next("one").await.unwrap();
    store.clock.advance(TTL - Duration::from_millis(1));
    // Also not its own: it may be driving it.
    assert_eq!(store.next("one").await, None);
    assert_eq!(store.next("two").await, None);
}

/// A worker that replicates must never drive it, between its insert and its claim or once its worker died.
async fn a_job_that_reverts_is_never_the_next_and_is_driven_by_who_names_it(store: StoreSubject) {
    let vm = store.replicated().await;
    let job = store.jobs.insert(store.revert_spec(&vm)).await.unwrap();
    assert_eq!(job.kind, JobKind::Revert);
    assert_eq!((store.job(&job.id).await, store.next("one").await), (job.clone(), None));
    let lease = store.jobs.claim(&job.id, &worker("one"), TTL).await.unwrap();
    store.clock.advance(TTL * 2);
    let limits = ClaimLimits { per_worker: Some(5), per_source: Some(5), ..ClaimLimits::default() };
    let bounded = ClaimRequest { limits, attempts: 1, ..request("two") };
    assert_eq!(store.jobs.claim_next(&bounded).await.unwrap(), None);
    let other = store.queued(1, |_, spec| spec.priority = -1).await;
    assert_eq!(store.jobs.claim_next(&bounded).await.unwrap().map(|lease| lease.job), Some(other));
    let newer = store.jobs.claim(&job.id, &worker("two"), TTL).await.unwrap();
    assert!(newer.fence > lease.fence);
    let now = store.job(&job.id).await;
    assert_eq!((now.status, now.attempts, now.owner), (JobStatus::Initializing, 0, Some(worker("two"))));
}

async fn an_ended_job_is_never_the_next(store: StoreSubject) {
    let (vm, lease) = store.claimed().await;
    store.jobs.end(&lease, JobEnd::Cancelled("why".to_owned())).await.unwrap();
    let lease = store.second_job(&vm).await;
    let commit = store.ready_to_commit(&vm, &lease, "first").await;
    store.change_ids.commit_epoch(&lease, &commit).await.unwrap();
    store.clock.advance(TTL * 10);
    assert_eq!(store.next("one").await, None);
}

async fn a_released_job_is_the_next_at_once_and_has_had_no_attempt(store: StoreSubject) {
    let id = store.queued(1, |_, _| ()).await;
    let first = store.next("one").await.unwrap();
    store.jobs.release(&first).await.unwrap();
    let second = store.next("two").await.unwrap();
    assert_eq!(second.job, id);
    assert!(second.fence > first.fence);
    let job = store.job(&id).await;
    assert_eq!((job.attempts, job.error), (0, None));
}

async fn a_job_whose_lease_has_ended_is_the_next_with_a_newer_token(store: StoreSubject) {
    let id = store.queued(1, |_, _| ()).await;
    let first = store.next("one").await.unwrap();
    store.clock.advance(TTL);
    let second = store.next("two").await.unwrap();
    assert_eq!(second.job, id);
    assert!(second.fence > first.fence);
    assert_kind(store.jobs.renew(&first, TTL).await, ErrorKind::Fenced);
}

async fn priority_goes_before_age_among_jobs_taken_over_too(store: StoreSubject) {
    let low = store.queued(1, |_, _| ()).await;
    store.next("one").await.unwrap();
    store.clock.advance(TTL * 2);
    let high = store.queued(2, |_, spec| spec.priority = 1).await;
    assert_eq!(store.next("two").await.unwrap().job, high);
    assert_eq!(store.next("two").await.unwrap().job, low);
}
