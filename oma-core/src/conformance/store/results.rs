use super::super::runner::table;
use super::*;
use crate::record::{JobEnd, VolumeContent};
use crate::state::{OperationStatus, VolumeStatus};

pub(super) fn cases() -> Vec<Case<StoreSubject>> {
    table![
        attaching_again_at_the_same_path_changes_nothing,
        attaching_elsewhere_takes_the_place_of_the_old_mapping,
        detaching_what_was_never_attached_is_a_conflict,
        a_device_path_maps_to_one_volume,
        l05_a_device_path_means_another_device_to_another_worker,
        an_attached_volume_has_a_device_path,
        the_answer_is_about_the_operations_volume,
        a_new_volume_that_is_another_disks_is_a_conflict,
        l01_the_id_of_a_volume_that_is_gone_passes_to_no_other_disk,
        l09_a_revert_is_another_generation_and_a_snapshot_is_not,
        a_deleted_volume_is_answered_once_more_as_deleted,
        a_volume_forgotten_meanwhile_is_not_found,
    ]
}

/// Completing refuses, and nothing changed: the operation goes on.
async fn refused(
    store: &StoreSubject,
    lease: &Lease,
    spec: &OperationSpec,
    answer: &Volume,
    kind: ErrorKind,
) {
    store.volumes.begin(lease, spec).await.unwrap();
    let vm = store.inventory.context(&spec.disk.context).await.unwrap().unwrap();
    let before = store.world(&vm).await;
    store.clock.advance(Duration::from_secs(1));
    assert_kind(store.volumes.complete(lease, &spec.id, answer, true).await, kind);
    assert_eq!(store.world(&vm).await, before);
    let operation = store.volumes.operation(&spec.id).await.unwrap().unwrap();
    assert_eq!((operation.status, operation.error), (OperationStatus::Executing, None));
}

async fn attaching_again_at_the_same_path_changes_nothing(store: StoreSubject) {
    let (vm, lease) = store.claimed().await;
    let disk = store.disk(&vm, KEYS[0]);
    let volume = store.provision(&lease, &disk, "vol-1").await;
    let attach = store.operation(&lease, &disk, OperationKind::Attach, Some(&volume.id));
    let answer = store.backend_volume("vol-1", volume.device_path.as_deref());
    assert_eq!(store.carry_out(&lease, &attach, &answer).await.unwrap(), volume);
}

async fn attaching_elsewhere_takes_the_place_of_the_old_mapping(store: StoreSubject) {
    let (vm, lease) = store.claimed().await;
    let [disk, other] = KEYS.map(|text| store.disk(&vm, text));
    let volume = store.provision(&lease, &disk, "vol-1").await;
    let attach = store.operation(&lease, &disk, OperationKind::Attach, Some(&volume.id));
    let answer = store.backend_volume("vol-1", Some("/dev/vdz"));
    let moved = store.carry_out(&lease, &attach, &answer).await.unwrap();
    assert_eq!((moved.status, moved.device_path.as_deref()), (VolumeStatus::Attached, Some("/dev/vdz")));
    assert_eq!((moved.generation, moved.content), (volume.generation, volume.content));
    // The old path is free.
    let create = store.operation(&lease, &other, OperationKind::Create, None);
    let made = store.carry_out(&lease, &create, &store.backend_volume("vol-2", None)).await.unwrap();
    let attach = store.operation(&lease, &other, OperationKind::Attach, Some(&made.id));
    let answer = store.backend_volume("vol-2", volume.device_path.as_deref());
    assert_eq!(store.carry_out(&lease, &attach, &answer).await.unwrap().device_path, volume.device_path);
}

async fn detaching_what_was_never_attached_is_a_conflict(store: StoreSubject) {
    let (vm, lease) = store.claimed().await;
    let disk = store.disk(&vm, KEYS[0]);
    let create = store.operation(&lease, &disk, OperationKind::Create, None);
    let answer = store.backend_volume("vol-1", None);
    let made = store.carry_out(&lease, &create, &answer).await.unwrap();
    let detach = store.operation(&lease, &disk, OperationKind::Detach, Some(&made.id));
    refused(&store, &lease, &detach, &answer, ErrorKind::Conflict).await;
}

async fn a_device_path_maps_to_one_volume(store: StoreSubject) {
    let (vm, lease) = store.claimed().await;
    let [disk, other] = KEYS.map(|text| store.disk(&vm, text));
    let taken = store.provision(&lease, &disk, "vol-1").await;
    let create = store.operation(&lease, &other, OperationKind::Create, None);
    let made = store.carry_out(&lease, &create, &store.backend_volume("vol-2", None)).await.unwrap();
    let attach = store.operation(&lease, &other, OperationKind::Attach, Some(&made.id));
    let answer = store.backend_volume("vol-2", taken.device_path.as_deref());
    refused(&store, &lease, &attach, &answer, ErrorKind::Conflict).await;
}

async fn l05_a_device_path_means_another_device_to_another_worker(store: StoreSubject) {
    let (vm, lease) = store.claimed().await;
    let [disk, other] = KEYS.map(|text| store.disk(&vm, text));
    let taken = store.provision(&lease, &disk, "vol-1").await;
    assert_eq!(taken.attached_to.as_ref(), Some(&lease.worker));
    let lease = store.take_over(&lease).await;
    let create = store.operation(&lease, &other, OperationKind::Create, None);
    let made = store.carry_out(&lease, &create, &store.backend_volume("vol-2", None)).await.unwrap();
    let attach = store.operation(&lease, &other, OperationKind::Attach, Some(&made.id));
    let answer = store.backend_volume("vol-2", taken.device_path.as_deref());
    let attached = store.carry_out(&lease, &attach, &answer).await.unwrap();
    assert_eq!(attached.attached_to.as_ref(), Some(&lease.worker));
    assert_eq!(store.volumes.volume(&taken.id).await.unwrap(), Some(taken.clone()));
    let again = store.operation(&lease, &disk, OperationKind::Attach, Some(&taken.id));
    let answer = store.backend_volume("vol-1", taken.device_path.as_deref());
    refused(&store, &lease, &again, &answer, ErrorKind::Conflict).await;
}

async fn an_attached_volume_has_a_device_path(store: StoreSubject) {
    let (vm, lease) = store.claimed().await;
    let disk = store.disk(&vm, KEYS[0]);
    let create = store.operation(&lease, &disk, OperationKind::Create, None);
    let answer = store.backend_volume("vol-1", None);
    let made = store.carry_out(&lease, &create, &answer).await.unwrap();
    let attach = store.operation(&lease, &disk, OperationKind::Attach, Some(&made.id));
    refused(&store, &lease, &attach, &answer, ErrorKind::Invalid).await;
}

async fn the_answer_is_about_the_operations_volume(store: StoreSubject) {
    let (vm, lease) = store.claimed().await;
    let [disk, other] = KEYS.map(|text| store.disk(&vm, text));
    let volume = store.provision(&lease, &disk, "vol-1").await;
    store.provision(&lease, &other, "vol-2").await;
    let resize = store.operation(&lease, &disk, OperationKind::Resize, Some(&volume.id));
    let answer = Volume { capacity: ByteSize::mib(16), ..store.backend_volume("vol-2", None) };
    refused(&store, &lease, &resize, &answer, ErrorKind::Invalid).await;
}

async fn l01_the_id_of_a_volume_that_is_gone_passes_to_no_other_disk(store: StoreSubject) {
    let (vm, lease) = store.claimed().await;
    let [disk, other] = KEYS.map(|text| store.disk(&vm, text));
    let volume = store.provision(&lease, &disk, "vol-1").await;
    store.volumes.forget(&lease, &volume.id).await.unwrap();
    let create = store.operation(&lease, &other, OperationKind::Create, None);
    refused(&store, &lease, &create, &store.backend_volume("vol-1", None), ErrorKind::Conflict).await;
}

async fn a_new_volume_that_is_another_disks_is_a_conflict(store: StoreSubject) {
    let (vm, lease) = store.claimed().await;
    let [disk, other] = KEYS.map(|text| store.disk(&vm, text));
    store.provision(&lease, &disk, "vol-1").await;
    let create = store.operation(&lease, &other, OperationKind::Create, None);
    refused(&store, &lease, &create, &store.backend_volume("vol-1", None), ErrorKind::Conflict).await;
}

async fn l09_a_revert_is_another_generation_and_a_snapshot_is_not(store: StoreSubject) {
    let vm = store.replicated().await;
    let lease = store.second_job(&vm).await;
    let disk = store.disk(&vm, KEYS[0]);
    let before = store.volumes.volume_of(&disk).await.unwrap().unwrap();
    let answer = store.backend_volume(before.id.as_str(), before.device_path.as_deref());
    let snapshot = store.operation(&lease, &disk, OperationKind::Snapshot, Some(&before.id));
    assert_eq!(store.carry_out(&lease, &snapshot, &answer).await.unwrap(), before);
    let revert = store.operation(&lease, &disk, OperationKind::Revert, Some(&before.id));
    let reverted = store.carry_out(&lease, &revert, &answer).await.unwrap();
    assert_eq!(reverted.generation, before.generation.next());
    assert_eq!(reverted.content, VolumeContent::Inconsistent);
    let endpoint = &vm.identity.endpoint;
    assert_eq!(store.change_ids.current(&disk, reverted.generation, endpoint).await.unwrap(), None);
    // Once more is the same revert, not another.
    let again = store.volumes.complete(&lease, &revert.id, &answer, true).await.unwrap();
    assert_eq!(again.generation, reverted.generation);
    assert_eq!(store.volumes.volume_of(&disk).await.unwrap(), Some(reverted));
}

async fn a_deleted_volume_is_answered_once_more_as_deleted(store: StoreSubject) {
    let (vm, lease) = store.claimed().await;
    let disk = store.disk(&vm, KEYS[0]);
    let volume = store.provision(&lease, &disk, "vol-1").await;
    store.jobs.end(&lease, JobEnd::Cancelled("why".to_owned())).await.unwrap();
    let lease = store.job_of(store.operate_spec(&vm)).await;
    let answer = store.backend_volume("vol-1", None);
    let detach = store.operation(&lease, &disk, OperationKind::Detach, Some(&volume.id));
    store.carry_out(&lease, &detach, &answer).await.unwrap();
    let delete = store.operation(&lease, &disk, OperationKind::Delete, Some(&volume.id));
    store.volumes.begin(&lease, &delete).await.unwrap();
    for _ in 0..2 {
        let last = store.volumes.complete(&lease, &delete.id, &answer, true).await.unwrap();
        assert_eq!((&last.id, &last.disk, last.status), (&volume.id, &disk, VolumeStatus::Deleted));
        assert_eq!(last.device_path, None);
        assert_eq!(store.volumes.volume(&volume.id).await.unwrap(), None);
    }
    let next = store.provision(&lease, &disk, "vol-2").await;
    assert!(next.generation > volume.generation);
}

async fn a_volume_forgotten_meanwhile_is_not_found(store: StoreSubject) {
    let (vm, lease) = store.claimed().await;
    let disk = store.disk(&vm, KEYS[0]);
    let volume = store.provision(&lease, &disk, "vol-1").await;
    let resize = store.operation(&lease, &disk, OperationKind::Resize, Some(&volume.id));
    store.volumes.begin(&lease, &resize).await.unwrap();
    store.volumes.forget(&lease, &volume.id).await.unwrap();
    let answer = store.backend_volume("vol-1", None);
    assert_kind(store.volumes.complete(&lease, &resize.id, &answer, true).await, ErrorKind::NotFound);
    assert_eq!(store.volumes.unfinished(&disk).await.unwrap().unwrap().spec, resize);
}
