//! Volumes come to be, are found and are marked.

use std::collections::BTreeSet;

use futures_util::TryStreamExt;
use futures_util::future::join_all;

use super::{BackendSubject, Bench, kind, read, unknown};
use crate::conformance::Case;
use crate::conformance::runner::table;
use crate::record::VolumeTag;
use crate::traits::{Access, Provisioning, VolumeSpec};
use crate::{ByteSize, ErrorKind, Generation, InstanceId};

pub(super) fn cases() -> Vec<Case<BackendSubject>> {
    table![
        create_answers_the_volume_asked_for,
        a_created_volume_is_seen_by_another_handle,
        a_new_volume_reads_as_zero_if_promised,
        create_is_idempotent_by_operation,
        creates_of_one_operation_at_once_make_one_volume,
        l03_two_operations_make_two_volumes_whatever_their_names,
        create_of_the_same_operation_with_another_tag_is_refused,
        create_of_the_same_operation_with_a_larger_size_is_refused,
        a_volume_of_no_bytes_is_invalid_and_leaves_nothing,
        any_size_can_be_made_thin_or_thick,
        an_unknown_volume_is_absent,
        list_answers_every_volume_of_the_instance_and_no_other,
        retag_raises_the_generation_and_is_idempotent,
        l02_after_a_retag_the_old_tag_proves_nothing,
        l02_retag_of_another_instance_or_disk_or_a_smaller_generation_is_denied,
        retag_of_an_unknown_volume_is_not_found,
    ]
}

async fn create_answers_the_volume_asked_for(subject: BackendSubject) {
    let bench = Bench::from(subject);
    let spec = bench.spec();
    let volume = bench.backend.create(&spec).await.unwrap();
    assert_eq!((&volume.name, &volume.tag), (&spec.name, &Some(spec.tag)));
    assert!(volume.capacity >= spec.capacity);
    assert_eq!(bench.get(&volume.id).await, Some(volume));
}

async fn a_created_volume_is_seen_by_another_handle(subject: BackendSubject) {
    let bench = Bench::from(subject);
    let (volume, _) = bench.created().await;
    assert_eq!(bench.second.get(&volume.id).await.unwrap(), Some(volume));
}

async fn a_new_volume_reads_as_zero_if_promised(subject: BackendSubject) {
    let bench = Bench::from(subject);
    if !bench.backend.capabilities().zeroed_on_create {
        return;
    }
    for provisioning in [Provisioning::Thin, Provisioning::Thick] {
        let spec = VolumeSpec { provisioning, ..bench.spec() };
        let volume = bench.backend.create(&spec).await.unwrap();
        bench.backend.attach(&volume.id, &spec.tag).await.unwrap();
        let device = bench.backend.open(&volume.id, &spec.tag, Access::ReadOnly).await.unwrap();
        assert!(read(&*device, 0, 1 << 20).await.iter().all(|byte| *byte == 0), "{provisioning:?}");
    }
}

async fn create_is_idempotent_by_operation(subject: BackendSubject) {
    let bench = Bench::from(subject);
    let spec = bench.spec();
    let first = bench.backend.create(&spec).await.unwrap();
    assert_eq!(bench.backend.create(&spec).await.unwrap(), first);
    assert_eq!(bench.second.create(&spec).await.unwrap(), first);
    let attached = bench.backend.attach(&first.id, &spec.tag).await.unwrap();
    assert_eq!(bench.backend.create(&spec).await.unwrap(), attached, "as it is now");
    assert_eq!(bench.list().await.len(), 1);
}

async fn creates_of_one_operation_at_once_make_one_volume(subject: BackendSubject) {
    let bench = Bench::from(subject);
    let spec = bench.spec();
    let calls = (0..8).map(|n| if n % 2 == 0 { &bench.backend } else { &bench.second }.create(&spec));
    let made: Vec<_> = join_all(calls).await.into_iter().map(|call| call.unwrap()).collect();
    assert!(made.iter().all(|volume| *volume == made[0]), "{made:?}");
    assert_eq!(bench.list().await.len(), 1);
}

async fn l03_two_operations_make_two_volumes_whatever_their_names(subject: BackendSubject) {
    let bench = Bench::from(subject);
    let (first, second) = (bench.created().await.0, bench.created().await.0);
    assert_ne!(first.id, second.id);
    assert_eq!((first.name, first.tag), (second.name, second.tag));
}

async fn create_of_the_same_operation_with_another_tag_is_refused(subject: BackendSubject) {
    let bench = Bench::from(subject);
    let spec = bench.spec();
    let volume = bench.backend.create(&spec).await.unwrap();
    for tag in bench.foreign(&spec.tag) {
        let other = VolumeSpec { tag, ..spec.clone() };
        assert_eq!(kind(bench.backend.create(&other).await), ErrorKind::AlreadyExists);
    }
    assert_eq!(bench.get(&volume.id).await, Some(volume));
}

async fn create_of_the_same_operation_with_a_larger_size_is_refused(subject: BackendSubject) {
    let bench = Bench::from(subject);
    let mut spec = bench.spec();
    let volume = bench.backend.create(&spec).await.unwrap();
    spec.capacity = ByteSize::new(volume.capacity.bytes() + 1);
    assert_eq!(kind(bench.backend.create(&spec).await), ErrorKind::AlreadyExists);
    spec.capacity = ByteSize::new(1);
    assert_eq!(bench.backend.create(&spec).await.unwrap(), volume, "large enough");
}

async fn a_volume_of_no_bytes_is_invalid_and_leaves_nothing(subject: BackendSubject) {
    let bench = Bench::from(subject);
    let spec = VolumeSpec { capacity: ByteSize::ZERO, ..bench.spec() };
    assert_eq!(kind(bench.backend.create(&spec).await), ErrorKind::Invalid);
    assert!(bench.list().await.is_empty());
}

async fn any_size_can_be_made_thin_or_thick(subject: BackendSubject) {
    let bench = Bench::from(subject);
    for provisioning in [Provisioning::Thin, Provisioning::Thick] {
        for bytes in [1, 511, 4097, (1 << 20) + 513] {
            let spec = VolumeSpec { capacity: ByteSize::new(bytes), provisioning, ..bench.spec() };
            let volume = bench.backend.create(&spec).await.unwrap();
            assert!(volume.capacity.bytes() >= bytes, "{volume:?}");
        }
    }
}

async fn an_unknown_volume_is_absent(subject: BackendSubject) {
    let bench = Bench::from(subject);
    assert_eq!(bench.get(&unknown()).await, None);
    assert!(bench.list().await.is_empty());
}

async fn list_answers_every_volume_of_the_instance_and_no_other(subject: BackendSubject) {
    let bench = Bench::from(subject);
    let mut ours = BTreeSet::new();
    for _ in 0..5 {
        ours.insert(bench.created().await.0.id);
    }
    let mut foreign = bench.spec();
    foreign.tag.instance = InstanceId::mint();
    let theirs = bench.backend.create(&foreign).await.unwrap();
    let found = bench.list().await;
    assert_eq!(found.len(), 5);
    assert_eq!(found.into_iter().map(|volume| volume.id).collect::<BTreeSet<_>>(), ours);
    let others: Vec<_> = bench.backend.list(&foreign.tag.instance).try_collect().await.unwrap();
    assert_eq!(others, [theirs]);
}

async fn retag_raises_the_generation_and_is_idempotent(subject: BackendSubject) {
    let bench = Bench::from(subject);
    let (volume, mut tag) = bench.created().await;
    bench.backend.retag(&volume.id, &tag).await.unwrap();
    for generation in [Generation(2), Generation(7)] {
        tag.generation = generation;
        bench.backend.retag(&volume.id, &tag).await.unwrap();
        bench.backend.retag(&volume.id, &tag).await.unwrap();
        assert_eq!(bench.get(&volume.id).await.unwrap().tag, Some(tag.clone()));
    }
    assert_eq!(bench.list().await.len(), 1);
}

async fn l02_after_a_retag_the_old_tag_proves_nothing(subject: BackendSubject) {
    let bench = Bench::from(subject);
    let (volume, old) = bench.created().await;
    let new = VolumeTag { generation: old.generation.next(), ..old.clone() };
    bench.backend.retag(&volume.id, &new).await.unwrap();
    assert_eq!(kind(bench.backend.attach(&volume.id, &old).await), ErrorKind::PermissionDenied);
    bench.backend.attach(&volume.id, &new).await.unwrap();
}

async fn l02_retag_of_another_instance_or_disk_or_a_smaller_generation_is_denied(subject: BackendSubject) {
    let bench = Bench::from(subject);
    let (volume, tag) = bench.created().await;
    for wrong in bench.foreign(&tag) {
        if wrong.generation <= tag.generation {
            let call = bench.backend.retag(&volume.id, &wrong).await;
            assert_eq!(kind(call), ErrorKind::PermissionDenied, "{wrong}");
        }
    }
    assert_eq!(bench.get(&volume.id).await, Some(volume));
}

async fn retag_of_an_unknown_volume_is_not_found(subject: BackendSubject) {
    let bench = Bench::from(subject);
    assert_eq!(kind(bench.backend.retag(&unknown(), &bench.tag("d")).await), ErrorKind::NotFound);
}
