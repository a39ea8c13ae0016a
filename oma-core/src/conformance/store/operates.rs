//! Jobs that change a single volume for an operator.

use super::super::runner::table;
use super::*;
use crate::RecoveryPointId;
use crate::record::{JobEnd, Needless, RecoveryPointSpec};
use crate::state::{JobKind, JobStatus};

pub(super) fn cases() -> Vec<Case<StoreSubject>> {
    table![
        a_job_that_operates_leaves_its_vm_and_disks_as_they_are,
        a_job_that_operates_ends_however_it_does_and_leaves_the_vm,
        a_job_that_operates_is_never_the_next_and_is_driven_by_who_names_it,
        while_a_job_operates_no_other_of_its_vm_begins,
        only_a_job_that_operates_is_done_without_an_epoch,
        l08_a_job_that_operates_commits_nothing,
    ]
}

async fn a_job_that_operates_leaves_its_vm_and_disks_as_they_are(store: StoreSubject) {
    let vm = store.replicated().await;
    let disks = store.inventory.disks(&vm.id).await.unwrap();
    let spec = store.operate_spec(&vm);
    let job = store.jobs.insert(spec.clone()).await.unwrap();
    assert_eq!((job.kind, job.status, &job.disks), (JobKind::Operate, JobStatus::Initializing, &spec.disks));
    assert_eq!(store.jobs.insert(spec).await.unwrap(), job);
    let now = store.inventory.context(&vm.id).await.unwrap().unwrap();
    assert_eq!((now.status, now.epoch, now.current_job), (vm.status, vm.epoch, Some(job.id)));
    assert_eq!(store.inventory.disks(&vm.id).await.unwrap(), disks);
}

async fn a_job_that_operates_ends_however_it_does_and_leaves_the_vm(store: StoreSubject) {
    let vm = store.replicated().await;
    let disks = store.inventory.disks(&vm.id).await.unwrap();
    let why = || "why".to_owned();
    for (end, status, error) in [
        (JobEnd::Done, JobStatus::Completed, None),
        (JobEnd::Failed(why()), JobStatus::Failed, Some(why())),
        (JobEnd::Cancelled(why()), JobStatus::Cancelled, Some(why())),
    ] {
        let lease = store.job_of(store.operate_spec(&vm)).await;
        let job = store.jobs.end(&lease, end.clone()).await.unwrap();
        assert_eq!((job.status, &job.error, &job.owner, job.due_at), (status, &error, &None, None));
        assert!(job.completed_at.is_some());
        assert_kind(store.jobs.end(&lease, end).await, ErrorKind::Fenced);
        let now = store.inventory.context(&vm.id).await.unwrap().unwrap();
        assert_eq!((now.status, now.epoch, now.current_job), (vm.status, vm.epoch, None));
        assert_eq!(store.inventory.disks(&vm.id).await.unwrap(), disks);
    }
}

async fn a_job_that_operates_is_never_the_next_and_is_driven_by_who_names_it(store: StoreSubject) {
    let vm = store.vm().await;
    let job = store.jobs.insert(store.operate_spec(&vm)).await.unwrap();
    assert_eq!(store.next("one").await, None);
    store.clock.advance(TTL * 2);
    assert_eq!(store.next("one").await, None);
    let lease = store.jobs.claim(&job.id, &worker("one"), TTL).await.unwrap();
    assert_kind(store.jobs.claim(&job.id, &worker("two"), TTL).await, ErrorKind::Busy);
    store.jobs.renew(&lease, TTL).await.unwrap();
}

async fn while_a_job_operates_no_other_of_its_vm_begins(store: StoreSubject) {
    let vm = store.vm().await;
    let lease = store.job_of(store.operate_spec(&vm)).await;
    for other in [store.spec(&vm), store.revert_spec(&vm), store.operate_spec(&vm)] {
        let error = store.jobs.insert(other).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Conflict);
        assert!(error.chain().contains(lease.job.as_str()), "{}", error.chain());
    }
    store.jobs.end(&lease, JobEnd::Done).await.unwrap();
    store.jobs.insert(store.spec(&vm)).await.unwrap();
    assert_kind(store.jobs.insert(store.operate_spec(&vm)).await, ErrorKind::Conflict);
}

async fn only_a_job_that_operates_is_done_without_an_epoch(store: StoreSubject) {
    let (vm, lease) = store.claimed().await;
    let before = store.world(&vm).await;
    assert_kind(store.jobs.end(&lease, JobEnd::Done).await, ErrorKind::Conflict);
    assert_eq!(store.world(&vm).await, before);
    store.jobs.end(&lease, JobEnd::Cancelled("why".to_owned())).await.unwrap();
    let reverts = store.job_of(store.revert_spec(&vm)).await;
    assert_kind(store.jobs.end(&reverts, JobEnd::Done).await, ErrorKind::Conflict);
}

async fn l08_a_job_that_operates_commits_nothing(store: StoreSubject) {
    let vm = store.replicated().await;
    let lease = store.job_of(store.operate_spec(&vm)).await;
    let commit = EpochCommit { context: vm.id.clone(), epoch: vm.epoch.next(), disks: Vec::new() };
    let before = store.world(&vm).await;
    assert_kind(store.change_ids.commit_epoch(&lease, &commit).await, ErrorKind::Conflict);
    let id = RecoveryPointId::mint();
    let spec = RecoveryPointSpec { id: id.clone(), volumes: Vec::new() };
    assert_kind(store.points.begin_point(&lease, &spec).await, ErrorKind::Conflict);
    assert_kind(store.points.condemn_point(&id, Needless::Unwanted, "why").await, ErrorKind::NotFound);
    assert_eq!(store.world(&vm).await, before);
}
