//! Volumes are attached, opened and locked.

use std::sync::Arc;

use super::{BackendSubject, Bench, kind, read, unknown};
use crate::conformance::runner::table;
use crate::conformance::{Case, sample};
use crate::traits::{Access, Durability, Zeroing};
use crate::{ErrorKind, Extent, Retry};

pub(super) fn cases() -> Vec<Case<BackendSubject>> {
    table![
        attach_answers_a_device_path_and_is_idempotent,
        detach_takes_the_device_path_away_and_is_idempotent,
        detach_of_an_open_volume_is_busy,
        attach_detach_and_open_of_an_unknown_volume_are_not_found,
        l02_attach_detach_and_open_with_a_wrong_tag_are_denied_and_do_nothing,
        open_of_a_volume_that_is_not_attached_is_a_conflict,
        an_open_volume_has_the_capacity_and_the_access_asked_for,
        what_is_written_is_there_after_it_was_opened_again,
        l06_a_second_writer_is_busy_in_this_handle_and_in_another,
        l06_a_reader_is_busy_while_somebody_writes,
        l06_a_writer_is_busy_while_somebody_reads,
        many_may_read_at_once,
        the_lock_ends_with_the_last_clone_of_the_device,
        stamps_change_with_every_write_at_the_latest_when_it_is_flushed,
        stamps_stay_while_nobody_writes,
        the_stamp_of_an_unknown_volume_is_not_found,
    ]
}

async fn attach_answers_a_device_path_and_is_idempotent(subject: BackendSubject) {
    let bench = Bench::from(subject);
    let (volume, tag) = bench.created().await;
    let attached = bench.backend.attach(&volume.id, &tag).await.unwrap();
    assert!(attached.device_path.is_some(), "{attached:?}");
    assert_eq!(bench.backend.attach(&volume.id, &tag).await.unwrap(), attached);
    assert_eq!(bench.get(&volume.id).await, Some(attached.clone()));
    assert_eq!(bench.second.get(&volume.id).await.unwrap(), Some(attached));
}

async fn detach_takes_the_device_path_away_and_is_idempotent(subject: BackendSubject) {
    let bench = Bench::from(subject);
    let (volume, tag) = bench.attached().await;
    for _ in 0..2 {
        let detached = bench.backend.detach(&volume.id, &tag).await.unwrap();
        assert_eq!(detached.device_path, None);
        assert_eq!(bench.get(&volume.id).await, Some(detached));
    }
    let (fresh, tag) = bench.created().await;
    assert_eq!(bench.backend.detach(&fresh.id, &tag).await.unwrap().device_path, None);
}

async fn detach_of_an_open_volume_is_busy(subject: BackendSubject) {
    let bench = Bench::from(subject);
    let (volume, tag) = bench.attached().await;
    for access in [Access::ReadOnly, Access::ReadWrite] {
        let device = bench.backend.open(&volume.id, &tag, access).await.unwrap();
        assert_eq!(kind(bench.backend.detach(&volume.id, &tag).await), ErrorKind::Busy);
        assert_eq!(kind(bench.second.detach(&volume.id, &tag).await), ErrorKind::Busy);
        read(&*device, 0, 1 << 20).await;
    }
    bench.backend.detach(&volume.id, &tag).await.unwrap();
}

async fn attach_detach_and_open_of_an_unknown_volume_are_not_found(subject: BackendSubject) {
    let bench = Bench::from(subject);
    let (id, tag) = (unknown(), bench.tag("disk-2000"));
    assert_eq!(kind(bench.backend.attach(&id, &tag).await), ErrorKind::NotFound);
    assert_eq!(kind(bench.backend.detach(&id, &tag).await), ErrorKind::NotFound);
    assert_eq!(kind(bench.backend.open(&id, &tag, Access::ReadOnly).await), ErrorKind::NotFound);
}

async fn l02_attach_detach_and_open_with_a_wrong_tag_are_denied_and_do_nothing(subject: BackendSubject) {
    let bench = Bench::from(subject);
    let (created, tag) = bench.created().await;
    let id = &created.id;
    for wrong in bench.foreign(&tag) {
        assert_eq!(kind(bench.backend.attach(id, &wrong).await), ErrorKind::PermissionDenied, "{wrong}");
    }
    assert_eq!(bench.get(id).await, Some(created.clone()));
    let attached = bench.backend.attach(id, &tag).await.unwrap();
    for wrong in bench.foreign(&tag) {
        assert_eq!(kind(bench.backend.detach(id, &wrong).await), ErrorKind::PermissionDenied, "{wrong}");
        for access in [Access::ReadOnly, Access::ReadWrite] {
            let call = bench.backend.open(id, &wrong, access).await;
            assert_eq!(kind(call), ErrorKind::PermissionDenied, "{wrong}");
        }
    }
    assert_eq!(bench.get(id).await, Some(attached));
    bench.backend.open(id, &tag, Access::ReadWrite).await.expect("no lock was left behind");
}

async fn open_of_a_volume_that_is_not_attached_is_a_conflict(subject: BackendSubject) {
    let bench = Bench::from(subject);
    let (volume, tag) = bench.created().await;
    for access in [Access::ReadOnly, Access::ReadWrite] {
        assert_eq!(kind(bench.backend.open(&volume.id, &tag, access).await), ErrorKind::Conflict);
    }
}

async fn an_open_volume_has_the_capacity_and_the_access_asked_for(subject: BackendSubject) {
    let bench = Bench::from(subject);
    let (volume, tag) = bench.attached().await;
    for access in [Access::ReadOnly, Access::ReadWrite] {
        let device = bench.backend.open(&volume.id, &tag, access).await.unwrap();
        assert_eq!((device.info().capacity, device.info().access), (volume.capacity, access));
        let write = device.write_at(0, sample(0, 512), Durability::Cached).await;
        assert_eq!(write.is_ok(), access == Access::ReadWrite, "{write:?}");
    }
}

async fn what_is_written_is_there_after_it_was_opened_again(subject: BackendSubject) {
    let bench = Bench::from(subject);
    let (volume, tag) = bench.attached().await;
    let device = bench.backend.open(&volume.id, &tag, Access::ReadWrite).await.unwrap();
    device.write_at(4096, sample(4096, 8192), Durability::Durable).await.unwrap();
    drop(device);
    bench.backend.detach(&volume.id, &tag).await.unwrap();
    bench.second.attach(&volume.id, &tag).await.unwrap();
    let again = bench.second.open(&volume.id, &tag, Access::ReadOnly).await.unwrap();
    assert_eq!(read(&*again, 4096, 8192).await, sample(4096, 8192));
}

async fn l06_a_second_writer_is_busy_in_this_handle_and_in_another(subject: BackendSubject) {
    let bench = Bench::from(subject);
    let (volume, tag) = bench.attached().await;
    let first = bench.backend.open(&volume.id, &tag, Access::ReadWrite).await.unwrap();
    for backend in [&bench.backend, &bench.second] {
        let error = backend.open(&volume.id, &tag, Access::ReadWrite).await.unwrap_err();
        assert_eq!((error.kind(), error.retry()), (ErrorKind::Busy, Retry::Later), "{}", error.chain());
    }
    first.write_at(0, sample(0, 512), Durability::Cached).await.expect("the first goes on");
}

async fn l06_a_reader_is_busy_while_somebody_writes(subject: BackendSubject) {
    let bench = Bench::from(subject);
    let (volume, tag) = bench.attached().await;
    let _writer = bench.backend.open(&volume.id, &tag, Access::ReadWrite).await.unwrap();
    for backend in [&bench.backend, &bench.second] {
        assert_eq!(kind(backend.open(&volume.id, &tag, Access::ReadOnly).await), ErrorKind::Busy);
    }
}

async fn l06_a_writer_is_busy_while_somebody_reads(subject: BackendSubject) {
    let bench = Bench::from(subject);
    let (volume, tag) = bench.attached().await;
    let _reader = bench.backend.open(&volume.id, &tag, Access::ReadOnly).await.unwrap();
    for backend in [&bench.backend, &bench.second] {
        assert_eq!(kind(backend.open(&volume.id, &tag, Access::ReadWrite).await), ErrorKind::Busy);
    }
}

async fn many_may_read_at_once(subject: BackendSubject) {
    let bench = Bench::from(subject);
    let (volume, tag) = bench.attached().await;
    let mut readers = Vec::new();
    for backend in [&bench.backend, &bench.second, &bench.backend] {
        readers.push(backend.open(&volume.id, &tag, Access::ReadOnly).await.unwrap());
    }
    for reader in &readers {
        read(&**reader, 0, 4096).await;
    }
}

async fn the_lock_ends_with_the_last_clone_of_the_device(subject: BackendSubject) {
    let bench = Bench::from(subject);
    let (volume, tag) = bench.attached().await;
    for access in [Access::ReadWrite, Access::ReadOnly] {
        let device = bench.backend.open(&volume.id, &tag, access).await.unwrap();
        let clone = Arc::clone(&device);
        drop(device);
        assert_eq!(kind(bench.backend.open(&volume.id, &tag, Access::ReadWrite).await), ErrorKind::Busy);
        drop(clone);
        bench.second.open(&volume.id, &tag, Access::ReadWrite).await.unwrap();
    }
}

async fn stamps_change_with_every_write_at_the_latest_when_it_is_flushed(subject: BackendSubject) {
    let bench = Bench::from(subject);
    let (volume, tag) = bench.attached().await;
    let device = bench.backend.open(&volume.id, &tag, Access::ReadWrite).await.unwrap();
    let mut before = bench.backend.content_stamp(&volume.id).await.unwrap();
    assert_eq!(before.is_some(), bench.backend.capabilities().content_stamp);
    let zeroes = Extent::new(0, 4096).unwrap();
    for round in 0..4u64 {
        match round {
            0 | 3 => device.write_at(round * 4096, sample(0, 4096), Durability::Cached).await.unwrap(),
            1 => device.write_zeroes(zeroes, Zeroing::Punch, Durability::Cached).await.unwrap(),
            _ => device.write_zeroes(zeroes, Zeroing::Allocate, Durability::Cached).await.unwrap(),
        }
        device.flush().await.unwrap();
        let after = bench.second.content_stamp(&volume.id).await.unwrap();
        assert!(before.is_none() || before != after, "write {round} left the stamp {before:?}");
        before = after;
    }
}

async fn stamps_stay_while_nobody_writes(subject: BackendSubject) {
    let bench = Bench::from(subject);
    let (volume, tag) = bench.attached().await;
    let device = bench.backend.open(&volume.id, &tag, Access::ReadWrite).await.unwrap();
    device.write_at(0, sample(0, 4096), Durability::Cached).await.unwrap();
    device.flush().await.unwrap();
    let before = bench.backend.content_stamp(&volume.id).await.unwrap();
    read(&*device, 0, 4096).await;
    device.flush().await.unwrap();
    drop(device);
    let mut tag = tag;
    bench.backend.detach(&volume.id, &tag).await.unwrap();
    tag.generation = tag.generation.next();
    bench.backend.retag(&volume.id, &tag).await.unwrap();
    bench.backend.attach(&volume.id, &tag).await.unwrap();
    drop(bench.backend.open(&volume.id, &tag, Access::ReadWrite).await.unwrap());
    assert_eq!(bench.second.content_stamp(&volume.id).await.unwrap(), before);
}

async fn the_stamp_of_an_unknown_volume_is_not_found(subject: BackendSubject) {
    assert_eq!(kind(subject.backend.content_stamp(&unknown()).await), ErrorKind::NotFound);
}
