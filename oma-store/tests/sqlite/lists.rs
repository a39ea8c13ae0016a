use std::collections::BTreeSet;

use futures_util::TryStreamExt;
use oma_core::record::{JobFilter, Order};
use oma_core::state::JobStatus;
use oma_core::traits::{Inventory, JobStore};
use oma_core::{ContextId, JobId};
use sqlx::Executor;

use crate::fixture::{Folder, begun};

/// So many VMs with an ended job each, `ctx-00001` and `job-00001` onwards.
async fn fill(folder: &Folder, count: usize) {
    let numbers = format!(
        "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {count}), \
         k (t) AS (SELECT printf('%05d', i) FROM n)"
    );
    let vms = "INSERT INTO vm_replication_contexts (context_id, vmware_vm_id, vcenter_host, vm_name, vm_path, created_at, \
               updated_at, last_status_change) SELECT 'ctx-' || t, t, 'vc', 'web', '/web', 0, 0, 0 FROM k";
    let jobs = "INSERT INTO replication_jobs (id, vm_context_id, source_vm_id, source_vm_name, source_vm_path, vcenter_host, \
                replication_type, status, epoch, disk_ids, created_at, updated_at, completed_at) \
                SELECT 'job-' || t, 'ctx-' || t, t, 'web', '/web', 'vc', 'initial', 'failed', 1, '[\"disk-0\"]', 0, 0, 0 FROM k";
    let mut hand = folder.connect().await;
    for insert in [vms, jobs] {
        hand.execute(sqlx::AssertSqlSafe(format!("{numbers} {insert}"))).await.unwrap();
    }
}

#[tokio::test]
async fn lists_are_whole_and_in_order_however_many_pages_they_have() {
    for count in [1, 199, 200, 201, 400, 650] {
        let folder = Folder::new();
        let store = folder.open().await.unwrap();
        fill(&folder, count).await;
        let vms: Vec<_> = store.contexts(None).try_collect().await.unwrap();
        let expected: Vec<_> = (1..=count).map(|at| format!("ctx-{at:05}")).collect();
        assert_eq!(vms.iter().map(|vm| vm.id.as_str()).collect::<Vec<_>>(), expected);
        let jobs: Vec<_> = store.list(JobFilter::default()).try_collect().await.unwrap();
        let expected: Vec<_> = (1..=count).rev().map(|at| format!("job-{at:05}")).collect();
        assert_eq!(jobs.iter().map(|job| job.id.as_str()).collect::<Vec<_>>(), expected);
    }
}

#[tokio::test]
async fn a_list_goes_on_from_the_middle_over_all_its_pages() {
    let folder = Folder::new();
    let store = folder.open().await.unwrap();
    fill(&folder, 650).await;
    for after in [1, 199, 200, 201, 449, 450, 451, 650] {
        let last = ContextId::parse(format!("ctx-{after:05}")).unwrap();
        let vms: Vec<_> = store.contexts(Some(&last)).try_collect().await.unwrap();
        let expected: Vec<_> = (after + 1..=650).map(|at| format!("ctx-{at:05}")).collect();
        assert_eq!(vms.iter().map(|vm| vm.id.as_str()).collect::<Vec<_>>(), expected);
    }
}

#[tokio::test]
async fn live_jobs_are_found_among_many_that_ended() {
    let folder = Folder::new();
    let store = folder.open().await.unwrap();
    fill(&folder, 500).await;
    let (vm, lease) = begun(&store, "web").await;
    for context in [None, Some(vm.id)] {
        let filter = JobFilter { context, live_only: true, ..JobFilter::default() };
        let jobs: Vec<_> = store.list(filter).try_collect().await.unwrap();
        assert_eq!(jobs.into_iter().map(|job| job.id).collect::<Vec<_>>(), std::slice::from_ref(&lease.job));
    }
}

/// Of 650 jobs every 13th is cancelled, every other one of the rest completed: states of few, and of more than a page has.
#[tokio::test]
async fn lists_of_several_states_are_merged_over_all_their_pages_in_both_orders() {
    let folder = Folder::new();
    let store = folder.open().await.unwrap();
    fill(&folder, 650).await;
    let state = |at: usize| match at {
        at if at % 13 == 0 => JobStatus::Cancelled,
        at if at % 2 == 0 => JobStatus::Completed,
        _ => JobStatus::Failed,
    };
    let mut hand = folder.connect().await;
    hand.execute("UPDATE replication_jobs SET status = 'completed' WHERE seq % 2 = 0").await.unwrap();
    hand.execute("UPDATE replication_jobs SET status = 'cancelled' WHERE seq % 13 = 0").await.unwrap();
    let [failed, completed, cancelled] = [JobStatus::Failed, JobStatus::Completed, JobStatus::Cancelled];
    for states in [vec![cancelled], vec![failed], vec![failed, cancelled], vec![failed, completed, cancelled]]
    {
        for (order, after) in [Order::Newest, Order::Oldest]
            .into_iter()
            .flat_map(|order| [None, Some(1), Some(200), Some(449), Some(650)].map(|after| (order, after)))
        {
            let statuses: BTreeSet<_> = states.iter().copied().collect();
            let last = after.map(|at| JobId::parse(format!("job-{at:05}")).unwrap());
            let filter = JobFilter { statuses, order, after: last, ..JobFilter::default() };
            let mut expected: Vec<usize> = (1..=650)
                .filter(|at| states.contains(&state(*at)))
                .filter(|at| after.is_none_or(|after| order.is_behind(at, &after)))
                .collect();
            expected.sort_by(|one, other| order.compare(one, other));
            let expected: Vec<_> = expected.into_iter().map(|at| format!("job-{at:05}")).collect();
            let jobs: Vec<_> = store.list(filter).try_collect().await.unwrap();
            assert_eq!(jobs.iter().map(|job| job.id.as_str()).collect::<Vec<_>>(), expected);
        }
    }
}
