//! Backends without room, and backends that cannot be asked.

use futures_util::StreamExt;

use super::{BackendSubject, Bench, TOO_LARGE, kind, unknown};
use crate::traits::{Access, Provisioning, SnapshotSpec, VolumeSpec};
use crate::{ErrorKind, JobId, SnapshotId, Timestamp};

pub(super) async fn a_create_without_room_leaves_nothing(subject: BackendSubject) {
    let bench = Bench::from(subject);
    let large = VolumeSpec { capacity: TOO_LARGE, provisioning: Provisioning::Thick, ..bench.spec() };
    for _ in 0..3 {
        assert_eq!(kind(bench.backend.create(&large).await), ErrorKind::NoSpace);
        assert!(bench.list().await.is_empty());
    }
    let small = VolumeSpec { provisioning: Provisioning::Thick, ..bench.spec() };
    bench.backend.create(&small).await.expect("no room was lost");
}

pub(super) async fn a_resize_without_room_changes_nothing(subject: BackendSubject) {
    let bench = Bench::from(subject);
    let spec = VolumeSpec { provisioning: Provisioning::Thick, ..bench.spec() };
    let volume = bench.backend.create(&spec).await.unwrap();
    let resized = bench.backend.resize(&volume.id, &spec.tag, TOO_LARGE).await;
    let expected = match bench.backend.capabilities().resize {
        true => ErrorKind::NoSpace,
        false => ErrorKind::Unsupported,
    };
    assert_eq!(kind(resized), expected);
    assert_eq!(bench.get(&volume.id).await, Some(volume));
}

pub(super) async fn a_snapshot_without_room_leaves_nothing(subject: BackendSubject) {
    let bench = Bench::from(subject);
    if !bench.makes_snapshots().await {
        return;
    }
    let (volume, tag) = bench.attached().await;
    bench.fill(&volume, &tag, 0).await;
    let mut made = Vec::new();
    let refused = loop {
        let spec = bench.snapshot_of(&volume, &tag);
        match bench.backend.snapshot(&spec).await {
            Ok(snapshot) => made.push(snapshot),
            Err(error) => break error,
        }
        assert!(made.len() < 64, "there is room for more than was said");
    };
    assert_eq!(refused.kind(), ErrorKind::NoSpace, "{}", refused.chain());
    assert_eq!(bench.snapshots(&volume.id).await.len(), made.len());
    assert!(bench.holds(&volume, &tag, 0).await);
    bench.backend.delete_snapshot(&made[0].spec).await.unwrap();
    let next = bench.snapshot_of(&volume, &tag);
    bench.backend.snapshot(&next).await.expect("no room was lost");
    assert!(bench.snapshot_holds(&next, 0).await);
}

pub(super) async fn l21_a_backend_that_cannot_be_asked_does_not_say_absent(subject: BackendSubject) {
    let bench = Bench::from(subject);
    assert_eq!(kind(bench.backend.get(&unknown()).await), ErrorKind::Unavailable);
    assert_eq!(kind(bench.backend.content_stamp(&unknown()).await), ErrorKind::Unavailable);
    let listed: Vec<_> = bench.backend.list(&bench.instance).collect().await;
    assert!(listed.iter().any(|item| item.as_ref().is_err_and(|e| e.kind() == ErrorKind::Unavailable)));
    let listed: Vec<_> = bench.backend.snapshots(&unknown()).collect().await;
    assert!(listed.iter().any(|item| item.as_ref().is_err_and(|e| e.kind() == ErrorKind::Unavailable)));
}

pub(super) async fn l21_nothing_is_done_where_the_backend_cannot_be_asked(subject: BackendSubject) {
    let bench = Bench::from(subject);
    let (id, tag) = (unknown(), bench.tag("disk-2000"));
    assert_eq!(kind(bench.backend.create(&bench.spec()).await), ErrorKind::Unavailable);
    assert_eq!(kind(bench.backend.retag(&id, &tag).await), ErrorKind::Unavailable);
    assert_eq!(kind(bench.backend.attach(&id, &tag).await), ErrorKind::Unavailable);
    assert_eq!(kind(bench.backend.detach(&id, &tag).await), ErrorKind::Unavailable);
    assert_eq!(kind(bench.backend.open(&id, &tag, Access::ReadOnly).await), ErrorKind::Unavailable);
    assert_eq!(kind(bench.backend.delete(&id, &tag).await), ErrorKind::Unavailable);
    let job = JobId::mint(Timestamp::from_millis(0));
    let snapshot = SnapshotSpec { id: SnapshotId::mint(&job), volume: id.clone(), tag: tag.clone(), job };
    assert_eq!(kind(bench.backend.snapshot(&snapshot).await), ErrorKind::Unavailable);
    assert_eq!(kind(bench.backend.open_snapshot(&snapshot).await), ErrorKind::Unavailable);
    assert_eq!(kind(bench.backend.revert(&id, &tag, &snapshot).await), ErrorKind::Unavailable);
    assert_eq!(kind(bench.backend.delete_snapshot(&snapshot).await), ErrorKind::Unavailable);
}
