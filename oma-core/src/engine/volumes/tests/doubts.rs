//! Refusals and lost answers of backend and store, in the orders that mislead.

use std::sync::Arc;

use super::super::Mend;
use super::world::CONFIG;
use super::*;
use crate::record::{JobEnd, JobSpec, OperationFilter, OperationSpec, VolumeContent};
use crate::state::OperationKind;
use crate::traits::{Access, BlockDevice, JobStore as _, Volume, VolumeBackend, VolumeRegistry};
use crate::{Clock as _, ErrorKind, JobId, WorkerId};

/// A world with an attached volume.
pub(super) fn attached() -> (World, DiskRef) {
    let world = World::new();
    let disk = world.disk("web");
    world.live("daemon", FOR_EVER, &[], async |service| {
        for change in [create(), VolumeChange::Attach] {
            assert_eq!(done(&service, &request(&disk, change)).await.status, OperationStatus::Completed);
        }
    });
    (world, disk)
}

async fn opened(world: &World, disk: &DiskRef) -> Arc<dyn BlockDevice> {
    let volume = world.store.volume_of(disk).await.unwrap().unwrap();
    let tag = world.backend.get(&volume.id).await.unwrap().unwrap().tag.unwrap();
    world.backend.open(&volume.id, &tag, Access::ReadWrite).await.unwrap()
}

#[test]
fn l19_what_is_refused_after_its_answer_was_lost_may_have_been_done() {
    let (world, disk) = attached();
    world.live("daemon", FOR_EVER, &[Fate::Unheard], async |service| {
        let resize = request(&disk, VolumeChange::Resize { capacity: ByteSize::mib(4) });
        // Somebody opens it between the two tries.
        service.submit(resize.clone()).await.unwrap();
        while world
            .backend
            .get(&world.store.volume_of(&disk).await.unwrap().unwrap().id)
            .await
            .unwrap()
            .unwrap()
            .capacity
            < ByteSize::mib(4)
        {
            tokio::task::yield_now().await;
        }
        let open = opened(&world, &disk).await;
        let ended = service.wait(&resize.id, LONG).await.unwrap();
        assert_eq!(ended.status, OperationStatus::Completed, "{ended:?}");
        drop(open);
    });
    world.assert_whole();
}

#[test]
fn l21_a_store_that_does_not_answer_turns_no_doubt_into_a_failure() {
    for lost in 0..40 {
        for fate in [Fate::Lost, Fate::Unheard] {
            let world = World::new();
            let disk = world.disk("web");
            let mut store_fates = vec![Fate::Answered; lost];
            store_fates.extend([fate; 3]);
            let create = request(&disk, create());
            let fates = [Fate::Unheard; 3];
            world.live_on("daemon", FOR_EVER, [&fates, &store_fates], async |service| {
                drop(service.submit(create.clone()).await);
                drop(service.wait(&create.id, CONFIG.doubt_pause * 10).await);
            });
            world.live("daemon", FOR_EVER, &[], async |service| {
                service.finish_left_over().await.unwrap();
                service.finish_left_over().await.unwrap();
                assert_eq!(
                    done(&service, &create).await.status,
                    OperationStatus::Completed,
                    "{lost} {fate:?}"
                );
            });
            world.assert_whole();
            assert_eq!(world.left().len(), 1);
        }
    }
}

/// Records another device of a volume than it has, as a restored database may.
async fn record_attached(world: &World, disk: &DiskRef, path: &str) {
    let store = &*world.store;
    let job = JobSpec::operate(JobId::mint(world.clock.now()), disk.clone());
    let job = store.insert(job).await.unwrap().id;
    let worker = WorkerId::parse("daemon").unwrap();
    let lease = store.claim(&job, &worker, CONFIG.lease).await.unwrap();
    let record = store.volume_of(disk).await.unwrap().unwrap();
    let attach = OperationSpec::new(OperationId::mint(), OperationKind::Attach, disk.clone(), job);
    let attach = OperationSpec { volume: Some(record.id.clone()), ..attach };
    store.begin(&lease, &attach).await.unwrap();
    let device_path = Some(path.to_owned());
    let (name, capacity) = (record.name, record.capacity);
    let volume = Volume { id: record.id, name, capacity, tag: None, device_path };
    store.complete(&lease, &attach.id, &volume, false).await.unwrap();
    store.end(&lease, JobEnd::Done).await.unwrap();
}

#[test]
fn what_the_records_refuse_is_not_said_to_be_undone() {
    let (world, disk) = attached();
    let other = world.disk("db");
    world.live("daemon", FOR_EVER, &[], async |service| {
        done(&service, &request(&other, create())).await;
        let path = format!("/dev/memory/{}", world.store.volume_of(&other).await.unwrap().unwrap().id);
        record_attached(&world, &disk, &path).await;
        let attach = request(&other, VolumeChange::Attach);
        service.submit(attach.clone()).await.unwrap();
        let left = service.wait(&attach.id, LONG).await.unwrap();
        assert_eq!(left.status, OperationStatus::Executing, "{left:?}");
        assert!(left.error.unwrap().contains("cannot be recorded"));
        done(&service, &request(&disk, VolumeChange::Detach)).await;
        service.finish_left_over().await.unwrap();
        assert_eq!(service.wait(&attach.id, LONG).await.unwrap().status, OperationStatus::Completed);
    });
    world.assert_whole();
}

#[test]
fn l09_a_revert_that_cannot_be_done_costs_no_epoch() {
    let (world, disk) = attached();
    world.live("daemon", FOR_EVER, &[], async |service| {
        let snapshot = done(&service, &request(&disk, VolumeChange::Snapshot)).await.spec.snapshot.unwrap();
        let before = world.store.volume_of(&disk).await.unwrap().unwrap();
        assert_eq!(before.content, VolumeContent::Blank);
        let open = opened(&world, &disk).await;
        let revert = request(&disk, VolumeChange::Revert { snapshot: snapshot.clone() });
        assert_eq!(done(&service, &revert).await.status, OperationStatus::Failed, "it is open");
        assert_eq!(world.store.volume_of(&disk).await.unwrap().unwrap(), before);
        drop(open);
        let revert = request(&disk, VolumeChange::Revert { snapshot });
        assert_eq!(done(&service, &revert).await.status, OperationStatus::Completed);
        assert!(world.store.volume_of(&disk).await.unwrap().unwrap().generation > before.generation);
    });
    world.assert_whole();
}

#[test]
fn a_volume_is_not_deleted_while_it_has_snapshots_that_nobody_else_would_find() {
    let (world, disk) = attached();
    world.live("daemon", FOR_EVER, &[], async |service| {
        let snapshot = done(&service, &request(&disk, VolumeChange::Snapshot)).await.spec.snapshot.unwrap();
        done(&service, &request(&disk, VolumeChange::Detach)).await;
        let refused = service.submit(request(&disk, VolumeChange::Delete)).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Conflict);
        assert!(refused.chain().contains(snapshot.as_str()), "{}", refused.chain());
        done(&service, &request(&disk, VolumeChange::DeleteSnapshot { snapshot })).await;
        assert_eq!(
            done(&service, &request(&disk, VolumeChange::Delete)).await.status,
            OperationStatus::Completed
        );
    });
    world.assert_whole();
    assert_eq!(world.left(), Vec::<String>::new());
}

#[test]
fn a_mark_that_cannot_be_made_holds_up_no_other_vm() {
    let (world, disk) = attached();
    let other = world.disk("db");
    let marks = [Fate::Answered, Fate::Answered, Fate::Answered];
    let fates = [&marks[..], &[Fate::Silent; 64]].concat();
    world.live("daemon", FOR_EVER, &fates, async |service| {
        let snapshot = done(&service, &request(&disk, VolumeChange::Snapshot)).await.spec.snapshot.unwrap();
        let revert = request(&disk, VolumeChange::Revert { snapshot });
        service.submit(revert).await.unwrap();
        let begun = tokio::time::Instant::now();
        service.submit(request(&other, create())).await.unwrap();
        assert!(begun.elapsed() < CONFIG.answer_limit, "{:?}", begun.elapsed());
    });
}

#[test]
fn l15_the_same_key_in_two_processes_is_one_operation() {
    let (world, disk) = attached();
    let snapshot = request(&disk, VolumeChange::Snapshot);
    let first = world.live("daemon", FOR_EVER, &[], async |service| done(&service, &snapshot).await).unwrap();
    let second = world.live("rival", FOR_EVER, &[], async |service| done(&service, &snapshot).await).unwrap();
    assert_eq!(first, second);
    let made = world.live("reader", FOR_EVER, &[], async |_| {
        let filter = OperationFilter { kind: Some(OperationKind::Snapshot), ..OperationFilter::default() };
        let found = world.store.operations(filter);
        futures_util::TryStreamExt::try_collect::<Vec<_>>(found).await.unwrap()
    });
    assert_eq!(made.unwrap().len(), 1);
    world.assert_whole();
}

#[test]
fn a_backend_that_lists_no_snapshots_holds_up_no_other_vm() {
    let (world, disk) = attached();
    let other = world.disk("db");
    world.live("daemon", FOR_EVER, &[], async |service| {
        done(&service, &request(&disk, VolumeChange::Detach)).await;
        world.weather.mute.store(true, std::sync::atomic::Ordering::SeqCst);
        let delete = service.submit(request(&disk, VolumeChange::Delete));
        let created = async {
            let begun = tokio::time::Instant::now();
            service.submit(request(&other, create())).await.unwrap();
            assert!(begun.elapsed() < CONFIG.answer_limit, "{:?}", begun.elapsed());
        };
        let (refused, ()) = futures_util::future::join(delete, created).await;
        assert_eq!(refused.unwrap_err().kind(), ErrorKind::Unavailable, "nobody knows of snapshots");
        assert!(world.store.volume_of(&disk).await.unwrap().is_some());
    });
}

#[test]
fn l19_what_a_dead_process_asked_for_may_have_been_done_though_it_is_refused_now() {
    let (world, disk) = attached();
    let resize = request(&disk, VolumeChange::Resize { capacity: ByteSize::mib(4) });
    world.live("daemon", FOR_EVER, &[Fate::Silent], async |service| {
        service.submit(resize.clone()).await.unwrap();
        service.wait(&resize.id, CONFIG.doubt_pause).await.unwrap();
    });
    world.live("daemon", FOR_EVER, &[], async |service| {
        let open = opened(&world, &disk).await;
        service.recover().await.unwrap();
        let ended = service.wait(&resize.id, LONG).await.unwrap();
        assert_eq!(ended.status, OperationStatus::Completed, "{ended:?}");
        drop(open);
    });
    world.assert_whole();
}

/// Has a VM of another name be changed beside what is silent.
async fn beside<T>(service: &VolumeService, other: &DiskRef, silent: impl Future<Output = T>) -> T {
    let changed = async {
        // Once the other has come to where it waits.
        tokio::time::sleep(CONFIG.doubt_pause).await;
        let begun = tokio::time::Instant::now();
        service.submit(request(other, create())).await.unwrap();
        assert!(begun.elapsed() < CONFIG.doubt_pause, "{:?}", begun.elapsed());
    };
    futures_util::future::join(silent, changed).await.0
}

#[test]
fn a_repair_that_marks_a_volume_holds_up_no_other_vm() {
    let (world, disk) = attached();
    let other = world.disk("db");
    world.live("daemon", FOR_EVER, &[Fate::Silent], async |service| {
        let volume = world.store.volume_of(&disk).await.unwrap().unwrap();
        let tag = world.backend.get(&volume.id).await.unwrap().unwrap().tag.unwrap();
        let mend = Mend::Retag(&volume.id, &tag);
        let mended = service.mend(&disk, mend, async { Ok(true) });
        let silent = beside(&service, &other, mended).await.unwrap_err();
        assert_eq!(silent.kind(), ErrorKind::Unavailable);
        let mended = service.mend(&disk, Mend::Retag(&volume.id, &tag), async { Ok(true) });
        assert_eq!(mended.await.unwrap(), None);
    });
    world.assert_idle();
}

#[test]
fn l16_what_is_repaired_is_not_taken_up_by_its_own_process_meanwhile() {
    let (world, disk) = attached();
    world.live("daemon", FOR_EVER, &[Fate::Silent], async |service| {
        let volume = world.store.volume_of(&disk).await.unwrap().unwrap();
        let tag = world.backend.get(&volume.id).await.unwrap().unwrap().tag.unwrap();
        let mended = service.mend(&disk, Mend::Retag(&volume.id, &tag), async { Ok(true) });
        let recovered = async {
            tokio::time::sleep(CONFIG.doubt_pause).await;
            let refused = service.submit(request(&disk, VolumeChange::Detach)).await.unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::Conflict, "its job is live");
            service.recover().await.unwrap()
        };
        let (silent, recovered) = futures_util::future::join(mended, recovered).await;
        assert_eq!(recovered, crate::engine::Recovered::default());
        assert_eq!(silent.unwrap_err().kind(), ErrorKind::Unavailable, "and neither cancelled nor fenced");
    });
    world.assert_idle();
}

/// It died between the end of its revert and that of its job: the volume does not bear its generation yet.
async fn leave_unmarked(world: &World, disk: &DiskRef) {
    let store = &*world.store;
    let volume = store.volume_of(disk).await.unwrap().unwrap();
    let job = JobSpec::operate(JobId::mint(world.clock.now()), disk.clone());
    let job = store.insert(job).await.unwrap().id;
    let lease = store.claim(&job, &WorkerId::parse("daemon").unwrap(), CONFIG.lease).await.unwrap();
    let revert = OperationSpec {
        volume: Some(volume.id.clone()),
        snapshot: Some(crate::SnapshotId::parse("snap-1").unwrap()),
        ..OperationSpec::new(OperationId::mint(), OperationKind::Revert, disk.clone(), job)
    };
    store.begin(&lease, &revert).await.unwrap();
    let found = world.backend.get(&volume.id).await.unwrap().unwrap();
    store.complete(&lease, &revert.id, &found, false).await.unwrap();
}

#[test]
fn l15_a_mark_that_is_being_made_at_the_end_of_a_process_is_made_by_the_next() {
    let (world, disk) = attached();
    world.live("daemon", FOR_EVER, &[Fate::Silent], async |service| {
        leave_unmarked(&world, &disk).await;
        let ends = async {
            tokio::time::sleep(CONFIG.doubt_pause).await;
            service.shutdown().await;
        };
        drop(futures_util::future::join(service.recover(), ends).await);
        assert!(world.store.live(&disk.context).await.unwrap().is_some(), "its job has not ended");
    });
    world.live("daemon", FOR_EVER, &[], async |service| service.recover().await.unwrap());
    world.assert_whole();
}

#[test]
fn l16_a_repair_whose_check_takes_longer_than_a_lease_is_carried_out() {
    let (world, disk) = attached();
    world.weather.slow.store(true, std::sync::atomic::Ordering::SeqCst);
    world.live("daemon", FOR_EVER, &[Fate::Silent], async |service| {
        let volume = world.store.volume_of(&disk).await.unwrap().unwrap();
        let id = OperationId::mint();
        let slowly = async {
            tokio::time::sleep(CONFIG.lease * 3).await;
            Ok(true)
        };
        let mended = service.mend(&disk, Mend::Operate(&id, OperationKind::Detach, &volume.id), slowly).await;
        assert_eq!(mended.unwrap().as_ref(), Some(&id));
        let ended = service.wait(&id, LONG).await.unwrap();
        assert_eq!(ended.status, OperationStatus::Completed, "{ended:?}");
    });
    world.assert_whole();
}

#[test]
fn a_mark_that_a_dead_process_left_to_make_holds_up_no_other_vm() {
    let (world, disk) = attached();
    let other = world.disk("db");
    world.live("daemon", FOR_EVER, &[Fate::Silent], async |service| {
        leave_unmarked(&world, &disk).await;
        let volume = world.store.volume_of(&disk).await.unwrap().unwrap();
        let forgotten = service.mend(&disk, Mend::Forget(&volume.id), async { Ok(false) });
        let silent = beside(&service, &other, forgotten).await.unwrap_err();
        assert_eq!(silent.kind(), ErrorKind::Unavailable);
        service.recover().await.unwrap();
        service.shutdown().await;
    });
    world.assert_whole();
}
