use super::super::runner::table;
use super::*;
use crate::record::OperationFilter;
use crate::state::OperationStatus;

pub(super) fn cases() -> Vec<Case<StoreSubject>> {
    table![
        vms_are_listed_from_any_id_on,
        volumes_are_listed_from_any_id_on,
        operations_are_listed_from_any_place_on_by_each_filter,
        a_volume_is_found_by_its_device_of_its_machine_alone,
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
        store.volumes.volumes(after).map_ok(|volume| volume.id).try_collect().await.unwrap()
    };
    let all = listed(None).await;
    assert_eq!(all.iter().map(VolumeId::as_str).collect::<Vec<_>>(), ["vol-B", "vol-a", "vol-c"]);
    for (at, id) in all.iter().enumerate() {
        assert_eq!(listed(Some(id)).await, all[at + 1..]);
    }
    assert_eq!(listed(Some(&gone)).await, all[2..], "removed since");
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
