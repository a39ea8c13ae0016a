use super::super::runner::table;
use super::*;
use crate::record::{
    Cleanup, CleanupAction, CleanupEnd, CleanupFilter, CleanupItem, CleanupItemKind, CleanupNews,
    CleanupPlan, CleanupSpec, CleanupVolume, JobEnd, KeepVolumes, Order, Orphans, Presence, VolumeTag,
};
use crate::state::{CleanupStatus, CleanupStepStatus, ExportEvent, JobStatus};
use crate::traits::SnapshotSpec;
use crate::{CleanupId, FailoverJobId, RecoveryPointId, SnapshotId};

pub(super) fn cases() -> Vec<Case<StoreSubject>> {
    table![
        a_cleanup_comes_back_as_it_was_recorded,
        a_cleanup_is_recorded_once_by_its_id,
        a_cleanup_of_an_unknown_vm_is_not_found,
        l26_steps_are_told_of_while_it_is_executing,
        l26_it_is_completed_only_when_every_step_is_done,
        a_cleanup_that_has_ended_stays_so,
        a_plan_that_was_never_begun_can_be_refused,
        another_cleanup_of_the_job_takes_its_place,
        cleanups_are_listed_newest_first,
        cleanups_are_listed_by_job_and_state_in_both_orders,
        old_cleanups_are_pruned_and_one_that_is_executing_stays,
        an_unknown_cleanup_is_not_found,
        a_cleanup_outlives_its_job,
        a_vm_without_a_failover_has_none,
        what_is_left_of_a_job_is_counted,
    ]
}

fn plan(vm: &VmContext, job: &JobId) -> CleanupPlan {
    let disk = DiskRef { context: vm.id.clone(), key: key(KEYS[0]) };
    let instance = crate::InstanceId::mint();
    let tag = VolumeTag { instance: instance.clone(), disk: disk.clone(), generation: Generation::FIRST };
    let volume = CleanupVolume {
        id: VolumeId::parse("vol-1").unwrap(),
        disk: disk.clone(),
        generation: Generation(2),
        held_epoch: true,
        found: Presence::Present { tag: Some(tag) },
    };
    let snapshot = SnapshotSpec {
        id: SnapshotId::mint(job),
        volume: volume.id.clone(),
        tag: VolumeTag { instance: instance.clone(), disk: disk.clone(), generation: Generation(2) },
        job: job.clone(),
    };
    let missing = CleanupVolume { found: Presence::Missing, ..volume.clone() };
    let unmarked = CleanupVolume { found: Presence::Present { tag: None }, ..volume.clone() };
    let item = |protected: Option<&str>| CleanupItem {
        kind: CleanupItemKind::Volume,
        id: "vol-1".to_owned(),
        detail: "\"web\" ü 😀".to_owned(),
        protected: protected.map(str::to_owned),
    };
    CleanupPlan {
        instance,
        job: job.clone(),
        job_status: Some(JobStatus::Failed),
        context: vm.id.clone(),
        vm: vm.path.clone(),
        failover_job: Some(FailoverJobId::parse("failover-1").unwrap()),
        volumes: KeepVolumes::Condemn,
        first: vec!["see that it answers".to_owned()],
        items: vec![item(None), item(Some("it holds an epoch"))],
        steps: vec![
            CleanupAction::Withdraw { export: name("web"), disk },
            CleanupAction::DropPoint { point: RecoveryPointId::mint() },
            CleanupAction::DropSnapshot { snapshot },
            CleanupAction::Detach { volume: volume.clone() },
            CleanupAction::Delete { volume: volume.clone() },
            CleanupAction::Condemn { volume },
            CleanupAction::Condemn { volume: unmarked },
            CleanupAction::Forget { volume: missing },
            CleanupAction::DeleteFailover { failover_job: FailoverJobId::parse("failover-1").unwrap() },
            CleanupAction::DeleteJob { job: job.clone() },
            CleanupAction::Check,
        ],
    }
}

fn spec(vm: &VmContext, job: &JobId) -> CleanupSpec {
    CleanupSpec { id: CleanupId::mint(), worker: worker("one"), plan: plan(vm, job) }
}

fn short(vm: &VmContext, job: &JobId) -> CleanupSpec {
    let whole = spec(vm, job);
    let steps = vec![CleanupAction::DeleteJob { job: job.clone() }, CleanupAction::Check];
    CleanupSpec { plan: CleanupPlan { steps, ..whole.plan }, ..whole }
}

fn news(status: CleanupStepStatus) -> CleanupNews {
    CleanupNews { status, error: None, operation: None }
}

impl StoreSubject {
    async fn planned(&self) -> (VmContext, Cleanup) {
        let (vm, lease) = self.claimed().await;
        let planned = self.cleanups.insert_cleanup(&short(&vm, &lease.job)).await.unwrap();
        (vm, planned)
    }

    async fn cleanup_now(&self, id: &CleanupId) -> Cleanup {
        self.cleanups.cleanup(id).await.unwrap().unwrap()
    }

    async fn all_done(&self, cleanup: &Cleanup) {
        for step in 0..cleanup.steps.len() {
            self.cleanups.tell_step(&cleanup.spec.id, step, &news(CleanupStepStatus::Done)).await.unwrap();
        }
    }

    async fn cleanup_ids(&self, filter: CleanupFilter) -> Vec<CleanupId> {
        let all: Vec<Cleanup> = self.cleanups.cleanups(filter).try_collect().await.unwrap();
        all.into_iter().map(|cleanup| cleanup.spec.id).collect()
    }
}

async fn a_cleanup_comes_back_as_it_was_recorded(store: StoreSubject) {
    let (vm, lease) = store.claimed().await;
    let spec = spec(&vm, &lease.job);
    let planned = store.cleanups.insert_cleanup(&spec).await.unwrap();
    assert_eq!((&planned.spec, planned.status, planned.left), (&spec, CleanupStatus::Planned, None));
    let actions: Vec<_> = planned.steps.iter().map(|step| step.action.clone()).collect();
    assert_eq!(actions, spec.plan.steps);
    assert!(planned.steps.iter().all(|step| step.status == CleanupStepStatus::Pending));
    assert_eq!(planned.created_at, store.clock.now());
    assert_eq!(store.cleanup_now(&spec.id).await, planned);
    assert_eq!(planned.spec.plan.digest(), spec.plan.digest());
}

async fn a_cleanup_is_recorded_once_by_its_id(store: StoreSubject) {
    let (vm, lease) = store.claimed().await;
    let spec = spec(&vm, &lease.job);
    let planned = store.cleanups.insert_cleanup(&spec).await.unwrap();
    assert_eq!(store.cleanups.insert_cleanup(&spec).await.unwrap(), planned);
    let other = CleanupSpec { worker: worker("two"), ..spec };
    assert_kind(store.cleanups.insert_cleanup(&other).await, ErrorKind::AlreadyExists);
    assert_eq!(store.cleanup_ids(CleanupFilter::default()).await, [planned.spec.id]);
}

async fn a_cleanup_of_an_unknown_vm_is_not_found(store: StoreSubject) {
    let (vm, lease) = store.claimed().await;
    let unknown = spec(&VmContext { id: ContextId::mint(), ..vm }, &lease.job);
    assert_kind(store.cleanups.insert_cleanup(&unknown).await, ErrorKind::NotFound);
    assert_eq!(store.cleanups.cleanup(&unknown.id).await.unwrap(), None);
}

async fn l26_steps_are_told_of_while_it_is_executing(store: StoreSubject) {
    let (_, planned) = store.planned().await;
    let id = &planned.spec.id;
    let done = news(CleanupStepStatus::Done);
    assert_kind(store.cleanups.tell_step(id, 0, &done).await, ErrorKind::Conflict);
    assert_eq!(store.cleanups.begin_cleanup(id).await.unwrap().status, CleanupStatus::Executing);
    let operation = OperationId::mint();
    let begun = CleanupNews { operation: Some(operation.clone()), ..news(CleanupStepStatus::Executing) };
    store.cleanups.tell_step(id, 0, &begun).await.unwrap();
    for failures in 1..3 {
        let failed = CleanupNews { error: Some("why".to_owned()), ..news(CleanupStepStatus::Failed) };
        store.cleanups.tell_step(id, 0, &failed).await.unwrap();
        let step = store.cleanup_now(id).await.steps.swap_remove(0);
        assert_eq!((step.status, step.failures), (CleanupStepStatus::Failed, failures));
        assert_eq!((step.error.as_deref(), step.operation.as_ref()), (Some("why"), Some(&operation)));
    }
    store.cleanups.tell_step(id, 0, &done).await.unwrap();
    let now = store.cleanup_now(id).await;
    assert_eq!((now.steps[0].status, now.steps[0].error.as_ref()), (CleanupStepStatus::Done, None));
    assert_eq!(now.steps[1].status, CleanupStepStatus::Pending);
    assert_kind(store.cleanups.tell_step(id, 2, &done).await, ErrorKind::NotFound);
}

async fn l26_it_is_completed_only_when_every_step_is_done(store: StoreSubject) {
    let (_, planned) = store.planned().await;
    let id = &planned.spec.id;
    let end = CleanupEnd::Completed(Orphans::default());
    let unclean = CleanupEnd::Completed(Orphans { disks: 1, ..Orphans::default() });
    assert_kind(store.cleanups.end_cleanup(id, &end).await, ErrorKind::Conflict);
    store.cleanups.begin_cleanup(id).await.unwrap();
    store.cleanups.tell_step(id, 0, &news(CleanupStepStatus::Done)).await.unwrap();
    assert_kind(store.cleanups.end_cleanup(id, &end).await, ErrorKind::Conflict);
    store.cleanups.tell_step(id, 1, &news(CleanupStepStatus::Done)).await.unwrap();
    assert_kind(store.cleanups.end_cleanup(id, &unclean).await, ErrorKind::Conflict);
    assert_eq!(store.cleanup_now(id).await.status, CleanupStatus::Executing);
    let ended = store.cleanups.end_cleanup(id, &end).await.unwrap();
    assert_eq!((ended.status, ended.left), (CleanupStatus::Completed, Some(Orphans::default())));
    assert_kind(store.cleanups.end_cleanup(id, &unclean).await, ErrorKind::Conflict);
    assert_eq!(store.cleanups.end_cleanup(id, &end).await.unwrap(), ended);
}

async fn a_cleanup_that_has_ended_stays_so(store: StoreSubject) {
    let (_, planned) = store.planned().await;
    let id = &planned.spec.id;
    store.cleanups.begin_cleanup(id).await.unwrap();
    store.all_done(&planned).await;
    let ended = store.cleanups.end_cleanup(id, &CleanupEnd::Completed(Orphans::default())).await.unwrap();
    assert_kind(store.cleanups.begin_cleanup(id).await, ErrorKind::Conflict);
    let refused = CleanupEnd::Refused("why".to_owned());
    assert_kind(store.cleanups.end_cleanup(id, &refused).await, ErrorKind::Conflict);
    assert_kind(store.cleanups.tell_step(id, 0, &news(CleanupStepStatus::Failed)).await, ErrorKind::Conflict);
    assert_eq!(store.cleanup_now(id).await, ended);
}

async fn a_plan_that_was_never_begun_can_be_refused(store: StoreSubject) {
    let (_, planned) = store.planned().await;
    let refused = CleanupEnd::Refused("the world changed".to_owned());
    let ended = store.cleanups.end_cleanup(&planned.spec.id, &refused).await.unwrap();
    assert_eq!((ended.status, ended.error.as_deref()), (CleanupStatus::Refused, Some("the world changed")));
    assert_eq!(store.cleanups.end_cleanup(&planned.spec.id, &refused).await.unwrap(), ended);
    assert_kind(store.cleanups.begin_cleanup(&planned.spec.id).await, ErrorKind::Conflict);
}

async fn another_cleanup_of_the_job_takes_its_place(store: StoreSubject) {
    let (vm, first) = store.planned().await;
    let of_another = store.job_of_another_vm().await;
    let others = store.cleanups.insert_cleanup(&short(&vm, &of_another.job)).await.unwrap();
    store.cleanups.begin_cleanup(&others.spec.id).await.unwrap();
    let begun = store.cleanups.begin_cleanup(&first.spec.id).await.unwrap();
    assert_eq!(store.cleanups.begin_cleanup(&first.spec.id).await.unwrap(), begun);
    let second = store.cleanups.insert_cleanup(&short(&vm, &first.spec.plan.job)).await.unwrap();
    assert_eq!(store.cleanup_now(&first.spec.id).await.status, CleanupStatus::Executing);
    store.cleanups.begin_cleanup(&second.spec.id).await.unwrap();
    let now = store.cleanup_now(&first.spec.id).await;
    assert_eq!((now.status, now.error), (CleanupStatus::Refused, Some(Cleanup::superseded(&second.spec.id))));
    assert_eq!(store.cleanup_now(&others.spec.id).await.status, CleanupStatus::Executing);
}

async fn cleanups_are_listed_newest_first(store: StoreSubject) {
    let (vm, lease) = store.claimed().await;
    let other = store.job_of_another_vm().await;
    let mut ids = Vec::new();
    for job in [&lease.job, &other.job, &lease.job] {
        ids.push(store.cleanups.insert_cleanup(&short(&vm, job)).await.unwrap().spec.id);
    }
    store.cleanups.begin_cleanup(&ids[0]).await.unwrap();
    let all = CleanupFilter::default();
    assert_eq!(store.cleanup_ids(all.clone()).await, [&ids[2], &ids[1], &ids[0]].map(Clone::clone));
    let behind = CleanupFilter { after: Some(ids[2].clone()), ..all.clone() };
    assert_eq!(store.cleanup_ids(behind).await, [&ids[1], &ids[0]].map(Clone::clone));
    let of_job = CleanupFilter { job: Some(lease.job.clone()), ..all.clone() };
    assert_eq!(store.cleanup_ids(of_job.clone()).await, [&ids[2], &ids[0]].map(Clone::clone));
    let executing = CleanupFilter { status: Some(CleanupStatus::Executing), ..all.clone() };
    assert_eq!(store.cleanup_ids(executing.clone()).await, [ids[0].clone()]);
    let both = CleanupFilter { job: of_job.job, status: Some(CleanupStatus::Planned), ..all.clone() };
    assert_eq!(store.cleanup_ids(both).await, [ids[2].clone()]);
    let behind_none = CleanupFilter { after: Some(CleanupId::mint()), ..all };
    assert_kind(store.cleanups.cleanups(behind_none).try_collect::<Vec<_>>().await, ErrorKind::NotFound);
}

async fn cleanups_are_listed_by_job_and_state_in_both_orders(store: StoreSubject) {
    let (vm, lease) = store.claimed().await;
    let other = store.job_of_another_vm().await;
    let mut recorded = Vec::new();
    for job in [&lease.job, &other.job, &lease.job, &lease.job, &other.job] {
        recorded.push(store.cleanups.insert_cleanup(&short(&vm, job)).await.unwrap());
    }
    for at in [0, 4] {
        recorded[at] = store.cleanups.begin_cleanup(&recorded[at].spec.id).await.unwrap();
    }
    let places: Vec<Option<usize>> = [None].into_iter().chain((0..5).map(Some)).collect();
    let states =
        [None, Some(CleanupStatus::Planned), Some(CleanupStatus::Executing), Some(CleanupStatus::Refused)];
    for (job, status) in
        [None, Some(&lease.job), Some(&other.job)].map(|job| states.map(|status| (job, status))).concat()
    {
        for (order, after) in [Order::Newest, Order::Oldest]
            .map(|order| places.clone().into_iter().map(move |at| (order, at)))
            .into_iter()
            .flatten()
            .collect::<Vec<_>>()
        {
            let behind = after.map(|at| recorded[at].spec.id.clone());
            let filter = CleanupFilter { job: job.cloned(), status, order, after: behind };
            let mut expected: Vec<_> = recorded.iter().enumerate().collect();
            expected.retain(|(at, cleanup)| {
                job.is_none_or(|job| cleanup.spec.plan.job == *job)
                    && status.is_none_or(|status| cleanup.status == status)
                    && after.is_none_or(|after| order.is_behind(at, &after))
            });
            expected.sort_by(|(one, _), (other, _)| order.compare(one, other));
            let expected: Vec<_> = expected.into_iter().map(|(_, cleanup)| cleanup.spec.id.clone()).collect();
            assert_eq!(store.cleanup_ids(filter.clone()).await, expected, "{filter:?}");
        }
    }
}

async fn old_cleanups_are_pruned_and_one_that_is_executing_stays(store: StoreSubject) {
    let (vm, lease) = store.claimed().await;
    let other = store.job_of_another_vm().await;
    let mut ids = Vec::new();
    for job in [&lease.job, &lease.job, &other.job, &lease.job] {
        ids.push(store.cleanups.insert_cleanup(&short(&vm, job)).await.unwrap().spec.id);
    }
    let refused = CleanupEnd::Refused("why".to_owned());
    store.cleanups.end_cleanup(&ids[1], &refused).await.unwrap();
    store.cleanups.begin_cleanup(&ids[2]).await.unwrap();
    let first = store.cleanup_now(&ids[0]).await.updated_at;
    assert_eq!(store.cleanups.prune_cleanups(first).await.unwrap(), 0, "none is older than the first");
    store.clock.advance(Duration::from_secs(60));
    store.cleanups.begin_cleanup(&ids[3]).await.unwrap();
    let ended = store.cleanups.end_cleanup(&ids[3], &refused).await.unwrap();
    assert_eq!(store.cleanups.prune_cleanups(ended.updated_at).await.unwrap(), 2);
    assert_eq!(store.cleanup_ids(CleanupFilter::default()).await, [ids[3].clone(), ids[2].clone()]);
    let long_after = ended.updated_at.after(Duration::from_secs(60));
    assert_eq!(store.cleanups.prune_cleanups(long_after).await.unwrap(), 1);
    assert_eq!(store.cleanup_ids(CleanupFilter::default()).await, [ids[2].clone()]);
}

async fn an_unknown_cleanup_is_not_found(store: StoreSubject) {
    let id = CleanupId::mint();
    assert_eq!(store.cleanups.cleanup(&id).await.unwrap(), None);
    assert_kind(store.cleanups.begin_cleanup(&id).await, ErrorKind::NotFound);
    assert_kind(store.cleanups.tell_step(&id, 0, &news(CleanupStepStatus::Done)).await, ErrorKind::NotFound);
    assert_kind(
        store.cleanups.end_cleanup(&id, &CleanupEnd::Refused(String::new())).await,
        ErrorKind::NotFound,
    );
}

async fn a_cleanup_outlives_its_job(store: StoreSubject) {
    let (vm, lease) = store.claimed().await;
    let planned = store.cleanups.insert_cleanup(&short(&vm, &lease.job)).await.unwrap();
    store.jobs.end(&lease, JobEnd::Failed("why".to_owned())).await.unwrap();
    store.jobs.delete(&lease.job).await.unwrap();
    assert_eq!(store.cleanup_now(&planned.spec.id).await, planned);
    let left = store.cleanups.orphans(&lease.job, &vm.id).await.unwrap();
    assert_eq!(left, Orphans::default());
}

async fn a_vm_without_a_failover_has_none(store: StoreSubject) {
    let (vm, _) = store.claimed().await;
    assert_eq!(store.cleanups.failovers(&vm.id).await.unwrap(), []);
    store.cleanups.forget_failover(&FailoverJobId::parse("failover-1").unwrap()).await.unwrap();
}

async fn what_is_left_of_a_job_is_counted(store: StoreSubject) {
    let (vm, lease) = store.claimed().await;
    let left =
        |exports, operations| Orphans { exports, export_mappings: exports, operations, ..Orphans::default() };
    let count = async || store.cleanups.orphans(&lease.job, &vm.id).await.unwrap();
    assert_eq!(count().await, left(0, 0));
    let volume = store.provision(&lease, &store.disk(&vm, KEYS[0]), "vol-1").await.id;
    store.exports.begin(&lease, &name("web"), &key(KEYS[0]), &volume).await.unwrap();
    assert_eq!(count().await, left(1, 0));
    let disk = DiskRef { context: vm.id.clone(), key: key(KEYS[1]) };
    let create = OperationSpec {
        capacity: Some(ByteSize::mib(8)),
        ..OperationSpec::new(OperationId::mint(), OperationKind::Create, disk, lease.job.clone())
    };
    store.volumes.begin(&lease, &create).await.unwrap();
    assert_eq!(count().await, left(1, 1));
    store.exports.advance(&lease, &name("web"), ExportEvent::Stopped).await.unwrap();
    store.exports.remove(&name("web")).await.unwrap();
    store.volumes.fail(&lease, &create.id, "why").await.unwrap();
    assert_eq!(count().await, left(0, 0));
}
