use super::super::runner::table;
use super::*;
use crate::record::JobEnd;
use crate::state::{ExportEvent, ExportStatus};

pub(super) fn cases() -> Vec<Case<StoreSubject>> {
    table![
        an_export_is_recorded_before_the_server_is_told,
        an_export_moves_by_its_events_only,
        beginning_again_starts_over_whichever_job_had_it,
        a_name_of_another_disk_exists_already,
        a_name_of_another_volume_exists_already,
        what_is_refused_changes_no_export,
        an_export_needs_the_jobs_disk_and_its_attached_volume,
        only_a_stopped_export_is_removed,
        an_export_of_another_job_cannot_be_moved,
        a_volume_that_is_made_anew_is_exported_no_more,
        exports_are_listed_by_name,
    ]
}

async fn exported(store: &StoreSubject) -> (VmContext, Lease, VolumeRecord) {
    let (vm, lease) = store.claimed().await;
    let disk = store.disk(&vm, KEYS[0]);
    let volume = store.provision(&lease, &disk, "vol-1").await;
    store.exports.begin(&lease, &name("x"), &disk.key, &volume.id).await.unwrap();
    (vm, lease, volume)
}

async fn an_export_is_recorded_before_the_server_is_told(store: StoreSubject) {
    assert_eq!(store.exports.export(&name("x")).await.unwrap(), None);
    let (_, lease, volume) = exported(&store).await;
    let export = store.exports.export(&name("x")).await.unwrap().unwrap();
    assert_eq!((export.status, &export.job), (ExportStatus::Starting, &lease.job));
    assert_eq!((export.disk, export.volume), (volume.disk, volume.id));
}

async fn an_export_moves_by_its_events_only(store: StoreSubject) {
    let (_, lease, _) = exported(&store).await;
    use ExportEvent::{Drain, Started, Stopped};
    let moved = store.exports.advance(&lease, &name("x"), Started).await.unwrap();
    assert_eq!(moved.status, ExportStatus::Running);
    assert_kind(store.exports.advance(&lease, &name("x"), Stopped).await, ErrorKind::Conflict);
    assert_eq!(store.exports.export(&name("x")).await.unwrap(), Some(moved));
    for (event, status) in [(Drain, ExportStatus::Draining), (Stopped, ExportStatus::Stopped)] {
        assert_eq!(store.exports.advance(&lease, &name("x"), event).await.unwrap().status, status);
    }
    assert_kind(store.exports.advance(&lease, &name("none"), Drain).await, ErrorKind::NotFound);
}

async fn beginning_again_starts_over_whichever_job_had_it(store: StoreSubject) {
    let (vm, lease, volume) = exported(&store).await;
    store.exports.advance(&lease, &name("x"), ExportEvent::Started).await.unwrap();
    store.jobs.end(&lease, JobEnd::Failed("why".to_owned())).await.unwrap();
    let next = store.second_job(&vm).await;
    let again = store.exports.begin(&next, &name("x"), &key(KEYS[0]), &volume.id).await.unwrap();
    assert_eq!((again.status, &again.job), (ExportStatus::Starting, &next.job));
    assert_eq!(store.exports.exports().try_collect::<Vec<_>>().await.unwrap(), [again]);
}

async fn a_name_of_another_disk_exists_already(store: StoreSubject) {
    let (vm, lease, _) = exported(&store).await;
    let disk = store.disk(&vm, KEYS[1]);
    let volume = store.provision(&lease, &disk, "vol-2").await;
    let begun = store.exports.begin(&lease, &name("x"), &disk.key, &volume.id).await;
    assert_kind(begun, ErrorKind::AlreadyExists);
}

async fn a_name_of_another_volume_exists_already(store: StoreSubject) {
    let (vm, lease, _) = exported(&store).await;
    let disk = store.disk(&vm, KEYS[0]);
    let volume = store.provision(&lease, &disk, "vol-2").await;
    let begun = store.exports.begin(&lease, &name("x"), &disk.key, &volume.id).await;
    assert_kind(begun, ErrorKind::AlreadyExists);
}

async fn what_is_refused_changes_no_export(store: StoreSubject) {
    let (vm, lease, volume) = exported(&store).await;
    store.exports.advance(&lease, &name("x"), ExportEvent::Started).await.unwrap();
    let other = store.job_of_another_vm().await;
    let before = store.world(&vm).await;
    store.clock.advance(Duration::from_secs(1));
    assert_kind(store.exports.remove(&name("x")).await, ErrorKind::Conflict);
    assert_kind(store.exports.advance(&lease, &name("x"), ExportEvent::Started).await, ErrorKind::Conflict);
    let begun = store.exports.begin(&other, &name("x"), &key(KEYS[0]), &volume.id).await;
    assert_kind(begun, ErrorKind::NotFound);
    assert_eq!(store.world(&vm).await, before);
}

async fn an_export_needs_the_jobs_disk_and_its_attached_volume(store: StoreSubject) {
    let (vm, lease, volume) = exported(&store).await;
    let unknown_disk = store.exports.begin(&lease, &name("y"), &key("disk-9"), &volume.id).await;
    assert_kind(unknown_disk, ErrorKind::NotFound);
    let other_disk = store.exports.begin(&lease, &name("y"), &key(KEYS[1]), &volume.id).await;
    assert_kind(other_disk, ErrorKind::NotFound);
    let disk = store.disk(&vm, KEYS[1]);
    let create = store.operation(&lease, &disk, OperationKind::Create, None);
    let made = store.carry_out(&lease, &create, &store.backend_volume("vol-2", None)).await.unwrap();
    let not_attached = store.exports.begin(&lease, &name("y"), &disk.key, &made.id).await;
    assert_kind(not_attached, ErrorKind::NotFound);
}

async fn only_a_stopped_export_is_removed(store: StoreSubject) {
    let (_, lease, _) = exported(&store).await;
    assert_kind(store.exports.remove(&name("x")).await, ErrorKind::Conflict);
    for event in [ExportEvent::Drain, ExportEvent::Stopped] {
        store.exports.advance(&lease, &name("x"), event).await.unwrap();
    }
    for _ in 0..2 {
        store.exports.remove(&name("x")).await.unwrap();
        assert_eq!(store.exports.export(&name("x")).await.unwrap(), None);
    }
}

async fn an_export_of_another_job_cannot_be_moved(store: StoreSubject) {
    let (_, _, _) = exported(&store).await;
    let other = store.job_of_another_vm().await;
    assert_kind(store.exports.advance(&other, &name("x"), ExportEvent::Drain).await, ErrorKind::NotFound);
}

async fn a_volume_that_is_made_anew_is_exported_no_more(store: StoreSubject) {
    let (_, lease, volume) = exported(&store).await;
    let create = store.operation(&lease, &volume.disk, OperationKind::Create, None);
    store.carry_out(&lease, &create, &store.backend_volume(volume.id.as_str(), None)).await.unwrap();
    assert_eq!(store.exports.export(&name("x")).await.unwrap(), None);
}

async fn exports_are_listed_by_name(store: StoreSubject) {
    let (vm, lease, volume) = exported(&store).await;
    let disk = store.disk(&vm, KEYS[0]);
    let first = store.exports.begin(&lease, &name("a"), &disk.key, &volume.id).await.unwrap();
    let names: Vec<_> = store.exports.exports().map_ok(|export| export.name).try_collect().await.unwrap();
    assert_eq!(names, [first.name, name("x")]);
}
