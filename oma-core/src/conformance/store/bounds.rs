//! How many jobs are driven at a time.

use super::super::runner::table;
use super::*;
use crate::TargetName;

pub(super) fn cases() -> Vec<Case<StoreSubject>> {
    table![
        a_worker_gets_no_more_jobs_than_its_bound,
        a_source_has_no_more_jobs_than_its_bound_and_the_next_candidate_is_given_out,
        a_target_has_no_more_jobs_than_its_bound_and_the_next_candidate_is_given_out,
        jobs_without_a_target_are_neither_counted_nor_bounded_by_targets,
        a_job_that_one_bound_lets_through_is_kept_back_by_another,
        a_lease_that_has_ended_counts_against_no_bound,
        a_bound_of_zero_gives_nothing_out,
        a_candidate_behind_very_many_that_are_bounded_is_found,
    ]
}

fn per_worker(by: &str, limit: u32) -> ClaimRequest {
    ClaimRequest { limits: ClaimLimits { per_worker: Some(limit), ..ClaimLimits::default() }, ..request(by) }
}

fn per_source(limit: u32) -> ClaimRequest {
    ClaimRequest {
        limits: ClaimLimits { per_source: Some(limit), ..ClaimLimits::default() },
        ..request("one")
    }
}

fn per_target(limit: u32) -> ClaimRequest {
    ClaimRequest {
        limits: ClaimLimits { per_target: Some(limit), ..ClaimLimits::default() },
        ..request("one")
    }
}

impl StoreSubject {
    async fn queued_of(&self, number: usize, endpoint: &str) -> JobId {
        let endpoint = Endpoint::parse(endpoint).unwrap();
        self.queued(number, |vm, _| vm.identity.endpoint = endpoint).await
    }

    async fn queued_to(&self, number: usize, target: &str) -> JobId {
        let target = TargetName::parse(target).unwrap();
        self.queued(number, |_, spec| spec.target = Some(target)).await
    }

    async fn next_by(&self, request: &ClaimRequest) -> Option<JobId> {
        self.jobs.claim_next(request).await.unwrap().map(|lease| lease.job)
    }
}

async fn a_worker_gets_no_more_jobs_than_its_bound(store: StoreSubject) {
    for number in 0..4 {
        store.queued(number, |_, _| ()).await;
    }
    let first = store.jobs.claim_next(&per_worker("one", 2)).await.unwrap().unwrap();
    assert!(store.next_by(&per_worker("one", 2)).await.is_some());
    assert_eq!(store.next_by(&per_worker("one", 2)).await, None);
    assert!(store.next_by(&per_worker("two", 2)).await.is_some());
    store.jobs.release(&first).await.unwrap();
    assert_eq!(store.next_by(&per_worker("one", 2)).await, Some(first.job));
}

async fn a_source_has_no_more_jobs_than_its_bound_and_the_next_candidate_is_given_out(store: StoreSubject) {
    let mut made = Vec::new();
    for (number, endpoint) in ["a", "a", "a", "b"].into_iter().enumerate() {
        made.push(store.queued_of(number, endpoint).await);
    }
    let first = store.jobs.claim_next(&per_source(2)).await.unwrap().unwrap();
    assert_eq!(first.job, made[0]);
    assert_eq!(store.next_by(&per_source(2)).await.as_ref(), Some(&made[1]));
    assert_eq!(store.next_by(&per_source(2)).await.as_ref(), Some(&made[3]));
    assert_eq!(store.next_by(&per_source(2)).await, None);
    store.jobs.release(&first).await.unwrap();
    assert_eq!(store.next_by(&per_source(2)).await, Some(first.job));
}

async fn a_target_has_no_more_jobs_than_its_bound_and_the_next_candidate_is_given_out(store: StoreSubject) {
    let mut made = Vec::new();
    for (number, target) in ["a", "a", "b"].into_iter().enumerate() {
        made.push(store.queued_to(number, target).await);
    }
    assert_eq!(store.next_by(&per_target(1)).await.as_ref(), Some(&made[0]));
    assert_eq!(store.next_by(&per_target(1)).await.as_ref(), Some(&made[2]));
    assert_eq!(store.next_by(&per_target(1)).await, None);
    assert_eq!(store.next_by(&per_target(2)).await.as_ref(), Some(&made[1]));
}

async fn jobs_without_a_target_are_neither_counted_nor_bounded_by_targets(store: StoreSubject) {
    for number in 0..3 {
        store.queued(number, |_, _| ()).await;
    }
    let to = store.queued_to(3, "a").await;
    for _ in 0..3 {
        assert!(store.next_by(&per_target(1)).await.is_some());
    }
    assert_eq!(store.next_by(&per_target(1)).await, Some(to));
}

async fn a_job_that_one_bound_lets_through_is_kept_back_by_another(store: StoreSubject) {
    let limits = ClaimLimits { per_worker: Some(9), per_source: Some(1), per_target: Some(1) };
    let all = ClaimRequest { limits, ..request("one") };
    let (a, b) = (Endpoint::parse("a").unwrap(), Endpoint::parse("b").unwrap());
    let target = Some(TargetName::parse("t").unwrap());
    let shape = |endpoint: &Endpoint, target: &Option<TargetName>| {
        let (endpoint, target) = (endpoint.clone(), target.clone());
        move |vm: &mut SourceVm, spec: &mut JobSpec| {
            vm.identity.endpoint = endpoint;
            spec.target = target;
        }
    };
    let first = store.queued(0, shape(&a, &target)).await;
    // One has the source of the first, one its target, one neither.
    store.queued(1, shape(&a, &None)).await;
    store.queued(2, shape(&b, &target)).await;
    let free = store.queued(3, shape(&b, &None)).await;
    assert_eq!(store.next_by(&all).await, Some(first));
    assert_eq!(store.next_by(&all).await, Some(free));
    assert_eq!(store.next_by(&all).await, None);
}

async fn a_lease_that_has_ended_counts_against_no_bound(store: StoreSubject) {
    let first = store.queued_of(0, "a").await;
    let second = store.queued_of(1, "a").await;
    assert_eq!(store.next_by(&per_source(1)).await.as_ref(), Some(&first));
    assert_eq!(store.next_by(&per_source(1)).await, None);
    store.clock.advance(TTL);
    assert_eq!(store.next_by(&per_source(2)).await, Some(first));
    assert_eq!(store.next_by(&per_source(2)).await, Some(second));
}

async fn a_bound_of_zero_gives_nothing_out(store: StoreSubject) {
    let target = store.queued_to(1, "a").await;
    assert_eq!(store.next_by(&per_worker("one", 0)).await, None);
    assert_eq!(store.next_by(&per_source(0)).await, None);
    assert_eq!(store.next_by(&per_target(0)).await, None);
    assert_eq!(store.next("one").await.map(|lease| lease.job), Some(target));
}

async fn a_candidate_behind_very_many_that_are_bounded_is_found(store: StoreSubject) {
    for number in 0..70 {
        store.queued_of(number, "a").await;
    }
    let last = store.queued_of(70, "b").await;
    let urgent = store.queued(71, |_, spec| spec.priority = 1).await;
    assert_eq!(store.next_by(&per_source(1)).await, Some(urgent));
    assert_eq!(store.next_by(&per_source(1)).await, Some(JobId::parse("job-0").unwrap()));
    assert_eq!(store.next_by(&per_source(1)).await, Some(last));
    assert_eq!(store.next_by(&per_source(1)).await, None);
}
