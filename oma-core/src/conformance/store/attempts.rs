//! Attempts that failed: waits, and an end after too many.

use super::super::runner::table;
use super::*;
use crate::record::RetryPolicy;
use crate::state::{ContextStatus, DiskStatus, JobStatus};

pub(super) fn cases() -> Vec<Case<StoreSubject>> {
    table![
        a_deferred_job_waits_for_its_pause_and_says_why,
        a_deferred_job_is_the_next_when_its_wait_is_over,
        a_deferred_job_keeps_its_state_its_vm_and_its_journals,
        deferring_gives_the_lease_back,
        each_wait_is_the_one_of_its_attempt,
        a_job_that_failed_too_often_ends_and_says_so,
        a_policy_of_no_attempts_is_one_of_one,
        an_operator_may_take_a_job_up_before_its_wait_is_over,
        a_worker_that_vanished_has_had_an_attempt,
        a_worker_that_crashed_and_asks_again_has_had_an_attempt,
        a_job_whose_workers_vanish_too_often_ends_and_the_next_is_given_out,
        failed_and_vanished_attempts_count_together,
        a_job_named_by_its_id_has_had_no_attempt,
        a_completed_job_has_no_error_and_keeps_its_attempts,
        a_job_that_a_bound_forbids_is_not_looked_at,
    ]
}

const POLICY: RetryPolicy =
    RetryPolicy { attempts: 3, first: Duration::from_secs(40), longest: Duration::from_secs(60) };

async fn a_deferred_job_waits_for_its_pause_and_says_why(store: StoreSubject) {
    let (_, lease) = store.claimed().await;
    store.clock.advance(Duration::from_secs(1));
    let job = store.jobs.defer(&lease, "why", &POLICY).await.unwrap();
    assert_eq!((job.attempts, job.error.as_deref(), &job.owner), (1, Some("why"), &None));
    let now = store.clock.now();
    assert_eq!((job.due_at, job.updated_at), (Some(now.after(POLICY.pause(&lease.job, 1))), now));
    assert_eq!((job.status, job.completed_at, job.fence), (JobStatus::Initializing, None, lease.fence));
    assert_eq!(store.job(&lease.job).await, job);
}

async fn a_deferred_job_is_the_next_when_its_wait_is_over(store: StoreSubject) {
    let (_, lease) = store.claimed().await;
    store.jobs.defer(&lease, "why", &POLICY).await.unwrap();
    store.clock.advance(POLICY.pause(&lease.job, 1) - Duration::from_millis(1));
    assert_eq!(store.next("two").await, None);
    store.clock.advance(Duration::from_millis(1));
    let again = store.next("two").await.unwrap();
    assert_eq!(again.job, lease.job);
    assert!(again.fence > lease.fence);
    // Waiting was no attempt of its own, and the error stays to be read.
    let job = store.job(&lease.job).await;
    assert_eq!((job.attempts, job.error.as_deref()), (1, Some("why")));
}

async fn a_deferred_job_keeps_its_state_its_vm_and_its_journals(store: StoreSubject) {
    let (vm, lease) = store.claimed().await;
    store.ready_to_commit(&vm, &lease, "first").await;
    let before = store.world(&vm).await;
    let job = store.jobs.defer(&lease, "why", &POLICY).await.unwrap();
    let after = store.world(&vm).await;
    assert_eq!(job.status, JobStatus::Finalizing);
    assert_eq!((&after.vm, &after.disks, &after.volumes), (&before.vm, &before.disks, &before.volumes));
    assert_eq!((&after.histories, &after.more), (&before.histories, &before.more));
    assert_eq!(store.jobs.live(&vm.id).await.unwrap(), Some(job));
}

async fn deferring_gives_the_lease_back(store: StoreSubject) {
    let (_, lease) = store.claimed().await;
    let job = store.jobs.defer(&lease, "why", &POLICY).await.unwrap();
    assert_kind(store.jobs.renew(&lease, TTL).await, ErrorKind::Fenced);
    assert_kind(store.jobs.defer(&lease, "again", &POLICY).await, ErrorKind::Fenced);
    assert_eq!(store.job(&lease.job).await, job);
}

async fn each_wait_is_the_one_of_its_attempt(store: StoreSubject) {
    let id = store.queued(1, |_, _| ()).await;
    for attempt in 1..8 {
        let lease = store.next("one").await.unwrap();
        let policy = RetryPolicy { attempts: 9, ..POLICY };
        let job = store.jobs.defer(&lease, "why", &policy).await.unwrap();
        let pause = policy.pause(&id, attempt);
        assert_eq!((job.attempts, job.due_at), (attempt, Some(store.clock.now().after(pause))));
        store.clock.advance(pause);
    }
}

async fn a_job_that_failed_too_often_ends_and_says_so(store: StoreSubject) {
    let vm = store.vm().await;
    let id = store.jobs.insert(store.spec(&vm)).await.unwrap().id;
    for _ in 1..POLICY.attempts {
        let lease = store.jobs.claim(&id, &worker("one"), TTL).await.unwrap();
        store.jobs.defer(&lease, "early", &POLICY).await.unwrap();
    }
    let lease = store.jobs.claim(&id, &worker("one"), TTL).await.unwrap();
    store.clock.advance(Duration::from_secs(1));
    let job = store.jobs.defer(&lease, "late", &POLICY).await.unwrap();
    assert_eq!((job.status, job.attempts), (JobStatus::Failed, POLICY.attempts));
    assert_eq!(job.error.as_deref(), Some("gave up after 3 attempts: late"));
    assert_eq!((&job.owner, job.due_at, job.completed_at), (&None, None, Some(store.clock.now())));
    let after = store.world(&vm).await;
    assert_eq!(after.vm.map(|vm| (vm.status, vm.current_job)), Some((ContextStatus::Failed, None)));
    assert!(after.disks.iter().all(|disk| disk.status == DiskStatus::Failed));
    assert_kind(store.jobs.claim(&id, &worker("one"), TTL).await, ErrorKind::Conflict);
}

async fn a_policy_of_no_attempts_is_one_of_one(store: StoreSubject) {
    let (_, lease) = store.claimed().await;
    let job = store.jobs.defer(&lease, "why", &RetryPolicy { attempts: 0, ..POLICY }).await.unwrap();
    assert_eq!(job.error.as_deref(), Some("gave up after 1 attempt: why"));
    assert_eq!(job.status, JobStatus::Failed);
}

async fn an_operator_may_take_a_job_up_before_its_wait_is_over(store: StoreSubject) {
    let (_, lease) = store.claimed().await;
    store.jobs.defer(&lease, "why", &POLICY).await.unwrap();
    let again = store.jobs.claim(&lease.job, &worker("two"), TTL).await.unwrap();
    assert!(again.fence > lease.fence);
    assert_eq!(store.job(&lease.job).await.attempts, 1);
}

async fn a_worker_that_vanished_has_had_an_attempt(store: StoreSubject) {
    let (_, lease) = store.claimed().await;
    store.clock.advance(TTL);
    let again = store.next("two").await.unwrap();
    assert_eq!(again.job, lease.job);
    let job = store.job(&lease.job).await;
    assert_eq!((job.attempts, job.owner), (1, Some(worker("two"))));
    assert_eq!(job.error.as_deref(), Some("worker one vanished while it drove the job"));
}

async fn a_worker_that_crashed_and_asks_again_has_had_an_attempt(store: StoreSubject) {
    let (_, lease) = store.claimed().await;
    store.clock.advance(TTL);
    assert!(store.next("one").await.unwrap().fence > lease.fence);
    assert_eq!(store.job(&lease.job).await.attempts, 1);
}

async fn a_job_whose_workers_vanish_too_often_ends_and_the_next_is_given_out(store: StoreSubject) {
    let (vm, lease) = store.claimed().await;
    for _ in 1..3 {
        store.clock.advance(TTL);
        assert_eq!(store.next("two").await.unwrap().job, lease.job);
    }
    let other = store.queued(1, |_, _| ()).await;
    store.clock.advance(TTL);
    assert_eq!(store.next("three").await.unwrap().job, other);
    let job = store.job(&lease.job).await;
    assert_eq!((job.status, job.attempts, &job.owner), (JobStatus::Failed, 3, &None));
    let why = "gave up after 3 attempts: worker two vanished while it drove the job";
    assert_eq!(job.error.as_deref(), Some(why));
    assert_eq!((job.due_at, job.completed_at), (None, Some(store.clock.now())));
    let after = store.world(&vm).await;
    assert_eq!(after.vm.map(|vm| (vm.status, vm.current_job)), Some((ContextStatus::Failed, None)));
    assert!(after.disks.iter().all(|disk| disk.status == DiskStatus::Failed));
}

async fn failed_and_vanished_attempts_count_together(store: StoreSubject) {
    let (_, lease) = store.claimed().await;
    store.jobs.defer(&lease, "why", &POLICY).await.unwrap();
    store.jobs.claim(&lease.job, &worker("one"), TTL).await.unwrap();
    store.clock.advance(TTL);
    let lease = store.next("two").await.unwrap();
    let job = store.jobs.defer(&lease, "late", &POLICY).await.unwrap();
    assert_eq!(job.error.as_deref(), Some("gave up after 3 attempts: late"));
}

async fn a_job_named_by_its_id_has_had_no_attempt(store: StoreSubject) {
    let (_, lease) = store.claimed().await;
    store.take_over(&lease).await;
    let job = store.job(&lease.job).await;
    assert_eq!((job.attempts, job.error), (0, None));
}

async fn a_completed_job_has_no_error_and_keeps_its_attempts(store: StoreSubject) {
    let (vm, lease) = store.claimed().await;
    store.jobs.defer(&lease, "why", &POLICY).await.unwrap();
    let lease = store.jobs.claim(&lease.job, &worker("one"), TTL).await.unwrap();
    let commit = store.ready_to_commit(&vm, &lease, "first").await;
    store.change_ids.commit_epoch(&lease, &commit).await.unwrap();
    let job = store.job(&lease.job).await;
    assert_eq!((job.status, job.attempts), (JobStatus::Completed, 1));
    assert_eq!((job.error, job.due_at), (None, None));
}

async fn a_job_that_a_bound_forbids_is_not_looked_at(store: StoreSubject) {
    let (vm, _) = store.claimed().await;
    store.clock.advance(TTL);
    let before = store.world(&vm).await;
    let limits = ClaimLimits { per_source: Some(0), ..ClaimLimits::default() };
    let bounded = ClaimRequest { limits, attempts: 1, ..request("two") };
    assert_eq!(store.jobs.claim_next(&bounded).await.unwrap(), None);
    assert_eq!(store.world(&vm).await, before);
}
