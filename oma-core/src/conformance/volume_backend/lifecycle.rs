//! Volumes grow and go.

use super::{BackendSubject, Bench, kind, read, unknown};
use crate::conformance::runner::table;
use crate::conformance::{Case, sample};
use crate::traits::{Access, Durability};
use crate::{ByteSize, ErrorKind};

pub(super) fn cases() -> Vec<Case<BackendSubject>> {
    table![
        resize_keeps_the_content_and_the_new_part_reads_as_zero,
        resize_to_the_same_size_or_less_changes_nothing,
        resize_of_an_open_volume_is_busy,
        l02_resize_with_a_wrong_tag_is_denied_and_does_nothing,
        delete_takes_the_volume_away_and_is_idempotent,
        delete_of_one_volume_leaves_the_others,
        delete_of_an_open_volume_is_busy,
        l02_delete_with_a_wrong_tag_is_denied_and_does_nothing,
    ]
}

/// Whether the backend cannot resize; then it says so.
async fn refuses_to_resize(bench: &Bench) -> bool {
    let (volume, tag) = bench.created().await;
    let grown = ByteSize::mib(2);
    if bench.backend.capabilities().resize {
        assert_eq!(kind(bench.backend.resize(&unknown(), &tag, grown).await), ErrorKind::NotFound);
        return false;
    }
    assert_eq!(kind(bench.backend.resize(&volume.id, &tag, grown).await), ErrorKind::Unsupported);
    assert_eq!(bench.get(&volume.id).await, Some(volume));
    true
}

async fn resize_keeps_the_content_and_the_new_part_reads_as_zero(subject: BackendSubject) {
    let bench = Bench::from(subject);
    if refuses_to_resize(&bench).await {
        return;
    }
    let (volume, tag) = bench.attached().await;
    let device = bench.backend.open(&volume.id, &tag, Access::ReadWrite).await.unwrap();
    device.write_at(0, sample(0, 1 << 20), Durability::Cached).await.unwrap();
    drop(device);
    let (old, more) = (volume.capacity.bytes(), (1 << 20) + 512);
    let wanted = ByteSize::new(old + more);
    let grown = bench.backend.resize(&volume.id, &tag, wanted).await.unwrap();
    assert!(grown.capacity >= wanted, "{grown:?}");
    assert_eq!(bench.second.get(&volume.id).await.unwrap(), Some(grown));
    let device = bench.second.open(&volume.id, &tag, Access::ReadOnly).await.unwrap();
    assert_eq!(read(&*device, 0, 1 << 20).await, sample(0, 1 << 20));
    assert!(read(&*device, old, (1 << 20) + 512).await.iter().all(|byte| *byte == 0));
}

async fn resize_to_the_same_size_or_less_changes_nothing(subject: BackendSubject) {
    let bench = Bench::from(subject);
    if refuses_to_resize(&bench).await {
        return;
    }
    let (volume, tag) = bench.created().await;
    for capacity in [volume.capacity, ByteSize::new(1), ByteSize::ZERO] {
        assert_eq!(bench.backend.resize(&volume.id, &tag, capacity).await.unwrap(), volume);
    }
    assert_eq!(bench.get(&volume.id).await, Some(volume));
}

async fn resize_of_an_open_volume_is_busy(subject: BackendSubject) {
    let bench = Bench::from(subject);
    if refuses_to_resize(&bench).await {
        return;
    }
    let (volume, tag) = bench.attached().await;
    for access in [Access::ReadOnly, Access::ReadWrite] {
        let _device = bench.backend.open(&volume.id, &tag, access).await.unwrap();
        for backend in [&bench.backend, &bench.second] {
            let call = backend.resize(&volume.id, &tag, ByteSize::mib(2)).await;
            assert_eq!(kind(call), ErrorKind::Busy);
        }
    }
    assert_eq!(bench.get(&volume.id).await, Some(volume));
}

async fn l02_resize_with_a_wrong_tag_is_denied_and_does_nothing(subject: BackendSubject) {
    let bench = Bench::from(subject);
    if refuses_to_resize(&bench).await {
        return;
    }
    let (volume, tag) = bench.created().await;
    for wrong in bench.foreign(&tag) {
        let call = bench.backend.resize(&volume.id, &wrong, ByteSize::mib(2)).await;
        assert_eq!(kind(call), ErrorKind::PermissionDenied, "{wrong}");
    }
    assert_eq!(bench.get(&volume.id).await, Some(volume));
}

async fn delete_takes_the_volume_away_and_is_idempotent(subject: BackendSubject) {
    let bench = Bench::from(subject);
    for (volume, tag) in [bench.created().await, bench.attached().await] {
        bench.backend.delete(&volume.id, &tag).await.unwrap();
        assert_eq!(bench.get(&volume.id).await, None);
        assert_eq!(bench.second.get(&volume.id).await.unwrap(), None);
        assert_eq!(kind(bench.backend.attach(&volume.id, &tag).await), ErrorKind::NotFound);
        bench.backend.delete(&volume.id, &tag).await.unwrap();
    }
    bench.backend.delete(&unknown(), &bench.tag("disk-2000")).await.unwrap();
    assert!(bench.list().await.is_empty());
}

async fn delete_of_one_volume_leaves_the_others(subject: BackendSubject) {
    let bench = Bench::from(subject);
    let (kept, _) = bench.created().await;
    let (gone, tag) = bench.created().await;
    bench.backend.delete(&gone.id, &tag).await.unwrap();
    assert_eq!(bench.list().await, [kept]);
}

async fn delete_of_an_open_volume_is_busy(subject: BackendSubject) {
    let bench = Bench::from(subject);
    let (volume, tag) = bench.attached().await;
    for access in [Access::ReadOnly, Access::ReadWrite] {
        let device = bench.backend.open(&volume.id, &tag, access).await.unwrap();
        for backend in [&bench.backend, &bench.second] {
            assert_eq!(kind(backend.delete(&volume.id, &tag).await), ErrorKind::Busy);
        }
        read(&*device, 0, 4096).await;
    }
    bench.backend.delete(&volume.id, &tag).await.unwrap();
}

async fn l02_delete_with_a_wrong_tag_is_denied_and_does_nothing(subject: BackendSubject) {
    let bench = Bench::from(subject);
    let (volume, tag) = bench.attached().await;
    let device = bench.backend.open(&volume.id, &tag, Access::ReadWrite).await.unwrap();
    device.write_at(0, sample(0, 4096), Durability::Durable).await.unwrap();
    drop(device);
    for wrong in bench.foreign(&tag) {
        let call = bench.backend.delete(&volume.id, &wrong).await;
        assert_eq!(kind(call), ErrorKind::PermissionDenied, "{wrong}");
    }
    assert_eq!(bench.get(&volume.id).await, Some(volume.clone()));
    let device = bench.backend.open(&volume.id, &tag, Access::ReadOnly).await.unwrap();
    assert_eq!(read(&*device, 0, 4096).await, sample(0, 4096));
}
