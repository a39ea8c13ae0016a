use super::super::runner::table;
use super::*;
use crate::record::{OperationFilter, VolumeContent, VolumeFilter};
use crate::state::{OperationStatus, VolumeStatus};
use crate::traits::Provisioning;

pub(super) fn cases() -> Vec<Case<StoreSubject>> {
    table![
        an_intent_is_recorded_before_the_backend_is_called,
        the_same_intent_again_is_the_same_operation,
        an_operation_id_with_another_spec_exists_already,
        one_unfinished_operation_per_disk_and_the_refusal_names_it,
        an_operation_on_an_unknown_disk_is_not_found,
        an_operation_names_its_job_and_unless_it_creates_its_volume,
        an_operation_on_a_volume_of_another_disk_is_not_found,
        an_operation_of_another_vm_is_not_found,
        completing_a_create_records_and_links_the_volume,
        completing_again_answers_the_same,
        a_failed_operation_stays_failed_and_says_why,
        failing_a_completed_operation_is_a_conflict,
        attaching_maps_the_device_and_detaching_unmaps_it,
        a_resize_records_the_new_capacity,
        an_operation_about_a_snapshot_names_it,
        all_that_is_wanted_is_kept_and_found_again,
        a_doubt_is_kept_until_it_is_known_what_the_backend_did,
        operations_are_listed_newest_first_and_by_filter,
        an_operation_left_over_by_an_earlier_job_is_finished_by_the_next,
    ]
}

async fn an_intent_is_recorded_before_the_backend_is_called(store: StoreSubject) {
    let (vm, lease) = store.claimed().await;
    let disk = store.disk(&vm, KEYS[0]);
    let spec = store.operation(&lease, &disk, OperationKind::Create, None);
    assert_eq!(store.volumes.operation(&spec.id).await.unwrap(), None);
    assert_eq!(store.volumes.unfinished(&disk).await.unwrap(), None);
    let begun = store.volumes.begin(&lease, &spec).await.unwrap();
    assert_eq!((&begun.spec, begun.status, &begun.error), (&spec, OperationStatus::Executing, &None));
    assert_eq!(begun.worker.as_ref(), Some(&lease.worker));
    assert_eq!(store.volumes.operation(&spec.id).await.unwrap().as_ref(), Some(&begun));
    assert_eq!(store.volumes.unfinished(&disk).await.unwrap(), Some(begun));
}

async fn the_same_intent_again_is_the_same_operation(store: StoreSubject) {
    let (vm, lease) = store.claimed().await;
    let spec = store.operation(&lease, &store.disk(&vm, KEYS[0]), OperationKind::Create, None);
    let begun = store.volumes.begin(&lease, &spec).await.unwrap();
    store.clock.advance(Duration::from_secs(1));
    assert_eq!(store.volumes.begin(&lease, &spec).await.unwrap(), begun);
    let answer = store.backend_volume("vol-1", None);
    store.volumes.complete(&lease, &spec.id, &answer, true).await.unwrap();
    let done = store.volumes.begin(&lease, &spec).await.unwrap();
    assert_eq!((done.spec, done.status), (spec, OperationStatus::Completed));
}

async fn an_operation_id_with_another_spec_exists_already(store: StoreSubject) {
    let (vm, lease) = store.claimed().await;
    let spec = store.operation(&lease, &store.disk(&vm, KEYS[0]), OperationKind::Create, None);
    store.volumes.begin(&lease, &spec).await.unwrap();
    let other = OperationSpec { capacity: Some(ByteSize::mib(9)), ..spec };
    assert_kind(store.volumes.begin(&lease, &other).await, ErrorKind::AlreadyExists);
}

async fn one_unfinished_operation_per_disk_and_the_refusal_names_it(store: StoreSubject) {
    let (vm, lease) = store.claimed().await;
    let disk = store.disk(&vm, KEYS[0]);
    let first = store.operation(&lease, &disk, OperationKind::Create, None);
    store.volumes.begin(&lease, &first).await.unwrap();
    let second = store.operation(&lease, &disk, OperationKind::Create, None);
    let error = store.volumes.begin(&lease, &second).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    assert!(error.chain().contains(first.id.as_str()), "{}", error.chain());
    let other_disk = store.operation(&lease, &store.disk(&vm, KEYS[1]), OperationKind::Create, None);
    store.volumes.begin(&lease, &other_disk).await.unwrap();
}

async fn an_operation_on_an_unknown_disk_is_not_found(store: StoreSubject) {
    let (vm, lease) = store.claimed().await;
    let spec = store.operation(&lease, &store.disk(&vm, "disk-9"), OperationKind::Create, None);
    assert_kind(store.volumes.begin(&lease, &spec).await, ErrorKind::NotFound);
    let unknown = OperationId::mint();
    assert_kind(store.volumes.fail(&lease, &unknown, "no").await, ErrorKind::NotFound);
    let volume = store.backend_volume("vol-1", None);
    assert_kind(store.volumes.complete(&lease, &unknown, &volume, true).await, ErrorKind::NotFound);
}

async fn an_operation_names_its_job_and_unless_it_creates_its_volume(store: StoreSubject) {
    let (vm, lease) = store.claimed().await;
    let disk = store.disk(&vm, KEYS[0]);
    store.provision(&lease, &disk, "vol-1").await;
    let other = store.job_of_another_vm().await;
    let of_other =
        OperationSpec { job: other.job, ..store.operation(&lease, &disk, OperationKind::Create, None) };
    let before = store.world(&vm).await;
    assert_kind(store.volumes.begin(&lease, &of_other).await, ErrorKind::Invalid);
    for kind in OperationKind::ALL.iter().filter(|kind| **kind != OperationKind::Create) {
        let without = store.operation(&lease, &disk, *kind, None);
        assert_kind(store.volumes.begin(&lease, &without).await, ErrorKind::Invalid);
    }
    assert_eq!(store.world(&vm).await, before);
}

async fn an_operation_on_a_volume_of_another_disk_is_not_found(store: StoreSubject) {
    let (vm, lease) = store.claimed().await;
    let volume = store.provision(&lease, &store.disk(&vm, KEYS[0]), "vol-1").await;
    let other = store.disk(&vm, KEYS[1]);
    for id in [volume.id, VolumeId::parse("vol-none").unwrap()] {
        let resize = store.operation(&lease, &other, OperationKind::Resize, Some(&id));
        assert_kind(store.volumes.begin(&lease, &resize).await, ErrorKind::NotFound);
    }
    assert_eq!(store.volumes.unfinished(&other).await.unwrap(), None);
}

async fn an_operation_of_another_vm_is_not_found(store: StoreSubject) {
    let (vm, lease) = store.claimed().await;
    let disk = store.disk(&vm, KEYS[0]);
    let spec = store.operation(&lease, &disk, OperationKind::Create, None);
    store.volumes.begin(&lease, &spec).await.unwrap();
    let other = store.job_of_another_vm().await;
    let before = store.world(&vm).await;
    let answer = store.backend_volume("vol-1", None);
    assert_kind(store.volumes.complete(&other, &spec.id, &answer, true).await, ErrorKind::NotFound);
    assert_kind(store.volumes.fail(&other, &spec.id, "no").await, ErrorKind::NotFound);
    let mine = store.operation(&other, &disk, OperationKind::Create, None);
    assert_kind(store.volumes.begin(&other, &mine).await, ErrorKind::NotFound);
    assert_eq!(store.world(&vm).await, before);
}

async fn completing_a_create_records_and_links_the_volume(store: StoreSubject) {
    let (vm, lease) = store.claimed().await;
    for (text, zeroed, content) in
        [(KEYS[0], true, VolumeContent::Blank), (KEYS[1], false, VolumeContent::Inconsistent)]
    {
        let disk = store.disk(&vm, text);
        let spec = store.operation(&lease, &disk, OperationKind::Create, None);
        store.volumes.begin(&lease, &spec).await.unwrap();
        let answer = store.backend_volume(&format!("vol-{text}"), None);
        let made = store.volumes.complete(&lease, &spec.id, &answer, zeroed).await.unwrap();
        assert_eq!((&made.id, &made.disk, made.capacity), (&answer.id, &disk, answer.capacity));
        assert_eq!((made.generation, made.content), (Generation::FIRST, content));
        assert_eq!((made.status, &made.device_path), (VolumeStatus::Created, &None));
        assert_eq!(store.volumes.volume_of(&disk).await.unwrap().as_ref(), Some(&made));
        let ended = store.volumes.operation(&spec.id).await.unwrap().unwrap();
        assert_eq!(
            (ended.status, &ended.spec.volume, &ended.made),
            (OperationStatus::Completed, &None, &Some(made.id.clone()))
        );
        assert_eq!(store.inventory.disk(&disk).await.unwrap().unwrap().volume, Some(made.id));
        let operation = store.volumes.operation(&spec.id).await.unwrap().unwrap();
        assert_eq!(operation.status, OperationStatus::Completed);
        assert_eq!(store.volumes.unfinished(&disk).await.unwrap(), None);
    }
}

async fn completing_again_answers_the_same(store: StoreSubject) {
    let (vm, lease) = store.claimed().await;
    let disk = store.disk(&vm, KEYS[0]);
    let spec = store.operation(&lease, &disk, OperationKind::Create, None);
    let answer = store.backend_volume("vol-1", None);
    let made = store.carry_out(&lease, &spec, &answer).await.unwrap();
    let again = store.volumes.complete(&lease, &spec.id, &answer, true).await.unwrap();
    assert_eq!((again.id, again.generation), (made.id, made.generation));
    assert_eq!(
        store.volumes.volumes(VolumeFilter::default()).try_collect::<Vec<_>>().await.unwrap().len(),
        1
    );
}

async fn a_failed_operation_stays_failed_and_says_why(store: StoreSubject) {
    let (vm, lease) = store.claimed().await;
    let disk = store.disk(&vm, KEYS[0]);
    let spec = store.operation(&lease, &disk, OperationKind::Create, None);
    store.volumes.begin(&lease, &spec).await.unwrap();
    store.volumes.fail(&lease, &spec.id, "no room").await.unwrap();
    store.volumes.fail(&lease, &spec.id, "another reason").await.unwrap();
    let failed = store.volumes.operation(&spec.id).await.unwrap().unwrap();
    assert_eq!((failed.status, failed.error.as_deref()), (OperationStatus::Failed, Some("no room")));
    let answer = store.backend_volume("vol-1", None);
    assert_kind(store.volumes.complete(&lease, &spec.id, &answer, true).await, ErrorKind::Conflict);
    assert_eq!(store.volumes.volume_of(&disk).await.unwrap(), None);
    assert_eq!(store.volumes.unfinished(&disk).await.unwrap(), None);
}

async fn failing_a_completed_operation_is_a_conflict(store: StoreSubject) {
    let (vm, lease) = store.claimed().await;
    let spec = store.operation(&lease, &store.disk(&vm, KEYS[0]), OperationKind::Create, None);
    store.carry_out(&lease, &spec, &store.backend_volume("vol-1", None)).await.unwrap();
    assert_kind(store.volumes.fail(&lease, &spec.id, "no").await, ErrorKind::Conflict);
}

async fn attaching_maps_the_device_and_detaching_unmaps_it(store: StoreSubject) {
    let (vm, lease) = store.claimed().await;
    let disk = store.disk(&vm, KEYS[0]);
    let attached = store.provision(&lease, &disk, "vol-1").await;
    assert_eq!(attached.status, VolumeStatus::Attached);
    assert_eq!(attached.device_path.as_deref(), Some("/dev/mapper/vol-1"));
    assert_eq!(store.volumes.volume(&attached.id).await.unwrap(), Some(attached.clone()));
    store.exports.begin(&lease, &name("x"), &disk.key, &attached.id).await.unwrap();
    let detach = store.operation(&lease, &disk, OperationKind::Detach, Some(&attached.id));
    let answer = store.backend_volume("vol-1", None);
    let detached = store.carry_out(&lease, &detach, &answer).await.unwrap();
    assert_eq!((detached.status, &detached.device_path), (VolumeStatus::Detached, &None));
    assert_eq!(store.volumes.volume(&attached.id).await.unwrap(), Some(detached));
    assert_eq!(store.exports.export(&name("x")).await.unwrap(), None);
}

async fn a_resize_records_the_new_capacity(store: StoreSubject) {
    let (vm, lease) = store.claimed().await;
    let disk = store.disk(&vm, KEYS[0]);
    let volume = store.provision(&lease, &disk, "vol-1").await;
    let resize = store.operation(&lease, &disk, OperationKind::Resize, Some(&volume.id));
    let mut answer = store.backend_volume("vol-1", volume.device_path.as_deref());
    answer.capacity = ByteSize::mib(16);
    let resized = store.carry_out(&lease, &resize, &answer).await.unwrap();
    assert_eq!((resized.capacity, resized.generation), (ByteSize::mib(16), volume.generation));
}

async fn an_operation_about_a_snapshot_names_it(store: StoreSubject) {
    let (vm, lease) = store.claimed().await;
    let disk = store.disk(&vm, KEYS[0]);
    let volume = store.provision(&lease, &disk, "vol-1").await;
    for kind in OperationKind::ALL.iter().filter(|kind| kind.is_of_snapshot()) {
        let named = store.operation(&lease, &disk, *kind, Some(&volume.id));
        let unnamed = OperationSpec { snapshot: None, ..named.clone() };
        assert_kind(store.volumes.begin(&lease, &unnamed).await, ErrorKind::Invalid);
        let answer = store.backend_volume("vol-1", volume.device_path.as_deref());
        store.carry_out(&lease, &named, &answer).await.unwrap();
        let known = store.volumes.operation(&named.id).await.unwrap().unwrap();
        assert_eq!((known.spec, known.status), (named, OperationStatus::Completed));
    }
}

async fn all_that_is_wanted_is_kept_and_found_again(store: StoreSubject) {
    let (vm, lease) = store.claimed().await;
    let disk = store.disk(&vm, KEYS[0]);
    for provisioning in [None, Some(Provisioning::Thin), Some(Provisioning::Thick)] {
        let spec = OperationSpec {
            name: provisioning.map(|_| "Größe \u{1f4be}".to_owned()),
            provisioning,
            ..store.operation(&lease, &disk, OperationKind::Create, None)
        };
        store.volumes.begin(&lease, &spec).await.unwrap();
        assert_eq!(store.volumes.operation(&spec.id).await.unwrap().unwrap().spec, spec);
        store.volumes.fail(&lease, &spec.id, "no").await.unwrap();
    }
}

async fn a_doubt_is_kept_until_it_is_known_what_the_backend_did(store: StoreSubject) {
    let (vm, lease) = store.claimed().await;
    let spec = store.operation(&lease, &store.disk(&vm, KEYS[0]), OperationKind::Create, None);
    store.volumes.begin(&lease, &spec).await.unwrap();
    store.clock.advance(Duration::from_secs(1));
    for why in ["no answer after 1 s", "no answer after 2 s"] {
        store.volumes.doubt(&lease, &spec.id, why).await.unwrap();
        let now = store.volumes.operation(&spec.id).await.unwrap().unwrap();
        assert_eq!((now.status, now.error.as_deref()), (OperationStatus::Executing, Some(why)));
        assert_eq!(now.updated_at, store.clock.now());
    }
    let other = store.job_of_another_vm().await;
    assert_kind(store.volumes.doubt(&other, &spec.id, "why").await, ErrorKind::NotFound);
    store.volumes.complete(&lease, &spec.id, &store.backend_volume("vol-1", None), true).await.unwrap();
    let done = store.volumes.operation(&spec.id).await.unwrap().unwrap();
    assert_eq!((done.status, done.error), (OperationStatus::Completed, None));
    assert_kind(store.volumes.doubt(&lease, &spec.id, "why").await, ErrorKind::Conflict);
}

async fn operations_are_listed_newest_first_and_by_filter(store: StoreSubject) {
    let (vm, lease) = store.claimed().await;
    let (first, second) = (store.disk(&vm, KEYS[0]), store.disk(&vm, KEYS[1]));
    let create = store.operation(&lease, &first, OperationKind::Create, None);
    let made = store.carry_out(&lease, &create, &store.backend_volume("vol-1", None)).await.unwrap();
    store.clock.advance(Duration::from_secs(1));
    let refused = store.operation(&lease, &second, OperationKind::Create, None);
    store.volumes.begin(&lease, &refused).await.unwrap();
    store.volumes.fail(&lease, &refused.id, "no room").await.unwrap();
    store.clock.advance(Duration::from_secs(1));
    let attach = store.operation(&lease, &first, OperationKind::Attach, Some(&made.id));
    store.volumes.begin(&lease, &attach).await.unwrap();
    let other = store.job_of_another_vm().await;
    let listed = async |filter: OperationFilter| {
        let all: Vec<_> = store.volumes.operations(filter).try_collect().await.unwrap();
        all.into_iter().map(|operation| operation.spec).collect::<Vec<_>>()
    };
    let all = || OperationFilter::default();
    assert_eq!(listed(all()).await, [attach.clone(), refused.clone(), create.clone()]);
    let of_volume = OperationFilter { volume: Some(made.id), ..all() };
    assert_eq!(listed(of_volume).await, [attach.clone(), create.clone()]);
    let creates = OperationFilter { kind: Some(OperationKind::Create), ..all() };
    assert_eq!(listed(creates).await, [refused.clone(), create.clone()]);
    let failed = OperationFilter { status: Some(OperationStatus::Failed), ..all() };
    assert_eq!(listed(failed).await, [refused]);
    let of_vm = OperationFilter { context: Some(vm.id), status: Some(OperationStatus::Executing), ..all() };
    assert_eq!(listed(of_vm).await, [attach]);
    let context = store.jobs.get(&other.job).await.unwrap().map(|job| job.context);
    assert_eq!(listed(OperationFilter { context, ..all() }).await, []);
}

async fn an_operation_left_over_by_an_earlier_job_is_finished_by_the_next(store: StoreSubject) {
    let (vm, lease) = store.claimed().await;
    let disk = store.disk(&vm, KEYS[0]);
    let spec = store.operation(&lease, &disk, OperationKind::Create, None);
    store.volumes.begin(&lease, &spec).await.unwrap();
    store.jobs.end(&lease, crate::record::JobEnd::Failed("why".to_owned())).await.unwrap();
    let next = store.second_job(&vm).await;
    let next = store.take_over(&next).await;
    assert_ne!(next.worker, lease.worker);
    let left = store.volumes.unfinished(&disk).await.unwrap().unwrap();
    assert_eq!((&left.spec, left.worker.as_ref()), (&spec, Some(&lease.worker)), "who began it");
    let answer = store.backend_volume("vol-1", None);
    let made = store.volumes.complete(&next, &spec.id, &answer, true).await.unwrap();
    assert_eq!(store.volumes.volume_of(&disk).await.unwrap(), Some(made));
    let ended = store.volumes.operation(&spec.id).await.unwrap().unwrap();
    assert_eq!(ended.worker, Some(lease.worker), "whoever finished it");
}
