use std::collections::BTreeSet;

use futures_util::future::join_all;

use super::super::runner::table;
use super::*;
use crate::record::RetryPolicy;
use crate::state::JobStatus;
use crate::{Epoch, TargetName};

pub(super) fn cases() -> Vec<Case<StoreSubject>> {
    table![
        of_many_inserts_at_once_exactly_one_wins,
        of_many_claims_at_once_exactly_one_wins,
        extents_recorded_at_once_are_all_kept,
        l08_the_same_commit_many_times_at_once_is_one_epoch,
        l16_of_a_commit_and_a_claim_at_once_exactly_one_wins,
        l16_of_many_that_ask_for_the_next_job_no_two_get_the_same,
        no_more_jobs_of_a_source_are_driven_than_its_bound_however_many_ask_at_once,
        no_more_jobs_towards_a_target_are_driven_than_its_bound_however_many_ask_at_once,
        no_worker_drives_more_jobs_than_its_bound_however_often_it_asks_at_once,
        of_many_deferrals_at_once_exactly_one_counts,
    ]
}

async fn l16_of_many_that_ask_for_the_next_job_no_two_get_the_same(store: StoreSubject) {
    for number in 0..24 {
        store.queued(number, |_, _| ()).await;
    }
    let ask = |number| {
        let jobs = store.jobs.clone();
        async move {
            let (request, mut given) = (request(&format!("worker-{number}")), Vec::new());
            while let Some(lease) = jobs.claim_next(&request).await? {
                given.push(lease);
            }
            Ok(given)
        }
    };
    let given: Vec<_> = at_once((0..TASKS).map(ask)).await.into_iter().flat_map(Result::unwrap).collect();
    let jobs: BTreeSet<_> = given.iter().map(|lease| lease.job.clone()).collect();
    assert_eq!((given.len(), jobs.len()), (24, 24));
    for lease in given {
        store.jobs.renew(&lease, TTL).await.unwrap();
    }
}

/// Many workers ask at once for one of 8 jobs; answers how many are given out.
async fn given_at_once(store: &StoreSubject, limits: ClaimLimits, by: fn(u64) -> String) -> usize {
    let target = TargetName::parse("cloud-1").unwrap();
    for number in 0..8 {
        store.queued(number, |_, spec| spec.target = Some(target.clone())).await;
    }
    let ask = |number| {
        let (jobs, request) = (store.jobs.clone(), ClaimRequest { limits, ..request(&by(number)) });
        async move { jobs.claim_next(&request).await }
    };
    at_once((0..TASKS).map(ask)).await.into_iter().filter_map(Result::unwrap).count()
}

async fn no_more_jobs_of_a_source_are_driven_than_its_bound_however_many_ask_at_once(store: StoreSubject) {
    let limits = ClaimLimits { per_source: Some(3), ..ClaimLimits::default() };
    assert_eq!(given_at_once(&store, limits, |number| format!("worker-{number}")).await, 3);
}

async fn no_more_jobs_towards_a_target_are_driven_than_its_bound_however_many_ask_at_once(
    store: StoreSubject,
) {
    let limits = ClaimLimits { per_target: Some(3), ..ClaimLimits::default() };
    assert_eq!(given_at_once(&store, limits, |number| format!("worker-{number}")).await, 3);
}

async fn no_worker_drives_more_jobs_than_its_bound_however_often_it_asks_at_once(store: StoreSubject) {
    let limits = ClaimLimits { per_worker: Some(2), ..ClaimLimits::default() };
    assert_eq!(given_at_once(&store, limits, |number| format!("worker-{}", number % 2)).await, 4);
}

async fn of_many_deferrals_at_once_exactly_one_counts(store: StoreSubject) {
    let (_, lease) = store.claimed().await;
    let defer = |_| {
        let (jobs, lease) = (store.jobs.clone(), lease.clone());
        async move { jobs.defer(&lease, "why", &RetryPolicy::default()).await }
    };
    assert_one_won(at_once((0..TASKS).map(defer)).await, ErrorKind::Fenced);
    assert_eq!(store.job(&lease.job).await.attempts, 1);
}

const TASKS: u64 = 16;

/// Runs calls at once, each in a task of its own.
async fn at_once<T, F>(calls: impl Iterator<Item = F>) -> Vec<Result<T>>
where
    T: Send + 'static,
    F: Future<Output = Result<T>> + Send + 'static,
{
    let tasks: Vec<_> = calls.map(tokio::spawn).collect();
    join_all(tasks).await.into_iter().map(|outcome| outcome.unwrap()).collect()
}

/// Exactly one worked, and all others say `kind`.
fn assert_one_won<T: fmt::Debug>(results: Vec<Result<T>>, kind: ErrorKind) {
    let (won, lost): (Vec<_>, Vec<_>) = results.into_iter().partition(Result::is_ok);
    assert_eq!(won.len(), 1);
    lost.into_iter().for_each(|result| assert_kind(result, kind));
}

async fn of_many_inserts_at_once_exactly_one_wins(store: StoreSubject) {
    let vm = store.vm().await;
    let insert = |_| {
        let (jobs, spec) = (store.jobs.clone(), store.spec(&vm));
        async move { jobs.insert(spec).await }
    };
    assert_one_won(at_once((0..TASKS).map(insert)).await, ErrorKind::Conflict);
    assert_eq!(store.listed(JobFilter::default()).await.len(), 1);
}

async fn of_many_claims_at_once_exactly_one_wins(store: StoreSubject) {
    let vm = store.vm().await;
    let job = store.jobs.insert(store.spec(&vm)).await.unwrap();
    let claim = |number| {
        let (jobs, id, worker) = (store.jobs.clone(), job.id.clone(), worker(&format!("worker-{number}")));
        async move { jobs.claim(&id, &worker, TTL).await }
    };
    assert_one_won(at_once((0..TASKS).map(claim)).await, ErrorKind::Busy);
}

async fn extents_recorded_at_once_are_all_kept(store: StoreSubject) {
    let (vm, lease) = store.claimed().await;
    let disk = store.disk(&vm, KEYS[0]);
    store.journal.begin(&lease, &disk.key, &empty_journal()).await.unwrap();
    // Neighbours and overlaps: each is joined with what others record.
    let finished = |number: u64| extent(number * 100, if number % 4 == 3 { 50 } else { 110 });
    let record = |number| {
        let (journal, lease, key) = (store.journal.clone(), lease.clone(), disk.key.clone());
        async move { journal.record(&lease, &key, finished(number), ByteSize::new(1)).await }
    };
    at_once((0..TASKS).map(record)).await.into_iter().for_each(Result::unwrap);
    let model: ExtentSet = (0..TASKS).map(finished).collect();
    assert_eq!(store.journal.load(&disk).await.unwrap().unwrap().finished, model);
}

async fn l08_the_same_commit_many_times_at_once_is_one_epoch(store: StoreSubject) {
    let (vm, lease) = store.claimed().await;
    let commit = store.ready_to_commit(&vm, &lease, "first").await;
    let again = |_| {
        let (change_ids, lease, commit) = (store.change_ids.clone(), lease.clone(), commit.clone());
        async move { change_ids.commit_epoch(&lease, &commit).await }
    };
    at_once((0..TASKS).map(again)).await.into_iter().for_each(Result::unwrap);
    let world = store.world(&vm).await;
    assert_eq!(world.vm.unwrap().epoch, Epoch(1));
    assert!(world.histories.iter().all(|history| history.len() == 1));
}

async fn l16_of_a_commit_and_a_claim_at_once_exactly_one_wins(store: StoreSubject) {
    let (vm, lease) = store.claimed().await;
    let commit = store.ready_to_commit(&vm, &lease, "first").await;
    store.clock.advance(TTL * 2);
    let committing = tokio::spawn({
        let (change_ids, lease) = (store.change_ids.clone(), lease.clone());
        async move { change_ids.commit_epoch(&lease, &commit).await }
    });
    let claiming = tokio::spawn({
        let (jobs, id) = (store.jobs.clone(), lease.job.clone());
        async move { jobs.claim(&id, &worker("two"), TTL).await }
    });
    let (committed, claimed) = (committing.await.unwrap(), claiming.await.unwrap());
    let world = store.world(&vm).await;
    let (epoch, status) = (world.vm.unwrap().epoch, world.jobs[0].status);
    match committed {
        Ok(()) => {
            assert_kind(claimed, ErrorKind::Conflict);
            assert_eq!((epoch, status), (Epoch(1), JobStatus::Completed));
        }
        Err(error) => {
            assert_eq!((error.kind(), claimed.is_ok()), (ErrorKind::Fenced, true));
            assert_eq!((epoch, status), (Epoch::FIRST, JobStatus::Finalizing));
            assert!(world.disks.iter().all(|disk| disk.change_id.is_none()));
        }
    }
}
