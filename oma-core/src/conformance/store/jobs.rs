use super::super::runner::table;
use super::*;
use crate::record::JobEnd;
use crate::state::{ContextStatus, DiskStatus, JobKind, JobStatus};
use crate::{Epoch, Fence, TargetName};

pub(super) fn cases() -> Vec<Case<StoreSubject>> {
    table![
        a_new_job_has_the_next_epoch_and_its_disks,
        l25_a_new_job_has_synced_no_byte,
        the_same_spec_again_answers_the_job_as_it_is,
        an_id_with_another_spec_exists_already,
        one_live_job_per_vm_and_the_refusal_names_it,
        a_job_needs_a_known_vm_known_disks_and_none_twice,
        an_unknown_job_is_absent,
        jobs_are_listed_newest_first_and_by_filter,
        a_job_advances_only_from_the_state_named,
        advance_never_ends_a_job,
        a_failed_job_frees_its_vm_and_says_why,
        a_cancelled_job_frees_its_vm_and_says_why,
        an_ended_job_is_ended_for_good,
        after_a_failed_job_the_next_has_the_same_epoch,
        an_ended_job_is_answered_to_its_spec_beside_a_live_one,
        a_job_takes_only_its_own_disks,
        a_job_ends_in_any_live_state,
        an_ended_job_leaves_volumes_journals_and_exports,
        times_come_from_the_clock,
        a_job_keeps_its_priority_and_its_target,
        due_at_says_when_anybody_may_take_a_job_up,
    ]
}

async fn a_job_keeps_its_priority_and_its_target(store: StoreSubject) {
    let vm = store.vm().await;
    let target = Some(TargetName::parse("cloud-1").unwrap());
    let spec = JobSpec { priority: i32::MIN, target, ..store.spec(&vm) };
    let job = store.jobs.insert(spec.clone()).await.unwrap();
    assert_eq!((job.priority, &job.target), (i32::MIN, &spec.target));
    assert_eq!(store.job(&spec.id).await, job);
    assert_eq!(store.jobs.insert(spec).await.unwrap(), job);
}

async fn due_at_says_when_anybody_may_take_a_job_up(store: StoreSubject) {
    let vm = store.vm().await;
    let id = store.jobs.insert(store.spec(&vm)).await.unwrap().id;
    assert_eq!(store.job(&id).await.due_at, Some(store.clock.now()));
    let lease = store.jobs.claim(&id, &worker("one"), TTL).await.unwrap();
    assert_eq!(store.job(&id).await.due_at, Some(lease.expires_at));
    store.clock.advance(TTL / 2);
    let renewed = store.jobs.renew(&lease, TTL).await.unwrap();
    assert_eq!(store.job(&id).await.due_at, Some(renewed.expires_at));
    store.jobs.release(&lease).await.unwrap();
    assert_eq!(store.job(&id).await.due_at, Some(store.clock.now()));
    let lease = store.jobs.claim(&id, &worker("one"), TTL).await.unwrap();
    store.jobs.end(&lease, JobEnd::Cancelled("why".to_owned())).await.unwrap();
    assert_eq!(store.job(&id).await.due_at, None);
}

async fn a_new_job_has_the_next_epoch_and_its_disks(store: StoreSubject) {
    let vm = store.vm().await;
    let spec = store.spec(&vm);
    let job = store.jobs.insert(spec.clone()).await.unwrap();
    assert_eq!((job.status, job.epoch, job.fence), (JobStatus::Initializing, Epoch(1), Fence::FIRST));
    assert_eq!((&job.disks, &job.owner, job.completed_at), (&spec.disks, &None, None));
    assert_eq!((job.priority, &job.target, job.attempts), (0, &None, 0));
    assert_eq!(store.jobs.get(&spec.id).await.unwrap().as_ref(), Some(&job));
    assert_eq!(store.jobs.live(&vm.id).await.unwrap().as_ref(), Some(&job));
    let vm = store.inventory.context(&vm.id).await.unwrap().unwrap();
    assert_eq!((vm.status, vm.current_job), (ContextStatus::Replicating, Some(spec.id.clone())));
    for disk in store.inventory.disks(&vm.id).await.unwrap() {
        assert_eq!((disk.job.as_ref(), disk.status), (Some(&spec.id), DiskStatus::Pending));
    }
}

async fn l25_a_new_job_has_synced_no_byte(store: StoreSubject) {
    let (vm, lease) = store.claimed().await;
    let disk = store.disk(&vm, KEYS[0]);
    store.journal.begin(&lease, &disk.key, &empty_journal()).await.unwrap();
    store.journal.record(&lease, &disk.key, extent(0, 100), ByteSize::new(100)).await.unwrap();
    store.jobs.end(&lease, JobEnd::Failed("why".to_owned())).await.unwrap();
    assert_eq!(store.inventory.disk(&disk).await.unwrap().unwrap().bytes_synced, ByteSize::new(100));
    store.second_job(&vm).await;
    assert_eq!(store.inventory.disk(&disk).await.unwrap().unwrap().bytes_synced, ByteSize::ZERO);
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
    let target = Some(TargetName::parse("cloud-1").unwrap());
    for other in [
        JobSpec { disks: vec![key(KEYS[0])], ..spec.clone() },
        JobSpec { replication_type: ReplicationType::Incremental, ..spec.clone() },
        JobSpec { priority: 1, ..spec.clone() },
        JobSpec { kind: JobKind::Revert, ..spec.clone() },
        JobSpec { target, ..spec.clone() },
    ] {
        assert_kind(store.jobs.insert(other).await, ErrorKind::AlreadyExists);
    }
}

async fn one_live_job_per_vm_and_the_refusal_names_it(store: StoreSubject) {
    let vm = store.vm().await;
    let live = store.jobs.insert(store.spec(&vm)).await.unwrap();
    let before = store.world(&vm).await;
    store.clock.advance(Duration::from_secs(1));
    let error = store.jobs.insert(store.spec(&vm)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    assert!(error.chain().contains(live.id.as_str()), "{}", error.chain());
    assert_eq!(store.world(&vm).await, before);
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
    assert_eq!(ids(store.listed(live.clone()).await), [c.clone(), a.clone()]);
    let behind = |id: &JobId, filter: &JobFilter| JobFilter { after: Some(id.clone()), ..filter.clone() };
    assert_eq!(ids(store.listed(behind(&c, &JobFilter::default())).await), [b.clone(), a.clone()]);
    assert_eq!(ids(store.listed(behind(&b, &live)).await), std::slice::from_ref(&a));
    assert_eq!(ids(store.listed(behind(&a, &JobFilter::default())).await), []);
    let unknown = JobId::parse("job-none").unwrap();
    let listed = store.jobs.list(behind(&unknown, &live)).try_collect::<Vec<_>>().await;
    assert_kind(listed, ErrorKind::NotFound);
    let of_vm = JobFilter { context: Some(made[1].context.clone()), ..JobFilter::default() };
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

async fn an_ended_job_is_answered_to_its_spec_beside_a_live_one(store: StoreSubject) {
    let vm = store.vm().await;
    let spec = store.spec(&vm);
    let lease = store.job_of(spec.clone()).await;
    let ended = store.jobs.end(&lease, JobEnd::Failed("why".to_owned())).await.unwrap();
    store.second_job(&vm).await;
    let before = store.world(&vm).await;
    assert_eq!(store.jobs.insert(spec).await.unwrap(), ended);
    assert_eq!(store.world(&vm).await, before);
}

async fn a_job_takes_only_its_own_disks(store: StoreSubject) {
    let vm = store.replicated().await;
    let before = store.inventory.disks(&vm.id).await.unwrap();
    let lease = store.job_of(JobSpec { disks: vec![key(KEYS[1])], ..store.spec(&vm) }).await;
    let taken = store.inventory.disks(&vm.id).await.unwrap();
    assert_eq!(taken[0], before[0]);
    assert_eq!((taken[1].job.as_ref(), taken[1].status), (Some(&lease.job), DiskStatus::Pending));
    assert_eq!((&taken[1].change_id, &taken[1].volume), (&before[1].change_id, &before[1].volume));
    store.jobs.end(&lease, JobEnd::Failed("why".to_owned())).await.unwrap();
    assert_eq!(store.inventory.disks(&vm.id).await.unwrap()[0], before[0]);
}

async fn a_job_ends_in_any_live_state(store: StoreSubject) {
    use JobEvent::{Copied, Copy, Prepared, Provision};
    let vm = store.vm().await;
    let events = [Provision, Prepared, Copy, Copied];
    for count in 0..=events.len() {
        let lease = store.second_job(&vm).await;
        store.advance(&lease, &events[..count]).await;
        let ended = store.jobs.end(&lease, JobEnd::Cancelled("why".to_owned())).await.unwrap();
        assert_eq!(ended.status, JobStatus::Cancelled);
    }
}

async fn an_ended_job_leaves_volumes_journals_and_exports(store: StoreSubject) {
    let (vm, lease) = store.claimed().await;
    let commit = store.ready_to_commit(&vm, &lease, "first").await;
    store.exports.begin(&lease, &name("x"), &key(KEYS[0]), &commit.disks[0].volume).await.unwrap();
    let before = store.world(&vm).await;
    store.jobs.end(&lease, JobEnd::Failed("why".to_owned())).await.unwrap();
    let after = store.world(&vm).await;
    assert_eq!((after.volumes, after.exports), (before.volumes, before.exports));
    assert_eq!((after.more, after.histories), (before.more, before.histories));
}

async fn times_come_from_the_clock(store: StoreSubject) {
    let vm = store.vm().await;
    let first = store.clock.now();
    let lease = store.second_job(&vm).await;
    let inserted = store.clock.now();
    store.clock.advance(Duration::from_millis(1));
    let job = store.jobs.advance(&lease, JobStatus::Initializing, JobEvent::Provision).await.unwrap();
    assert_eq!((job.created_at, job.updated_at), (inserted, store.clock.now()));
    let vm = store.inventory.context(&vm.id).await.unwrap().unwrap();
    assert_eq!((vm.created_at, vm.updated_at), (first, inserted));
    let disk = store.disk(&vm, KEYS[0]);
    assert_eq!(store.inventory.disk(&disk).await.unwrap().unwrap().updated_at, inserted);
    let spec = store.operation(&lease, &disk, OperationKind::Create, None);
    assert_eq!(store.volumes.begin(&lease, &spec).await.unwrap().created_at, store.clock.now());
}
