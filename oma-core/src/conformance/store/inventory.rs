use super::super::runner::table;
use super::*;
use crate::record::JobEnd;
use crate::state::{ContextStatus, DiskStatus};
use crate::{ContextId, Epoch};

pub(super) fn cases() -> Vec<Case<StoreSubject>> {
    table![
        what_was_never_recorded_is_absent,
        a_recorded_vm_is_found_by_id_identity_and_path,
        recording_again_changes_nothing,
        a_vm_is_found_again_by_its_identity_whatever_its_name_and_path,
        the_same_uuid_at_another_endpoint_is_another_vm,
        of_several_vms_with_one_path_the_last_recorded_is_found,
        l04_disks_are_found_again_by_key_in_any_order,
        a_disk_that_is_gone_at_the_source_keeps_its_record,
        a_disk_key_twice_or_an_empty_disk_is_invalid_and_changes_nothing,
        recording_a_replicated_vm_keeps_its_epoch_and_change_ids,
        texts_of_every_kind_come_back_as_they_went,
        l04_a_disk_added_at_the_source_gets_a_record_of_its_own,
        recording_a_vm_with_a_live_job_leaves_the_job_alone,
        an_invalid_description_changes_nothing_of_a_known_vm,
        vms_are_listed_by_id_and_disks_by_key,
        a_vm_is_removed_with_its_disks_and_ended_jobs,
        l07_a_vm_stays_while_anything_of_it_is_there,
    ]
}

async fn what_was_never_recorded_is_absent(store: StoreSubject) {
    let id = ContextId::parse("ctx-none").unwrap();
    let vm = source_vm("none");
    assert_eq!(store.inventory.context(&id).await.unwrap(), None);
    assert_eq!(store.inventory.by_identity(&vm.identity).await.unwrap(), None);
    assert_eq!(store.inventory.by_path(&vm.path).await.unwrap(), None);
    assert_eq!(store.inventory.disk(&DiskRef { context: id.clone(), key: key("d") }).await.unwrap(), None);
    assert_eq!(store.inventory.disks(&id).await.unwrap(), []);
    assert_eq!(store.inventory.contexts(None).try_collect::<Vec<_>>().await.unwrap(), []);
}

async fn a_recorded_vm_is_found_by_id_identity_and_path(store: StoreSubject) {
    let vm = store.vm().await;
    assert_eq!((vm.status, vm.epoch, &vm.current_job), (ContextStatus::Discovered, Epoch::FIRST, &None));
    assert_eq!(vm.created_at, store.clock.now());
    assert_eq!(store.inventory.context(&vm.id).await.unwrap().as_ref(), Some(&vm));
    assert_eq!(store.inventory.by_identity(&vm.identity).await.unwrap().as_ref(), Some(&vm));
    assert_eq!(store.inventory.by_path(&vm.path).await.unwrap().as_ref(), Some(&vm));
    let disks = store.inventory.disks(&vm.id).await.unwrap();
    assert_eq!(disks.iter().map(|disk| disk.disk.key.as_str()).collect::<Vec<_>>(), KEYS);
    let disk = &disks[1];
    assert_eq!(
        (disk.status, disk.capacity, disk.unit_number),
        (DiskStatus::Pending, ByteSize::mib(8), Some(1))
    );
    assert_eq!((&disk.job, &disk.volume, &disk.change_id), (&None, &None, &None));
    assert_eq!(store.inventory.disk(&disk.disk).await.unwrap().as_ref(), Some(disk));
}

async fn recording_again_changes_nothing(store: StoreSubject) {
    let vm = store.vm().await;
    let disks = store.inventory.disks(&vm.id).await.unwrap();
    assert_eq!(store.vm().await, vm);
    assert_eq!(store.inventory.disks(&vm.id).await.unwrap(), disks);
    assert_eq!(store.inventory.contexts(None).try_collect::<Vec<_>>().await.unwrap().len(), 1);
}

async fn a_vm_is_found_again_by_its_identity_whatever_its_name_and_path(store: StoreSubject) {
    let vm = store.vm().await;
    let mut renamed = source_vm("uuid-1");
    renamed.name = "renamed".to_owned();
    renamed.path = VmPath::parse("/DC/vm/elsewhere").unwrap();
    let found = store.inventory.record(&renamed).await.unwrap();
    assert_eq!((&found.id, found.name.as_str(), &found.path), (&vm.id, "renamed", &renamed.path));
    assert_eq!(store.inventory.by_path(&vm.path).await.unwrap(), None);
}

async fn the_same_uuid_at_another_endpoint_is_another_vm(store: StoreSubject) {
    let vm = store.vm().await;
    let mut other = source_vm("uuid-1");
    other.identity.endpoint = Endpoint::parse("other.example").unwrap();
    assert_ne!(store.inventory.record(&other).await.unwrap().id, vm.id);
}

async fn of_several_vms_with_one_path_the_last_recorded_is_found(store: StoreSubject) {
    let vm = store.vm().await;
    store.clock.advance(Duration::from_millis(1));
    let mut other = source_vm("uuid-2");
    other.path = vm.path.clone();
    let other = store.inventory.record(&other).await.unwrap();
    assert_eq!(store.inventory.by_path(&vm.path).await.unwrap(), Some(other.clone()));
    store.clock.advance(Duration::from_millis(1));
    let renamed = SourceVm { name: "renamed".to_owned(), ..source_vm("uuid-1") };
    store.inventory.record(&renamed).await.unwrap();
    assert_eq!(store.inventory.by_path(&vm.path).await.unwrap(), Some(other));
}

async fn l04_disks_are_found_again_by_key_in_any_order(store: StoreSubject) {
    let vm = store.replicated().await;
    let before = store.inventory.disks(&vm.id).await.unwrap();
    let mut reordered = source_vm("uuid-1");
    reordered.disks.reverse();
    reordered.disks[0].capacity = ByteSize::mib(16);
    reordered.disks[0].label = "moved".to_owned();
    reordered.disks[0].location = "[elsewhere] disk.vmdk".to_owned();
    reordered.disks[0].unit_number = None;
    store.inventory.record(&reordered).await.unwrap();
    let after = store.inventory.disks(&vm.id).await.unwrap();
    assert_eq!(after[0], before[0]);
    assert_eq!((after[1].capacity, after[1].label.as_str()), (ByteSize::mib(16), "moved"));
    assert_eq!((after[1].location.as_str(), after[1].unit_number), ("[elsewhere] disk.vmdk", None));
    assert_eq!((&after[1].volume, &after[1].change_id), (&before[1].volume, &before[1].change_id));
}

async fn a_disk_that_is_gone_at_the_source_keeps_its_record(store: StoreSubject) {
    let vm = store.replicated().await;
    let before = store.inventory.disks(&vm.id).await.unwrap();
    let mut fewer = source_vm("uuid-1");
    fewer.disks.remove(0);
    store.inventory.record(&fewer).await.unwrap();
    assert_eq!(store.inventory.disks(&vm.id).await.unwrap(), before);
}

async fn a_disk_key_twice_or_an_empty_disk_is_invalid_and_changes_nothing(store: StoreSubject) {
    let mut twice = source_vm("uuid-1");
    twice.disks[1].key = twice.disks[0].key.clone();
    assert_kind(store.inventory.record(&twice).await, ErrorKind::Invalid);
    let mut empty = source_vm("uuid-1");
    empty.disks[1].capacity = ByteSize::ZERO;
    assert_kind(store.inventory.record(&empty).await, ErrorKind::Invalid);
    assert_eq!(store.inventory.contexts(None).try_collect::<Vec<_>>().await.unwrap(), []);
}

async fn recording_a_replicated_vm_keeps_its_epoch_and_change_ids(store: StoreSubject) {
    let vm = store.replicated().await;
    let before = store.world(&vm).await;
    assert_eq!(store.vm().await, vm);
    assert_eq!(store.world(&vm).await, before);
}

async fn texts_of_every_kind_come_back_as_they_went(store: StoreSubject) {
    let mut vm = source_vm("uuid-1");
    vm.name = "naïve 'quoted' \"web\" % _ \\ 東京 🚚".to_owned();
    vm.path = VmPath::parse("/DC/vm/東京 🚚'; DROP TABLE vm_disks; --").unwrap();
    vm.disks[0].label = "x".repeat(10_000);
    let recorded = store.inventory.record(&vm).await.unwrap();
    assert_eq!((&recorded.name, &recorded.path), (&vm.name, &vm.path));
    assert_eq!(store.inventory.by_path(&vm.path).await.unwrap(), Some(recorded.clone()));
    assert_eq!(store.inventory.disks(&recorded.id).await.unwrap()[0].label, vm.disks[0].label);
}

async fn l04_a_disk_added_at_the_source_gets_a_record_of_its_own(store: StoreSubject) {
    let vm = store.replicated().await;
    let before = store.inventory.disks(&vm.id).await.unwrap();
    let mut more = source_vm("uuid-1");
    let added = SourceDisk { key: key("disk-1000"), ..more.disks[0].clone() };
    more.disks.insert(0, added);
    store.inventory.record(&more).await.unwrap();
    let after = store.inventory.disks(&vm.id).await.unwrap();
    assert_eq!(after[1..], before[..]);
    assert_eq!(after[0].disk, store.disk(&vm, "disk-1000"));
    assert_eq!((&after[0].volume, &after[0].change_id, after[0].epoch), (&None, &None, Epoch::FIRST));
}

async fn recording_a_vm_with_a_live_job_leaves_the_job_alone(store: StoreSubject) {
    let (vm, lease) = store.claimed().await;
    store.ready_to_commit(&vm, &lease, "first").await;
    let before = store.world(&vm).await;
    let mut described = source_vm("uuid-1");
    described.disks.reverse();
    store.inventory.record(&described).await.unwrap();
    assert_eq!(store.world(&vm).await, before);
}

async fn an_invalid_description_changes_nothing_of_a_known_vm(store: StoreSubject) {
    let vm = store.vm().await;
    let before = store.world(&vm).await;
    let mut empty = source_vm("uuid-1");
    empty.name = "renamed".to_owned();
    empty.disks[0].capacity = ByteSize::mib(16);
    empty.disks[1].capacity = ByteSize::ZERO;
    assert_kind(store.inventory.record(&empty).await, ErrorKind::Invalid);
    assert_eq!(store.world(&vm).await, before);
}

async fn vms_are_listed_by_id_and_disks_by_key(store: StoreSubject) {
    let mut ids = Vec::new();
    for uuid in ["uuid-3", "uuid-1", "uuid-2"] {
        let mut vm = source_vm(uuid);
        vm.disks.reverse();
        ids.push(store.inventory.record(&vm).await.unwrap().id);
        let disks = store.inventory.disks(&ids[ids.len() - 1]).await.unwrap();
        assert_eq!(disks.iter().map(|disk| disk.disk.key.as_str()).collect::<Vec<_>>(), KEYS);
    }
    ids.sort();
    let all: Vec<_> = store.inventory.contexts(None).map_ok(|vm| vm.id).try_collect().await.unwrap();
    assert_eq!(all, ids);
}

async fn a_vm_is_removed_with_its_disks_and_ended_jobs(store: StoreSubject) {
    let other = store.inventory.record(&source_vm("uuid-2")).await.unwrap();
    let (vm, lease) = store.claimed().await;
    store.jobs.end(&lease, JobEnd::Failed("why".to_owned())).await.unwrap();
    store.inventory.remove_vm(&vm.id).await.unwrap();
    store.inventory.remove_vm(&vm.id).await.unwrap();
    assert_eq!(store.inventory.context(&vm.id).await.unwrap(), None);
    assert_eq!(store.inventory.by_identity(&vm.identity).await.unwrap(), None);
    assert_eq!(store.inventory.disks(&vm.id).await.unwrap(), []);
    assert_eq!(store.jobs.get(&lease.job).await.unwrap(), None);
    assert_eq!(
        store.inventory.contexts(None).try_collect::<Vec<_>>().await.unwrap(),
        std::slice::from_ref(&other)
    );
    assert_eq!(store.inventory.disks(&other.id).await.unwrap().len(), KEYS.len());
    let again = store.vm().await;
    assert_ne!(again.id, vm.id, "another one by now");
}

async fn l07_a_vm_stays_while_anything_of_it_is_there(store: StoreSubject) {
    let vm = store.vm().await;
    let lease = store.job_of(store.operate_spec(&vm)).await;
    let refused = async || {
        let before = store.world(&vm).await;
        assert_kind(store.inventory.remove_vm(&vm.id).await, ErrorKind::Conflict);
        assert_eq!(store.world(&vm).await, before);
    };
    refused().await;
    let disk = store.disk(&vm, KEYS[0]);
    let create = store.operation(&lease, &disk, OperationKind::Create, None);
    let volume = store.carry_out(&lease, &create, &store.backend_volume("vol-1", None)).await.unwrap();
    store.jobs.end(&lease, JobEnd::Done).await.unwrap();
    refused().await;
    let lease = store.job_of(store.operate_spec(&vm)).await;
    let delete = store.operation(&lease, &disk, OperationKind::Delete, Some(&volume.id));
    let answer = store.backend_volume(volume.id.as_str(), None);
    store.carry_out(&lease, &delete, &answer).await.unwrap();
    store.jobs.end(&lease, JobEnd::Done).await.unwrap();
    store.inventory.remove_vm(&vm.id).await.unwrap();
    assert_eq!(store.inventory.disk(&disk).await.unwrap(), None);
    assert_eq!(store.volumes.volume(&volume.id).await.unwrap(), None);
    // An answer that was lost: the volume may be there.
    let (vm, lease) = store.claimed().await;
    let create = store.operation(&lease, &store.disk(&vm, KEYS[0]), OperationKind::Create, None);
    store.volumes.begin(&lease, &create).await.unwrap();
    store.jobs.end(&lease, JobEnd::Failed("why".to_owned())).await.unwrap();
    let before = store.world(&vm).await;
    assert_kind(store.inventory.remove_vm(&vm.id).await, ErrorKind::Conflict);
    assert_eq!(store.world(&vm).await, before);
    let lease = store.job_of(store.operate_spec(&vm)).await;
    store.volumes.fail(&lease, &create.id, "it was never made").await.unwrap();
    store.jobs.end(&lease, JobEnd::Done).await.unwrap();
    store.inventory.remove_vm(&vm.id).await.unwrap();
    // With an epoch, which its volume holds.
    let vm = store.replicated().await;
    assert_kind(store.inventory.remove_vm(&vm.id).await, ErrorKind::Conflict);
}
