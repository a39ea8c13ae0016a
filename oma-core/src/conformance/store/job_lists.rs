use std::collections::BTreeSet;

use super::super::runner::table;
use super::*;
use crate::record::{JobEnd, Order};
use crate::state::JobStatus;

pub(super) fn cases() -> Vec<Case<StoreSubject>> {
    table![
        jobs_are_listed_by_every_set_of_states_in_both_orders,
        jobs_are_listed_behind_each_of_them_in_both_orders,
        a_list_of_states_that_no_job_stands_in_is_empty,
        jobs_that_change_and_come_while_pages_are_read_are_told_once,
        jobs_behind_one_that_is_not_recorded_are_refused_in_both_orders,
        jobs_left_to_a_worker_are_listed_by_state_in_both_orders,
    ]
}

const ORDERS: [Order; 2] = [Order::Newest, Order::Oldest];

impl StoreSubject {
    /// A job of each state, and two more of one VM, in the order of their insertion.
    async fn job_of_each_state(&self) -> Vec<JobId> {
        let mut all = Vec::new();
        for (at, status) in JobStatus::ALL.iter().enumerate() {
            let vm = self.inventory.record(&source_vm(&format!("uuid-{at}"))).await.unwrap();
            if *status == JobStatus::Failed {
                for _ in 0..2 {
                    all.push(self.job_that_is(&vm, JobStatus::Failed).await);
                }
            }
            all.push(self.job_that_is(&vm, *status).await);
        }
        all
    }

    async fn job_that_is(&self, vm: &VmContext, status: JobStatus) -> JobId {
        use JobEvent::{Copied, Copy, Prepared, Provision};
        let lease = self.job_of(self.spec(vm)).await;
        let why = || "why".to_owned();
        let events: &[JobEvent] = match status {
            JobStatus::Provisioning => &[Provision],
            JobStatus::Ready => &[Provision, Prepared],
            JobStatus::Replicating => &[Provision, Prepared, Copy],
            JobStatus::Finalizing => &[Provision, Prepared, Copy, Copied],
            _ => &[],
        };
        self.advance(&lease, events).await;
        match status {
            JobStatus::Failed => drop(self.jobs.end(&lease, JobEnd::Failed(why())).await.unwrap()),
            JobStatus::Cancelled => drop(self.jobs.end(&lease, JobEnd::Cancelled(why())).await.unwrap()),
            JobStatus::Completed => {
                let commit = self.ready_to_commit(vm, &lease, "first").await;
                self.change_ids.commit_epoch(&lease, &commit).await.unwrap();
            }
            _ => {}
        }
        assert_eq!(self.job(&lease.job).await.status, status);
        lease.job
    }
}

/// Every pair of states, one by itself, none, and all.
fn sets() -> Vec<BTreeSet<JobStatus>> {
    let all = JobStatus::ALL;
    let pairs = all.iter().flat_map(|one| all.iter().map(|other| BTreeSet::from([*one, *other])));
    let mut sets: Vec<_> = pairs.chain([BTreeSet::new(), all.iter().copied().collect()]).collect();
    sets.sort();
    sets.dedup();
    sets
}

async fn jobs_are_listed_by_every_set_of_states_in_both_orders(store: StoreSubject) {
    let recorded = store.job_of_each_state().await;
    let mut all = Vec::new();
    for id in &recorded {
        all.push(store.job(id).await);
    }
    let of_vm = all.last().map(|_| all[JobStatus::ALL.len() - 1].context.clone());
    for (statuses, live_only) in sets().into_iter().flat_map(|set| [(set.clone(), false), (set, true)]) {
        for context in [None, of_vm.clone()] {
            let filter = JobFilter { statuses: statuses.clone(), live_only, context, ..JobFilter::default() };
            let mut expected: Vec<_> = all.clone();
            expected.retain(|job| {
                (statuses.is_empty() || statuses.contains(&job.status))
                    && !(live_only && job.status.is_terminal())
                    && filter.context.as_ref().is_none_or(|vm| job.context == *vm)
            });
            let oldest = JobFilter { order: Order::Oldest, ..filter.clone() };
            assert_eq!(store.listed(oldest).await, expected, "{filter:?}");
            expected.reverse();
            assert_eq!(store.listed(filter.clone()).await, expected, "{filter:?}");
        }
    }
}

async fn jobs_are_listed_behind_each_of_them_in_both_orders(store: StoreSubject) {
    let recorded = store.job_of_each_state().await;
    let failed = BTreeSet::from([JobStatus::Failed]);
    let two = BTreeSet::from([JobStatus::Failed, JobStatus::Replicating]);
    for (order, statuses) in ORDERS
        .iter()
        .flat_map(|order| [BTreeSet::new(), failed.clone(), two.clone()].map(|statuses| (*order, statuses)))
    {
        let filter = JobFilter { order, statuses, ..JobFilter::default() };
        let whole = store.listed(filter.clone()).await;
        assert!(!whole.is_empty());
        for (at, id) in recorded.iter().enumerate() {
            let place = |job: &ReplicationJob| recorded.iter().position(|known| *known == job.id).unwrap();
            let behind: Vec<_> =
                whole.iter().filter(|job| order.is_behind(&place(job), &at)).cloned().collect();
            let listed = store.listed(JobFilter { after: Some(id.clone()), ..filter.clone() }).await;
            assert_eq!(listed, behind, "{order} behind {at}");
        }
    }
}

async fn a_list_of_states_that_no_job_stands_in_is_empty(store: StoreSubject) {
    let (vm, _) = store.claimed().await;
    for order in ORDERS {
        let statuses = BTreeSet::from([JobStatus::Completed, JobStatus::Failed]);
        let filter = JobFilter { statuses, order, ..JobFilter::default() };
        assert_eq!(store.listed(filter.clone()).await, []);
        let none = JobFilter { live_only: true, ..filter.clone() };
        assert_eq!(store.listed(none).await, [], "no state is left");
        assert_eq!(store.listed(JobFilter { context: Some(vm.id.clone()), ..filter }).await, []);
    }
}

/// Two states of which a job goes from one to the other between two parts, one that leaves both, and one that is recorded.
async fn jobs_that_change_and_come_while_pages_are_read_are_told_once(store: StoreSubject) {
    for order in ORDERS {
        let mut leases = Vec::new();
        for at in 0..6 {
            let vm = store.inventory.record(&source_vm(&format!("uuid-{order}-{at}"))).await.unwrap();
            leases.push(store.job_of(store.spec(&vm)).await);
        }
        let statuses = BTreeSet::from([JobStatus::Initializing, JobStatus::Provisioning]);
        let mut filter = JobFilter { statuses, order, ..JobFilter::default() };
        let (mut told, mut late, mut turn) = (Vec::new(), Vec::new(), 0);
        loop {
            let part: Vec<_> = store.listed(filter.clone()).await.into_iter().take(2).collect();
            let Some(last) = part.last() else { break };
            filter.after = Some(last.id.clone());
            told.extend(part.into_iter().map(|job| job.id));
            // Of what was told and of what was not: the two ends and the middle of the list.
            match turn {
                0 => {
                    for at in [0, 3, 5] {
                        store.advance(&leases[at], &[JobEvent::Provision]).await;
                    }
                    let vm = store.inventory.record(&source_vm(&format!("uuid-{order}-late"))).await.unwrap();
                    late.push(store.job_of(store.spec(&vm)).await);
                }
                1 => {
                    store.advance(&leases[2], &[JobEvent::Provision]).await;
                    store.advance(&leases[3], &[JobEvent::Prepared]).await;
                }
                _ => {}
            }
            turn += 1;
        }
        let (late, known) = (late[0].job.clone(), |at: usize| leases[at].job.clone());
        let expected: Vec<_> = match order {
            Order::Newest => [5, 4, 3, 2, 1, 0].map(known).into(),
            Order::Oldest => [0, 1, 2, 3, 4, 5].map(known).into_iter().chain([late]).collect(),
        };
        // The one that left both states was told before.
        assert_eq!(told, expected, "{order}");
        for lease in leases {
            store.jobs.end(&lease, JobEnd::Failed("why".to_owned())).await.unwrap();
        }
        for left in store.listed(JobFilter { live_only: true, ..JobFilter::default() }).await {
            let lease = store.jobs.claim(&left.id, &worker("one"), TTL).await.unwrap();
            store.jobs.end(&lease, JobEnd::Failed("why".to_owned())).await.unwrap();
        }
    }
}

async fn jobs_behind_one_that_is_not_recorded_are_refused_in_both_orders(store: StoreSubject) {
    store.claimed().await;
    let unknown = Some(JobId::parse("job-none").unwrap());
    for order in ORDERS {
        for statuses in [BTreeSet::new(), BTreeSet::from([JobStatus::Failed])] {
            let filter = JobFilter { after: unknown.clone(), order, statuses, ..JobFilter::default() };
            assert_kind(store.jobs.list(filter).try_collect::<Vec<_>>().await, ErrorKind::NotFound);
        }
    }
}

async fn jobs_left_to_a_worker_are_listed_by_state_in_both_orders(store: StoreSubject) {
    let mut jobs = Vec::new();
    for at in 0..3 {
        let vm = store.inventory.record(&source_vm(&format!("uuid-{at}"))).await.unwrap();
        jobs.push(store.jobs.insert(store.operate_spec(&vm)).await.unwrap().id);
    }
    let left = async |order: Order, status: JobStatus, after: Option<&JobId>| -> Vec<JobId> {
        let filter = JobFilter {
            left_to: Some(worker("one")),
            statuses: BTreeSet::from([status]),
            order,
            after: after.cloned(),
            ..JobFilter::default()
        };
        store.listed(filter).await.into_iter().map(|job| job.id).collect()
    };
    assert_eq!(left(Order::Oldest, JobStatus::Initializing, None).await, jobs);
    assert_eq!(left(Order::Oldest, JobStatus::Initializing, Some(&jobs[1])).await, jobs[2..]);
    assert_eq!(left(Order::Newest, JobStatus::Initializing, Some(&jobs[1])).await, jobs[..1]);
    assert_eq!(left(Order::Newest, JobStatus::Ready, None).await, []);
}
