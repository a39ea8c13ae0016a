//! Everything in numbers.

use std::collections::BTreeMap;

use super::super::runner::table;
use super::*;
use crate::Timestamp;
use crate::record::{Ended, JobEnd, RetryPolicy, Summary};
use crate::state::{ContextStatus, JobStatus};

pub(super) fn cases() -> Vec<Case<StoreSubject>> {
    table![
        an_empty_store_sums_up_to_nothing,
        live_jobs_are_counted_by_state,
        ended_jobs_are_counted_by_state_with_what_they_made_durable,
        only_jobs_that_ended_since_are_counted,
        vms_are_counted_by_state,
        those_that_anybody_may_take_up_are_waiting,
        a_revert_waits_for_nobody,
    ]
}

impl StoreSubject {
    async fn summary(&self) -> Summary {
        self.overview.summary(Timestamp::from_millis(0)).await.unwrap()
    }
}

async fn an_empty_store_sums_up_to_nothing(store: StoreSubject) {
    assert_eq!(store.summary().await, Summary::default());
}

async fn live_jobs_are_counted_by_state(store: StoreSubject) {
    use JobEvent::{Copied, Copy, Prepared, Provision};
    let events = [Provision, Prepared, Copy, Copied];
    for (number, count) in [0, 0, 1, 2, 3, 3, 4].into_iter().enumerate() {
        store.queued(number, |_, _| ()).await;
        let lease = store.next("one").await.unwrap();
        store.advance(&lease, &events[..count]).await;
    }
    let summary = store.summary().await;
    assert_eq!(
        summary.live,
        BTreeMap::from([
            (JobStatus::Initializing, 2),
            (JobStatus::Provisioning, 1),
            (JobStatus::Ready, 1),
            (JobStatus::Replicating, 2),
            (JobStatus::Finalizing, 1),
        ])
    );
    assert_eq!((summary.ended, summary.waiting), (BTreeMap::new(), 0));
}

/// Ends a new job of a VM with so many bytes durable on each of its two disks.
async fn ended(store: &StoreSubject, number: usize, bytes: u64, end: JobEnd) {
    store.queued(number, |_, _| ()).await;
    let lease = store.next("one").await.unwrap();
    for key in KEYS.map(key) {
        store.journal.begin(&lease, &key, &empty_journal()).await.unwrap();
        store.journal.record(&lease, &key, extent(0, 1), ByteSize::new(bytes)).await.unwrap();
    }
    store.jobs.end(&lease, end).await.unwrap();
}

async fn ended_jobs_are_counted_by_state_with_what_they_made_durable(store: StoreSubject) {
    let failed = || JobEnd::Failed("why".to_owned());
    ended(&store, 1, 10, failed()).await;
    ended(&store, 2, 20, failed()).await;
    ended(&store, 3, 1 << 40, JobEnd::Cancelled("why".to_owned())).await;
    let (vm, lease) = store.claimed().await;
    let commit = store.ready_to_commit(&vm, &lease, "first").await;
    store.journal.record(&lease, &key(KEYS[0]), extent(0, 1), ByteSize::new(7)).await.unwrap();
    store.change_ids.commit_epoch(&lease, &commit).await.unwrap();
    let of = |jobs, bytes| Ended { jobs, bytes: ByteSize::new(bytes) };
    let expected = BTreeMap::from([
        (JobStatus::Completed, of(1, 7)),
        (JobStatus::Failed, of(2, 60)),
        (JobStatus::Cancelled, of(1, 2 << 40)),
    ]);
    assert_eq!(store.summary().await.ended, expected);
    // What the VM's next job does is not theirs.
    let next = store.second_job(&vm).await;
    store.journal.begin(&next, &key(KEYS[0]), &empty_journal()).await.unwrap();
    store.journal.record(&next, &key(KEYS[0]), extent(0, 1), ByteSize::new(99)).await.unwrap();
    assert_eq!(store.summary().await.ended, expected);
}

async fn only_jobs_that_ended_since_are_counted(store: StoreSubject) {
    for number in 0..3 {
        ended(&store, number, 1, JobEnd::Failed("why".to_owned())).await;
        store.clock.advance(Duration::from_secs(1));
    }
    let last = store.job(&JobId::parse("job-2").unwrap()).await.completed_at.unwrap();
    for (since, jobs) in [(last, Some(1)), (last.after(Duration::from_millis(1)), None)] {
        let summary = store.overview.summary(since).await.unwrap();
        assert_eq!(summary.ended.get(&JobStatus::Failed).map(|ended| ended.jobs), jobs);
    }
}

async fn vms_are_counted_by_state(store: StoreSubject) {
    store.inventory.record(&source_vm("uuid-new")).await.unwrap();
    store.replicated().await;
    for number in 0..2 {
        ended(&store, number, 1, JobEnd::Failed("why".to_owned())).await;
    }
    store.queued(2, |_, _| ()).await;
    let expected = BTreeMap::from([
        (ContextStatus::Discovered, 1),
        (ContextStatus::Replicating, 1),
        (ContextStatus::ReadyForFailover, 1),
        (ContextStatus::Failed, 2),
    ]);
    assert_eq!(store.summary().await.vms, expected);
}

async fn those_that_anybody_may_take_up_are_waiting(store: StoreSubject) {
    store.queued(0, |_, _| ()).await;
    store.clock.advance(Duration::from_secs(1));
    let second = store.clock.now();
    store.queued(1, |_, _| ()).await;
    store.clock.advance(Duration::from_secs(1));
    store.queued(2, |_, _| ()).await;
    let waiting = |summary: Summary| (summary.waiting, summary.oldest_due);
    let lease = store.next("one").await.unwrap();
    assert_eq!(waiting(store.summary().await), (2, Some(second)));
    store.next("one").await.unwrap();
    let third = store.next("one").await.unwrap();
    assert_eq!(waiting(store.summary().await), (0, None));
    // A wait after a failure is not over; a lease that has ended is.
    let patient = RetryPolicy { attempts: 9, first: TTL * 9, longest: TTL * 9 };
    store.jobs.defer(&third, "why", &patient).await.unwrap();
    store.jobs.renew(&lease, TTL * 3).await.unwrap();
    store.clock.advance(TTL);
    assert_eq!(waiting(store.summary().await), (1, store.job(&JobId::parse("job-1").unwrap()).await.due_at));
}

/// Nobody claims it but whoever asked for it.
async fn a_revert_waits_for_nobody(store: StoreSubject) {
    let vm = store.vm().await;
    store.jobs.insert(store.revert_spec(&vm)).await.unwrap();
    let summary = store.summary().await;
    assert_eq!(summary.live, BTreeMap::from([(JobStatus::Initializing, 1)]));
    assert_eq!((summary.waiting, summary.oldest_due), (0, None));
}
