use super::super::runner::table;
use super::*;
use crate::record::JobEnd;
use crate::state::{ContextStatus, DiskStatus, JobStatus};
use crate::{ContextId, Epoch, Fence};

pub(super) fn cases() -> Vec<Case<StoreSubject>> {
    table![
        a_new_job_has_the_next_epoch_and_its_disks,
        the_same_spec_again_answers_the_job_as_it_is,
        an_id_with_another_spec_exists_already,
        one_live_job_per_vm_and_the_refusal_names_it,
        of_many_inserts_at_once_exactly_one_wins,
        a_job_needs_a_known_vm_known_disks_and_none_twice,
        an_unknown_job_is_absent,
        jobs_are_listed_newest_first_and_by_filter,
        a_job_advances_only_from_the_state_named,
        advance_never_ends_a_job,
        a_failed_job_frees_its_vm_and_says_why,
        a_cancelled_job_frees_its_vm_and_says_why,
        an_ended_job_is_ended_for_good,
        after_a_failed_job_the_next_has_the_same_epoch,
    ]
}

async fn a_new_job_has_the_next_epoch_and_its_disks(store: StoreSubject) {
    let vm = store.vm().await;
    let spec = store.spec(&vm);
    let job = store.jobs.insert(spec.clone()).await.unwrap();
    assert_eq!((job.status, job.epoch, job.fence), (JobStatus::Initializing, Epoch(1), Fence::FIRST));
    assert_eq!((&job.disks, &job.owner, job.completed_at), (&spec.disks, &None, None));
    assert_eq!(store.jobs.get(&spec.id).await.unwrap().as_ref(), Some(&job));
    assert_eq!(store.jobs.live(&vm.id).await.unwrap().as_ref(), Some(&job));
    let vm = store.inventory.context(&vm.id).await.unwrap().unwrap();
    assert_eq!((vm.status, vm.current_job), (ContextStatus::Replicating, Some(spec.id.clone())));
    for disk in store.inventory.disks(&vm.id).await.unwrap() {
        assert_eq!((disk.job.as_ref(), disk.status), (Some(&spec.id), DiskStatus::Pending));
    }
}

async fn the_same_spec_again_answers_the_job_as_it_is(store: StoreSubject) {
    let vm = store.vm().await;
    let mut spec = store.spec(&vm);
    store.jobs.insert(spec.clone()).await.unwrap();
    let lease = store.jobs.claim(&spec.id, &worker("one"), TTL).await.unwrap();
    let now = store.advance(&lease, &[JobEvent::Provision]).await;
    spec.disks.reverse();
    assert_eq!(store.jobs.insert(spec).await.unwrap(), now);
}

async fn an_id_with_another_spec_exists_already(store: StoreSubject) {
    let vm = store.vm().await;
    let spec = store.spec(&vm);
    store.jobs.insert(spec.clone()).await.unwrap();
    let other = JobSpec { disks: vec![key(KEYS[0])], ..spec };
    assert_kind(store.jobs.insert(other).await, ErrorKind::AlreadyExists);
}

async fn one_live_job_per_vm_and_the_refusal_names_it(store: StoreSubject) {
    let vm = store.vm().await;
    let live = store.jobs.insert(store.spec(&vm)).await.unwrap();
    let error = store.jobs.insert(store.spec(&vm)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    assert!(error.chain().contains(live.id.as_str()), "{}", error.chain());
}

async fn of_many_inserts_at_once_exactly_one_wins(store: StoreSubject) {
    let vm = store.vm().await;
    let inserts = (0..16).map(|_| store.jobs.insert(store.spec(&vm)));
    let results = futures_util::future::join_all(inserts).await;
    assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 1);
    for refused in results.into_iter().filter(Result::is_err) {
        assert_kind(refused, ErrorKind::Conflict);
    }
    assert_eq!(store.listed(JobFilter::default()).await.len(), 1);
}

async fn a_job_needs_a_known_vm_known_disks_and_none_twice(store: StoreSubject) {
    let vm = store.vm().await;
    let spec = store.spec(&vm);
    let unknown_vm = JobSpec { context: ContextId::parse("ctx-none").unwrap(), ..spec.clone() };
    assert_kind(store.jobs.insert(unknown_vm).await, ErrorKind::NotFound);
    let unknown_disk = JobSpec { disks: vec![key("disk-9")], ..spec.clone() };
    assert_kind(store.jobs.insert(unknown_disk).await, ErrorKind::NotFound);
    assert_kind(store.jobs.insert(JobSpec { disks: Vec::new(), ..spec.clone() }).await, ErrorKind::Invalid);
    let twice = JobSpec { disks: vec![key(KEYS[0]), key(KEYS[0])], ..spec };
    assert_kind(store.jobs.insert(twice).await, ErrorKind::Invalid);
    assert_eq!(store.inventory.context(&vm.id).await.unwrap(), Some(vm));
}

async fn an_unknown_job_is_absent(store: StoreSubject) {
    let id = JobId::mint(store.clock.now());
    let vm = store.vm().await;
    assert_eq!(store.jobs.get(&id).await.unwrap(), None);
    assert_eq!(store.jobs.live(&vm.id).await.unwrap(), None);
    assert_kind(store.jobs.claim(&id, &worker("one"), TTL).await, ErrorKind::NotFound);
}

async fn jobs_are_listed_newest_first_and_by_filter(store: StoreSubject) {
    let mut made = Vec::new();
    for uuid in ["uuid-1", "uuid-2", "uuid-3"] {
        let vm = store.inventory.record(&source_vm(uuid)).await.unwrap();
        store.clock.advance(Duration::from_secs(1));
        made.push(store.jobs.insert(store.spec(&vm)).await.unwrap());
    }
    let lease = store.jobs.claim(&made[1].id, &worker("one"), TTL).await.unwrap();
    store.jobs.end(&lease, JobEnd::Failed("why".to_owned())).await.unwrap();
    let ids = |jobs: Vec<ReplicationJob>| jobs.into_iter().map(|job| job.id).collect::<Vec<_>>();
    let [a, b, c] = [0, 1, 2].map(|index: usize| made[index].id.clone());
    assert_eq!(ids(store.listed(JobFilter::default()).await), [c.clone(), b.clone(), a.clone()]);
    let live = JobFilter { live_only: true, ..JobFilter::default() };
    assert_eq!(ids(store.listed(live).await), [c, a]);
    let of_vm = JobFilter { context: Some(made[1].context.clone()), live_only: false };
    assert_eq!(ids(store.listed(of_vm).await), [b]);
}

async fn a_job_advances_only_from_the_state_named(store: StoreSubject) {
    let (_, lease) = store.claimed().await;
    let moved = store.jobs.advance(&lease, JobStatus::Initializing, JobEvent::Provision).await.unwrap();
    assert_eq!(moved.status, JobStatus::Provisioning);
    let stale = store.jobs.advance(&lease, JobStatus::Initializing, JobEvent::Provision).await;
    assert_kind(stale, ErrorKind::Conflict);
    assert_eq!(store.jobs.get(&lease.job).await.unwrap(), Some(moved));
}

async fn advance_never_ends_a_job(store: StoreSubject) {
    let (_, lease) = store.claimed().await;
    for event in [JobEvent::Fail, JobEvent::Cancel, JobEvent::Copied, JobEvent::Committed] {
        assert_kind(store.jobs.advance(&lease, JobStatus::Initializing, event).await, ErrorKind::Invalid);
    }
    let job = store
        .advance(&lease, &[JobEvent::Provision, JobEvent::Prepared, JobEvent::Copy, JobEvent::Copied])
        .await;
    assert_kind(store.jobs.advance(&lease, job.status, JobEvent::Committed).await, ErrorKind::Invalid);
}

async fn ends(store: &StoreSubject, end: JobEnd, status: JobStatus) {
    let (vm, lease) = store.claimed().await;
    store.clock.advance(Duration::from_secs(1));
    let job = store.jobs.end(&lease, end).await.unwrap();
    assert_eq!((job.status, job.error.as_deref(), &job.owner), (status, Some("why"), &None));
    assert_eq!(job.completed_at, Some(store.clock.now()));
    let vm = store.inventory.context(&vm.id).await.unwrap().unwrap();
    assert_eq!((vm.status, vm.current_job), (ContextStatus::Failed, None));
    for disk in store.inventory.disks(&vm.id).await.unwrap() {
        assert_eq!((disk.status, disk.change_id), (DiskStatus::Failed, None));
    }
    assert_eq!(store.jobs.live(&vm.id).await.unwrap(), None);
}

async fn a_failed_job_frees_its_vm_and_says_why(store: StoreSubject) {
    ends(&store, JobEnd::Failed("why".to_owned()), JobStatus::Failed).await;
}

async fn a_cancelled_job_frees_its_vm_and_says_why(store: StoreSubject) {
    ends(&store, JobEnd::Cancelled("why".to_owned()), JobStatus::Cancelled).await;
}

async fn an_ended_job_is_ended_for_good(store: StoreSubject) {
    let (_, lease) = store.claimed().await;
    let ended = store.jobs.end(&lease, JobEnd::Failed("why".to_owned())).await.unwrap();
    assert_kind(store.jobs.end(&lease, JobEnd::Cancelled("no".to_owned())).await, ErrorKind::Fenced);
    assert_kind(store.jobs.renew(&lease, TTL).await, ErrorKind::Fenced);
    assert_kind(store.jobs.claim(&lease.job, &worker("one"), TTL).await, ErrorKind::Conflict);
    let advance = store.jobs.advance(&lease, JobStatus::Initializing, JobEvent::Provision).await;
    assert_kind(advance, ErrorKind::Fenced);
    assert_eq!(store.jobs.get(&lease.job).await.unwrap(), Some(ended));
}

async fn after_a_failed_job_the_next_has_the_same_epoch(store: StoreSubject) {
    let (vm, lease) = store.claimed().await;
    store.jobs.end(&lease, JobEnd::Failed("why".to_owned())).await.unwrap();
    let next = store.second_job(&vm).await;
    assert_eq!(store.jobs.get(&next.job).await.unwrap().unwrap().epoch, Epoch(1));
}
