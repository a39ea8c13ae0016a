use super::super::runner::table;
use super::*;
use crate::Timestamp;
use crate::record::{JobEnd, OperationFilter, OperationPlace, Order, VolumeFilter};
use crate::state::{OperationStatus, VolumeStatus};

pub(super) fn cases() -> Vec<Case<StoreSubject>> {
    table![
        vms_are_listed_from_any_id_on,
        volumes_are_listed_from_any_id_on,
        volumes_are_listed_by_vm_and_by_state_from_any_id_on,
        operations_are_listed_from_any_place_on_by_each_filter,
        operations_are_listed_by_every_filter_together_in_both_orders,
        a_volume_is_found_by_its_device_of_its_machine_alone,
        jobs_left_to_a_worker_operate_and_are_its_own_or_nobodys,
        operations_left_are_those_of_vms_without_a_live_job,
        deletions_are_listed_by_when_they_are_due,
    ]
}

async fn vms_are_listed_from_any_id_on(store: StoreSubject) {
    for uuid in ["uuid-3", "uuid-1", "uuid-2"] {
        store.inventory.record(&source_vm(uuid)).await.unwrap();
    }
    let listed = async |after: Option<&ContextId>| -> Vec<VmContext> {
        store.inventory.contexts(after).try_collect().await.unwrap()
    };
    let all = listed(None).await;
    for (at, vm) in all.iter().enumerate() {
        assert_eq!(listed(Some(&vm.id)).await, all[at + 1..]);
        let of_none = ContextId::parse(format!("{}0", vm.id)).unwrap();
        assert_eq!(listed(Some(&of_none)).await, all[at + 1..]);
    }
    assert_eq!(listed(Some(&ContextId::parse("!").unwrap())).await, all);
}

async fn volumes_are_listed_from_any_id_on(store: StoreSubject) {
    let (vm, lease) = store.claimed().await;
    let disk = store.disk(&vm, KEYS[0]);
    for id in ["vol-c", "vol-a", "vol-B", "vol-b"] {
        store.provision(&lease, &disk, id).await;
    }
    let gone = VolumeId::parse("vol-b").unwrap();
    store.volumes.forget(&lease, &gone).await.unwrap();
    let listed = async |after: Option<&VolumeId>| -> Vec<VolumeId> {
        let behind = VolumeFilter::behind(after.cloned());
        store.volumes.volumes(behind).map_ok(|volume| volume.id).try_collect().await.unwrap()
    };
    let all = listed(None).await;
    assert_eq!(all.iter().map(VolumeId::as_str).collect::<Vec<_>>(), ["vol-B", "vol-a", "vol-c"]);
    for (at, id) in all.iter().enumerate() {
        assert_eq!(listed(Some(id)).await, all[at + 1..]);
    }
    assert_eq!(listed(Some(&gone)).await, all[2..], "removed since");
}

async fn volumes_are_listed_by_vm_and_by_state_from_any_id_on(store: StoreSubject) {
    let (vm, lease) = store.claimed().await;
    let other = store.job_of_another_vm().await;
    let other_vm = store.job(&other.job).await.context;
    for (at, key) in KEYS.into_iter().enumerate() {
        store.provision(&lease, &store.disk(&vm, key), &format!("vol-a{at}")).await;
        let disk = DiskRef { context: other_vm.clone(), key: self::key(key) };
        store.provision(&other, &disk, &format!("vol-b{at}")).await;
    }
    let detached = store.disk(&vm, KEYS[0]);
    let id = VolumeId::parse("vol-a0").unwrap();
    let detach = store.operation(&lease, &detached, OperationKind::Detach, Some(&id));
    store.carry_out(&lease, &detach, &store.backend_volume("vol-a0", None)).await.unwrap();
    store.volumes.forget(&other, &VolumeId::parse("vol-b1").unwrap()).await.unwrap();
    let all: Vec<_> = store.volumes.volumes(VolumeFilter::default()).try_collect().await.unwrap();
    assert_eq!(all.len(), 3);
    let states: Vec<_> = VolumeStatus::ALL.iter().copied().map(Some).chain([None]).collect();
    let unknown = ContextId::parse("ctx-none").unwrap();
    let mut filters = Vec::new();
    for status in states {
        for context in [None, Some(&vm.id), Some(&other_vm), Some(&unknown)] {
            filters.push(VolumeFilter { context: context.cloned(), status, after: None });
        }
    }
    let places: Vec<_> = [None].into_iter().chain(all.iter().map(|volume| Some(volume.id.clone()))).collect();
    for VolumeFilter { context, status, .. } in filters {
        for after in places.clone() {
            let filter = VolumeFilter { context: context.clone(), status, after: after.clone() };
            let mut expected = all.clone();
            expected.retain(|volume| {
                context.as_ref().is_none_or(|vm| volume.disk.context == *vm)
                    && status.is_none_or(|status| volume.status == status)
                    && after.as_ref().is_none_or(|after| volume.id > *after)
            });
            let listed: Vec<_> = store.volumes.volumes(filter.clone()).try_collect().await.unwrap();
            assert_eq!(listed, expected, "{filter:?}");
        }
    }
}

/// Every VM with every volume, kind and state, from every place on.
async fn operations_are_listed_by_every_filter_together_in_both_orders(store: StoreSubject) {
    let (vm, lease) = store.claimed().await;
    let other = store.job_of_another_vm().await;
    let other_vm = store.job(&other.job).await.context;
    let made = store.provision(&lease, &store.disk(&vm, KEYS[0]), "vol-a").await;
    store.provision(&other, &DiskRef { context: other_vm.clone(), key: key(KEYS[0]) }, "vol-b").await;
    store.clock.advance(Duration::from_secs(1));
    let refused = store.operation(&lease, &made.disk, OperationKind::Resize, Some(&made.id));
    store.volumes.begin(&lease, &refused).await.unwrap();
    store.volumes.fail(&lease, &refused.id, "no room").await.unwrap();
    let detach = store.operation(&lease, &made.disk, OperationKind::Detach, Some(&made.id));
    store.volumes.begin(&lease, &detach).await.unwrap();
    let listed = async |filter: &OperationFilter| -> Vec<Operation> {
        store.volumes.operations(filter.clone()).try_collect().await.unwrap()
    };
    let all = listed(&OperationFilter::default()).await;
    assert_eq!(all.len(), 6);
    let (none, gone) = (ContextId::parse("ctx-none").unwrap(), VolumeId::parse("vol-none").unwrap());
    let vms = [None, Some(vm.id.clone()), Some(other_vm), Some(none)];
    let volumes = [None, Some(made.id.clone()), Some(gone)];
    let kinds = [None, Some(OperationKind::Attach), Some(OperationKind::Resize), Some(OperationKind::Delete)];
    let states = [None, Some(OperationStatus::Completed), Some(OperationStatus::Executing)];
    let mut filters = Vec::new();
    for (context, volume) in vms.iter().flat_map(|vm| volumes.iter().map(move |volume| (vm, volume))) {
        for (kind, status) in kinds.iter().flat_map(|kind| states.iter().map(move |status| (*kind, *status)))
        {
            for order in [Order::Newest, Order::Oldest] {
                let (context, volume) = (context.clone(), volume.clone());
                let filter =
                    OperationFilter { context, volume, kind, status, order, ..OperationFilter::default() };
                filters.push(filter);
            }
        }
    }
    let places: Vec<Option<OperationPlace>> =
        [None].into_iter().chain([1, 4].map(|at: usize| Some(all[at].place()))).collect();
    for filter in filters {
        for after in places.clone() {
            let order = filter.order;
            let filter = OperationFilter { after: after.clone(), ..filter.clone() };
            let mut expected = all.clone();
            expected.retain(|item| {
                let Operation { spec, made, status, .. } = item;
                let is_of = |id: &VolumeId| spec.volume.as_ref() == Some(id) || made.as_ref() == Some(id);
                filter.context.as_ref().is_none_or(|vm| spec.disk.context == *vm)
                    && filter.volume.as_ref().is_none_or(is_of)
                    && filter.kind.is_none_or(|kind| spec.kind == kind)
                    && filter.status.is_none_or(|wanted| *status == wanted)
                    && after.as_ref().is_none_or(|after| match order {
                        Order::Newest => item.place() < *after,
                        Order::Oldest => item.place() > *after,
                    })
            });
            if order == Order::Oldest {
                expected.reverse();
            }
            assert_eq!(listed(&filter).await, expected, "{filter:?}");
        }
    }
}

async fn operations_are_listed_from_any_place_on_by_each_filter(store: StoreSubject) {
    let (vm, lease) = store.claimed().await;
    let disks = KEYS.map(|text| store.disk(&vm, text));
    let volume = store.provision(&lease, &disks[0], "vol-1").await;
    // Three of one moment, then two of another one.
    for at in 0..3 {
        let refused = store.operation(&lease, &disks[1], OperationKind::Create, None);
        store.volumes.begin(&lease, &refused).await.unwrap();
        store.volumes.fail(&lease, &refused.id, "no room").await.unwrap();
        store.clock.advance(Duration::from_secs(at / 2));
    }
    for disk in &disks {
        let kind = if disk.key.as_str() == KEYS[0] { OperationKind::Detach } else { OperationKind::Create };
        let of = (kind == OperationKind::Detach).then_some(&volume.id);
        store.volumes.begin(&lease, &store.operation(&lease, disk, kind, of)).await.unwrap();
    }
    let listed = async |filter: &OperationFilter| -> Vec<Operation> {
        store.volumes.operations(filter.clone()).try_collect().await.unwrap()
    };
    let all = || OperationFilter::default();
    for (filter, count) in [
        (all(), 7),
        (OperationFilter { context: Some(vm.id.clone()), ..all() }, 7),
        (OperationFilter { volume: Some(volume.id.clone()), ..all() }, 3),
        (OperationFilter { kind: Some(OperationKind::Create), ..all() }, 5),
        (OperationFilter { status: Some(OperationStatus::Failed), ..all() }, 3),
        (OperationFilter { status: Some(OperationStatus::Executing), ..all() }, 2),
    ] {
        let whole = listed(&filter).await;
        assert_eq!(whole.len(), count, "{filter:?}");
        assert!(whole.is_sorted_by(|a, b| a.place() > b.place()), "{whole:?}");
        for place in listed(&all()).await.iter().map(Operation::place) {
            let behind: Vec<_> = whole.iter().filter(|item| item.place() < place).cloned().collect();
            assert_eq!(listed(&OperationFilter { after: Some(place), ..filter.clone() }).await, behind);
        }
    }
}

async fn a_volume_is_found_by_its_device_of_its_machine_alone(store: StoreSubject) {
    let (vm, lease) = store.claimed().await;
    let disk = store.disk(&vm, KEYS[0]);
    let volume = store.provision(&lease, &disk, "vol-1").await;
    let path = volume.device_path.clone().unwrap();
    let at = async |machine: &str, path: &str| store.volumes.volume_at(&worker(machine), path).await.unwrap();
    assert_eq!(at("one", &path).await.as_ref(), Some(&volume));
    assert_eq!(at("two", &path).await, None, "another machine's device");
    for other in ["/dev/none", "", "/DEV/mapper/vol-1", "/dev/mapper/vol-1 ", "/dev/mapper/vol-1\0"] {
        assert_eq!(at("one", other).await, None, "{other:?}");
    }
    let detach = store.operation(&lease, &disk, OperationKind::Detach, Some(&volume.id));
    store.carry_out(&lease, &detach, &store.backend_volume("vol-1", None)).await.unwrap();
    assert_eq!(at("one", &path).await, None, "detached");
}

async fn jobs_left_to_a_worker_operate_and_are_its_own_or_nobodys(store: StoreSubject) {
    let mut jobs = Vec::new();
    for (at, holder) in [None, Some("one"), Some("two"), Some("gave it back")].into_iter().enumerate() {
        let vm = store.inventory.record(&source_vm(&format!("uuid-left-{at}"))).await.unwrap();
        let job = store.jobs.insert(store.operate_spec(&vm)).await.unwrap();
        match holder {
            None => {}
            Some("gave it back") => {
                let lease = store.jobs.claim(&job.id, &worker("two"), TTL).await.unwrap();
                store.jobs.release(&lease).await.unwrap();
            }
            Some(holder) => drop(store.jobs.claim(&job.id, &worker(holder), TTL).await.unwrap()),
        }
        jobs.push(job);
    }
    let (vm, ended) = (store.vm().await, store.job_of_another_vm().await);
    store.jobs.insert(store.spec(&vm)).await.unwrap();
    store.jobs.end(&ended, JobEnd::Failed("why".to_owned())).await.unwrap();
    let left_to = async |by: &str, context: Option<ContextId>| -> Vec<JobId> {
        let left =
            store.listed(JobFilter { left_to: Some(worker(by)), context, ..JobFilter::default() }).await;
        left.into_iter().map(|job| job.id).collect()
    };
    let [free, one, two, back] = [0, 1, 2, 3].map(|at: usize| jobs[at].id.clone());
    assert_eq!(left_to("one", None).await, [back.clone(), one.clone(), free.clone()]);
    assert_eq!(left_to("two", None).await, [back.clone(), two.clone(), free.clone()]);
    assert_eq!(left_to("two", Some(jobs[0].context.clone())).await, std::slice::from_ref(&free));
    store.clock.advance(TTL);
    assert_eq!(left_to("one", None).await, [back, two.clone(), one, free]);
    store.jobs.claim(&two, &worker("one"), TTL).await.unwrap();
}

async fn operations_left_are_those_of_vms_without_a_live_job(store: StoreSubject) {
    let (vm, lease) = store.claimed().await;
    let disks = KEYS.map(|text| store.disk(&vm, text));
    let volume = store.provision(&lease, &disks[0], "vol-1").await;
    let detach = store.operation(&lease, &disks[0], OperationKind::Detach, Some(&volume.id));
    let create = store.operation(&lease, &disks[1], OperationKind::Create, None);
    for spec in [&detach, &create] {
        store.volumes.begin(&lease, spec).await.unwrap();
        store.clock.advance(Duration::from_secs(1));
    }
    let all = || OperationFilter { left_only: true, ..OperationFilter::default() };
    let left = async |filter: OperationFilter| -> Vec<OperationId> {
        store.volumes.operations(filter).map_ok(|left| left.spec.id).try_collect().await.unwrap()
    };
    assert_eq!(left(all()).await, []);
    store.jobs.end(&lease, JobEnd::Failed("why".to_owned())).await.unwrap();
    assert_eq!(left(all()).await, [create.id.clone(), detach.id.clone()]);
    let of_volume = OperationFilter { volume: Some(volume.id), ..all() };
    assert_eq!(left(of_volume).await, std::slice::from_ref(&detach.id));
    let of_vm = OperationFilter { context: Some(vm.id.clone()), kind: Some(OperationKind::Create), ..all() };
    assert_eq!(left(of_vm).await, std::slice::from_ref(&create.id));
    assert_eq!(left(OperationFilter { status: Some(OperationStatus::Completed), ..all() }).await, []);
    let next = store.second_job(&vm).await;
    assert_eq!(left(all()).await, [], "another job has them now");
    store.volumes.fail(&next, &create.id, "why").await.unwrap();
    store.jobs.end(&next, JobEnd::Failed("why".to_owned())).await.unwrap();
    assert_eq!(left(all()).await, [detach.id]);
}

async fn deletions_are_listed_by_when_they_are_due(store: StoreSubject) {
    let vm = store.replicated().await;
    let lease = store.job_of(store.operate_spec(&vm)).await;
    let disk = store.disk(&vm, KEYS[0]);
    let volume = store.volumes.volume_of(&disk).await.unwrap().unwrap();
    let detach = store.operation(&lease, &disk, OperationKind::Detach, Some(&volume.id));
    let answer = store.backend_volume(volume.id.as_str(), None);
    store.carry_out(&lease, &detach, &answer).await.unwrap();
    let delete = store.operation(&lease, &disk, OperationKind::Delete, Some(&volume.id));
    let due_at = store.volumes.condemn(&lease, &delete, TTL).await.unwrap().due_at.unwrap();
    let due_by = async |by: Timestamp| -> Vec<OperationId> {
        let filter = OperationFilter { due_by: Some(by), ..OperationFilter::default() };
        let of_vm = OperationFilter { context: Some(vm.id.clone()), ..filter.clone() };
        let due = store.volumes.operations(filter).map_ok(|due| due.spec.id).try_collect::<Vec<_>>();
        let due = due.await.unwrap();
        assert_eq!(store.volumes.operations(of_vm).try_collect::<Vec<_>>().await.unwrap().len(), due.len());
        due
    };
    assert_eq!(due_by(Timestamp::from_millis(due_at.as_millis() - 1)).await, []);
    assert_eq!(due_by(due_at).await, std::slice::from_ref(&delete.id));
    store.clock.advance(TTL);
    let lease = store.jobs.renew(&lease, TTL).await.unwrap();
    store.volumes.execute(&lease, &delete.id).await.unwrap();
    assert_eq!(due_by(Timestamp::MAX).await, [], "it has begun");
}
