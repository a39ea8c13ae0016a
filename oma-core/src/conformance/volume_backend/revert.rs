//! Volumes go back to a snapshot.

use super::{BackendSubject, Bench, kind, read, unknown};
use crate::conformance::runner::table;
use crate::conformance::{Case, sample};
use crate::record::VolumeTag;
use crate::traits::{Access, SnapshotSpec, Volume};
use crate::{ByteSize, ErrorKind};

pub(super) fn cases() -> Vec<Case<BackendSubject>> {
    table![
        revert_gives_the_content_back_and_nothing_else,
        revert_changes_the_stamp_and_is_idempotent,
        revert_of_an_open_volume_is_busy,
        revert_to_a_snapshot_of_another_volume_is_invalid,
        revert_of_or_to_what_is_unknown_is_not_found,
        l02_revert_with_a_wrong_tag_is_denied_and_does_nothing,
        l20_revert_to_a_snapshot_of_somebody_else_is_denied_and_does_nothing,
        a_volume_that_grew_keeps_its_size_when_it_is_reverted,
    ]
}

/// An attached volume that holds 7, and a snapshot of it that holds 0.
async fn written_since(bench: &Bench) -> (Volume, VolumeTag, SnapshotSpec) {
    let (volume, tag) = bench.attached().await;
    bench.fill(&volume, &tag, 0).await;
    let spec = bench.snapshot_of(&volume, &tag);
    bench.backend.snapshot(&spec).await.unwrap();
    bench.fill(&volume, &tag, 7).await;
    (volume, tag, spec)
}

async fn revert_gives_the_content_back_and_nothing_else(subject: BackendSubject) {
    let bench = Bench::from(subject);
    if !bench.makes_snapshots().await {
        return;
    }
    let (volume, mut tag, spec) = written_since(&bench).await;
    tag.generation = tag.generation.next();
    bench.backend.retag(&volume.id, &tag).await.unwrap();
    let now = bench.get(&volume.id).await.unwrap();
    assert_eq!(bench.backend.revert(&volume.id, &tag, &spec).await.unwrap(), now);
    assert_eq!(bench.get(&volume.id).await, Some(now));
    assert!(bench.holds(&volume, &tag, 0).await);
    bench.fill(&volume, &tag, 9).await;
    assert!(bench.snapshot_holds(&spec, 0).await, "the snapshot is not written");
}

async fn revert_changes_the_stamp_and_is_idempotent(subject: BackendSubject) {
    let bench = Bench::from(subject);
    if !bench.makes_snapshots().await {
        return;
    }
    let (volume, tag, spec) = written_since(&bench).await;
    let before = bench.backend.content_stamp(&volume.id).await.unwrap();
    for _ in 0..2 {
        bench.backend.revert(&volume.id, &tag, &spec).await.unwrap();
        assert!(bench.holds(&volume, &tag, 0).await);
    }
    let after = bench.second.content_stamp(&volume.id).await.unwrap();
    assert!(before.is_none() || before != after, "{before:?}");
    bench.backend.delete_snapshot(&spec).await.unwrap();
    assert!(bench.holds(&volume, &tag, 0).await);
}

async fn revert_of_an_open_volume_is_busy(subject: BackendSubject) {
    let bench = Bench::from(subject);
    if !bench.makes_snapshots().await {
        return;
    }
    let (volume, tag, spec) = written_since(&bench).await;
    for access in [Access::ReadOnly, Access::ReadWrite] {
        let device = bench.backend.open(&volume.id, &tag, access).await.unwrap();
        for backend in [&bench.backend, &bench.second] {
            assert_eq!(kind(backend.revert(&volume.id, &tag, &spec).await), ErrorKind::Busy);
        }
        assert_eq!(read(&*device, 0, 4096).await, sample(7, 4096));
    }
    bench.second.revert(&volume.id, &tag, &spec).await.unwrap();
}

async fn revert_to_a_snapshot_of_another_volume_is_invalid(subject: BackendSubject) {
    let bench = Bench::from(subject);
    if !bench.makes_snapshots().await {
        return;
    }
    let (_, _, spec) = written_since(&bench).await;
    let (other, tag) = bench.attached().await;
    bench.fill(&other, &tag, 5).await;
    assert_eq!(kind(bench.backend.revert(&other.id, &tag, &spec).await), ErrorKind::Invalid);
    assert!(bench.holds(&other, &tag, 5).await);
}

async fn revert_of_or_to_what_is_unknown_is_not_found(subject: BackendSubject) {
    let bench = Bench::from(subject);
    if !bench.makes_snapshots().await {
        return;
    }
    let (volume, tag, spec) = written_since(&bench).await;
    assert_eq!(kind(bench.backend.revert(&unknown(), &tag, &spec).await), ErrorKind::NotFound);
    bench.backend.delete_snapshot(&spec).await.unwrap();
    assert_eq!(kind(bench.backend.revert(&volume.id, &tag, &spec).await), ErrorKind::NotFound);
    assert!(bench.holds(&volume, &tag, 7).await);
}

async fn l02_revert_with_a_wrong_tag_is_denied_and_does_nothing(subject: BackendSubject) {
    let bench = Bench::from(subject);
    if !bench.makes_snapshots().await {
        return;
    }
    let (volume, tag, spec) = written_since(&bench).await;
    for wrong in bench.foreign(&tag) {
        let call = bench.backend.revert(&volume.id, &wrong, &spec).await;
        assert_eq!(kind(call), ErrorKind::PermissionDenied, "{wrong}");
    }
    assert!(bench.holds(&volume, &tag, 7).await);
}

async fn l20_revert_to_a_snapshot_of_somebody_else_is_denied_and_does_nothing(subject: BackendSubject) {
    let bench = Bench::from(subject);
    if !bench.makes_snapshots().await {
        return;
    }
    let (volume, tag, spec) = written_since(&bench).await;
    for other in bench.mistaken(&spec) {
        let call = bench.backend.revert(&volume.id, &tag, &other).await;
        assert_eq!(kind(call), ErrorKind::PermissionDenied, "{other:?}");
    }
    assert!(bench.holds(&volume, &tag, 7).await);
}

async fn a_volume_that_grew_keeps_its_size_when_it_is_reverted(subject: BackendSubject) {
    let bench = Bench::from(subject);
    if !bench.makes_snapshots().await || !bench.backend.capabilities().resize {
        return;
    }
    let (volume, tag, spec) = written_since(&bench).await;
    let grown = bench.backend.resize(&volume.id, &tag, ByteSize::new((2 << 20) + 512)).await.unwrap();
    let reverted = bench.backend.revert(&volume.id, &tag, &spec).await.unwrap();
    assert_eq!(reverted.capacity, grown.capacity);
    let device = bench.second.open(&volume.id, &tag, Access::ReadOnly).await.unwrap();
    let all = read(&*device, 0, (2 << 20) + 512).await;
    assert_eq!(all[..1 << 20], sample(0, 1 << 20));
    assert!(all[1 << 20..].iter().all(|byte| *byte == 0));
}
