//! Snapshots are made, read and deleted.

use super::{BackendSubject, Bench, kind, read, unknown};
use crate::conformance::runner::table;
use crate::conformance::{Case, sample};
use crate::traits::{Access, Durability, SnapshotSpec};
use crate::{ErrorKind, JobId, Retry, SnapshotId, Timestamp};

pub(super) fn cases() -> Vec<Case<BackendSubject>> {
    table![
        a_snapshot_keeps_what_the_volume_held,
        snapshot_is_idempotent_by_id_and_keeps_the_first_content,
        a_snapshot_of_a_volume_that_is_not_attached_reads_as_the_volume,
        l20_a_snapshot_bears_the_job_and_is_listed_with_its_volume,
        snapshot_of_a_volume_that_is_written_is_busy,
        a_snapshot_is_made_while_others_read,
        snapshot_of_an_unknown_volume_is_not_found,
        l02_snapshot_with_a_wrong_tag_is_denied_and_makes_nothing,
        a_snapshot_id_that_was_given_to_something_else_already_exists,
        open_snapshot_only_reads,
        l20_a_snapshot_is_opened_only_by_who_knows_all_that_it_was_made_with,
        delete_snapshot_takes_it_away_and_is_idempotent,
        l20_delete_snapshot_with_other_marks_is_denied_and_does_nothing,
        delete_of_an_open_snapshot_is_busy,
        snapshots_outlive_their_volume,
    ]
}

async fn a_snapshot_keeps_what_the_volume_held(subject: BackendSubject) {
    let bench = Bench::from(subject);
    if !bench.makes_snapshots().await {
        return;
    }
    let (volume, tag) = bench.attached().await;
    let mut made = Vec::new();
    for seed in [0, 7, 99] {
        bench.fill(&volume, &tag, seed).await;
        let spec = bench.snapshot_of(&volume, &tag);
        let snapshot = bench.backend.snapshot(&spec).await.unwrap();
        assert_eq!((&snapshot.spec, snapshot.capacity), (&spec, volume.capacity));
        made.push((spec, seed));
    }
    bench.fill(&volume, &tag, 1000).await;
    for (spec, seed) in &made {
        assert!(bench.snapshot_holds(spec, *seed).await, "snapshot {seed}");
    }
    assert!(bench.holds(&volume, &tag, 1000).await);
    assert_eq!(bench.get(&volume.id).await, Some(volume));
}

async fn snapshot_is_idempotent_by_id_and_keeps_the_first_content(subject: BackendSubject) {
    let bench = Bench::from(subject);
    if !bench.makes_snapshots().await {
        return;
    }
    let (volume, mut tag) = bench.attached().await;
    bench.fill(&volume, &tag, 0).await;
    let spec = bench.snapshot_of(&volume, &tag);
    let first = bench.backend.snapshot(&spec).await.unwrap();
    bench.fill(&volume, &tag, 7).await;
    tag.generation = tag.generation.next();
    bench.backend.retag(&volume.id, &tag).await.unwrap();
    assert_eq!(bench.second.snapshot(&spec).await.unwrap(), first);
    assert!(bench.snapshot_holds(&spec, 0).await);
    assert_eq!(bench.snapshots(&volume.id).await, [first]);
}

async fn a_snapshot_of_a_volume_that_is_not_attached_reads_as_the_volume(subject: BackendSubject) {
    let bench = Bench::from(subject);
    if !bench.makes_snapshots().await {
        return;
    }
    let (volume, tag) = bench.attached().await;
    let device = bench.backend.open(&volume.id, &tag, Access::ReadWrite).await.unwrap();
    // Data between holes, neither of them aligned.
    device.write_at(70_000, sample(5, 100_001), Durability::Durable).await.unwrap();
    let held = read(&*device, 0, 1 << 20).await;
    drop(device);
    bench.backend.detach(&volume.id, &tag).await.unwrap();
    let spec = bench.snapshot_of(&volume, &tag);
    bench.backend.snapshot(&spec).await.unwrap();
    let frozen = bench.backend.open_snapshot(&spec).await.unwrap();
    assert_eq!(read(&*frozen, 0, 1 << 20).await, held);
}

async fn l20_a_snapshot_bears_the_job_and_is_listed_with_its_volume(subject: BackendSubject) {
    let bench = Bench::from(subject);
    if !bench.makes_snapshots().await {
        return;
    }
    let ((volume, tag), (other, other_tag)) = (bench.created().await, bench.created().await);
    let spec = bench.snapshot_of(&volume, &tag);
    let snapshot = bench.backend.snapshot(&spec).await.unwrap();
    bench.backend.snapshot(&bench.snapshot_of(&other, &other_tag)).await.unwrap();
    assert!(snapshot.name.contains(spec.job.as_str()), "{snapshot:?}");
    assert!(spec.id.as_str().contains(spec.job.as_str()), "{snapshot:?}");
    assert_eq!(bench.snapshots(&volume.id).await, [snapshot]);
    assert!(bench.snapshots(&unknown()).await.is_empty());
}

async fn snapshot_of_a_volume_that_is_written_is_busy(subject: BackendSubject) {
    let bench = Bench::from(subject);
    if !bench.makes_snapshots().await {
        return;
    }
    let (volume, tag) = bench.attached().await;
    let writer = bench.backend.open(&volume.id, &tag, Access::ReadWrite).await.unwrap();
    for backend in [&bench.backend, &bench.second] {
        let error = backend.snapshot(&bench.snapshot_of(&volume, &tag)).await.unwrap_err();
        assert_eq!((error.kind(), error.retry()), (ErrorKind::Busy, Retry::Later), "{}", error.chain());
    }
    assert!(bench.snapshots(&volume.id).await.is_empty());
    drop(writer);
    bench.backend.snapshot(&bench.snapshot_of(&volume, &tag)).await.unwrap();
    bench.backend.open(&volume.id, &tag, Access::ReadWrite).await.expect("no lock was left behind");
}

async fn a_snapshot_is_made_while_others_read(subject: BackendSubject) {
    let bench = Bench::from(subject);
    if !bench.makes_snapshots().await {
        return;
    }
    let (volume, tag) = bench.attached().await;
    bench.fill(&volume, &tag, 3).await;
    let _reader = bench.second.open(&volume.id, &tag, Access::ReadOnly).await.unwrap();
    let spec = bench.snapshot_of(&volume, &tag);
    bench.backend.snapshot(&spec).await.unwrap();
    assert!(bench.snapshot_holds(&spec, 3).await);
}

async fn snapshot_of_an_unknown_volume_is_not_found(subject: BackendSubject) {
    let bench = Bench::from(subject);
    if !bench.makes_snapshots().await {
        return;
    }
    let job = JobId::mint(Timestamp::from_millis(0));
    let tag = bench.tag("disk-2000");
    let spec = SnapshotSpec { id: SnapshotId::mint(&job), volume: unknown(), tag, job };
    assert_eq!(kind(bench.backend.snapshot(&spec).await), ErrorKind::NotFound);
    assert_eq!(kind(bench.backend.open_snapshot(&spec).await), ErrorKind::NotFound);
}

async fn l02_snapshot_with_a_wrong_tag_is_denied_and_makes_nothing(subject: BackendSubject) {
    let bench = Bench::from(subject);
    if !bench.makes_snapshots().await {
        return;
    }
    let (volume, tag) = bench.created().await;
    for wrong in bench.foreign(&tag) {
        let call = bench.backend.snapshot(&bench.snapshot_of(&volume, &wrong)).await;
        assert_eq!(kind(call), ErrorKind::PermissionDenied, "{wrong}");
    }
    assert!(bench.snapshots(&volume.id).await.is_empty());
}

async fn a_snapshot_id_that_was_given_to_something_else_already_exists(subject: BackendSubject) {
    let bench = Bench::from(subject);
    if !bench.makes_snapshots().await {
        return;
    }
    let (volume, tag) = bench.created().await;
    let spec = bench.snapshot_of(&volume, &tag);
    let made = bench.backend.snapshot(&spec).await.unwrap();
    for other in bench.mistaken(&spec) {
        assert_eq!(kind(bench.backend.snapshot(&other).await), ErrorKind::AlreadyExists, "{other:?}");
    }
    assert_eq!(bench.snapshots(&volume.id).await, [made]);
}

async fn open_snapshot_only_reads(subject: BackendSubject) {
    let bench = Bench::from(subject);
    if !bench.makes_snapshots().await {
        return;
    }
    let (volume, tag) = bench.attached().await;
    bench.fill(&volume, &tag, 0).await;
    let spec = bench.snapshot_of(&volume, &tag);
    bench.backend.snapshot(&spec).await.unwrap();
    let device = bench.backend.open_snapshot(&spec).await.unwrap();
    assert_eq!((device.info().capacity, device.info().access), (volume.capacity, Access::ReadOnly));
    device.write_at(0, sample(7, 4096), Durability::Durable).await.unwrap_err();
    let _writer = bench.backend.open(&volume.id, &tag, Access::ReadWrite).await.unwrap();
    assert!(bench.snapshot_holds(&spec, 0).await);
}

async fn l20_a_snapshot_is_opened_only_by_who_knows_all_that_it_was_made_with(subject: BackendSubject) {
    let bench = Bench::from(subject);
    if !bench.makes_snapshots().await {
        return;
    }
    let (volume, tag) = bench.created().await;
    let spec = bench.snapshot_of(&volume, &tag);
    bench.backend.snapshot(&spec).await.unwrap();
    for other in bench.mistaken(&spec) {
        let call = bench.backend.open_snapshot(&other).await;
        assert_eq!(kind(call), ErrorKind::PermissionDenied, "{other:?}");
    }
}

async fn delete_snapshot_takes_it_away_and_is_idempotent(subject: BackendSubject) {
    let bench = Bench::from(subject);
    if !bench.makes_snapshots().await {
        return;
    }
    let (volume, tag) = bench.attached().await;
    bench.fill(&volume, &tag, 0).await;
    let (gone, kept) = (bench.snapshot_of(&volume, &tag), bench.snapshot_of(&volume, &tag));
    bench.backend.snapshot(&gone).await.unwrap();
    let left = bench.backend.snapshot(&kept).await.unwrap();
    for backend in [&bench.backend, &bench.second] {
        backend.delete_snapshot(&gone).await.unwrap();
        assert_eq!(kind(backend.open_snapshot(&gone).await), ErrorKind::NotFound);
    }
    assert_eq!(bench.snapshots(&volume.id).await, [left]);
    assert!(bench.snapshot_holds(&kept, 0).await);
    assert!(bench.holds(&volume, &tag, 0).await);
}

async fn l20_delete_snapshot_with_other_marks_is_denied_and_does_nothing(subject: BackendSubject) {
    let bench = Bench::from(subject);
    if !bench.makes_snapshots().await {
        return;
    }
    let (volume, tag) = bench.attached().await;
    bench.fill(&volume, &tag, 4).await;
    let spec = bench.snapshot_of(&volume, &tag);
    bench.backend.snapshot(&spec).await.unwrap();
    for other in bench.mistaken(&spec) {
        let call = bench.backend.delete_snapshot(&other).await;
        assert_eq!(kind(call), ErrorKind::PermissionDenied, "{other:?}");
    }
    assert!(bench.snapshot_holds(&spec, 4).await);
}

async fn delete_of_an_open_snapshot_is_busy(subject: BackendSubject) {
    let bench = Bench::from(subject);
    if !bench.makes_snapshots().await {
        return;
    }
    let (volume, tag) = bench.attached().await;
    bench.fill(&volume, &tag, 0).await;
    let spec = bench.snapshot_of(&volume, &tag);
    bench.backend.snapshot(&spec).await.unwrap();
    let reader = bench.second.open_snapshot(&spec).await.unwrap();
    for backend in [&bench.backend, &bench.second] {
        assert_eq!(kind(backend.delete_snapshot(&spec).await), ErrorKind::Busy);
    }
    assert_eq!(read(&*reader, 0, 4096).await, sample(0, 4096));
    drop(reader);
    bench.backend.delete_snapshot(&spec).await.unwrap();
}

async fn snapshots_outlive_their_volume(subject: BackendSubject) {
    let bench = Bench::from(subject);
    if !bench.makes_snapshots().await {
        return;
    }
    let (volume, tag) = bench.attached().await;
    bench.fill(&volume, &tag, 2).await;
    let spec = bench.snapshot_of(&volume, &tag);
    let made = bench.backend.snapshot(&spec).await.unwrap();
    bench.backend.delete(&volume.id, &tag).await.unwrap();
    assert_eq!(bench.snapshots(&volume.id).await, [made]);
    assert!(bench.snapshot_holds(&spec, 2).await);
    bench.backend.delete_snapshot(&spec).await.unwrap();
    assert!(bench.snapshots(&volume.id).await.is_empty());
}
