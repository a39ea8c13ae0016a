//! What is asked of the service, and what it refuses.

use super::world::CONFIG;
use super::*;
use crate::ErrorKind;
use crate::record::VolumeTag;
use crate::state::OperationKind;
use crate::traits::{Access, VolumeBackend, VolumeRegistry, VolumeSpec};
use crate::{Generation, InstanceId, SnapshotId};

/// A world with a volume of one MiB, of which `life` is told.
fn with_volume(life: impl AsyncFnOnce(&VolumeService, &World, &DiskRef)) -> World {
    let world = World::new();
    let disk = world.disk("web");
    world.live("daemon", FOR_EVER, &[], async |service| {
        assert_eq!(done(&service, &request(&disk, create())).await.status, OperationStatus::Completed);
        life(&service, &world, &disk).await;
    });
    world
}

#[test]
fn the_same_request_again_is_the_same_operation() {
    with_volume(async |service, world, disk| {
        let attach = request(disk, VolumeChange::Attach);
        let first = done(service, &attach).await;
        assert_eq!(service.submit(attach.clone()).await.unwrap(), first);
        let other = VolumeRequest { change: VolumeChange::Detach, ..attach };
        assert_eq!(service.submit(other).await.unwrap_err().kind(), ErrorKind::AlreadyExists);
        let volume = world.store.volume_of(disk).await.unwrap().unwrap();
        assert!(volume.device_path.is_some(), "nothing was detached");
    })
    .assert_whole();
}

#[test]
fn l03_what_was_meant_for_a_volume_is_not_done_to_the_next_one_of_its_disk() {
    with_volume(async |service, world, disk| {
        let first = world.store.volume_of(disk).await.unwrap().unwrap().id;
        let meant = |change| VolumeRequest { volume: Some(first.clone()), ..request(disk, change) };
        let attach = meant(VolumeChange::Attach);
        assert_eq!(done(service, &attach).await.status, OperationStatus::Completed);
        done(service, &request(disk, VolumeChange::Detach)).await;
        done(service, &request(disk, VolumeChange::Delete)).await;
        done(service, &request(disk, create())).await;
        let second = world.store.volume_of(disk).await.unwrap().unwrap();
        assert_ne!(second.id, first);
        for change in
            [VolumeChange::Delete, VolumeChange::Attach, VolumeChange::Resize { capacity: ByteSize::mib(9) }]
        {
            let refused = service.submit(meant(change)).await.unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::Conflict);
            assert!(refused.chain().contains(second.id.as_str()), "{}", refused.chain());
        }
        assert_eq!(world.store.volume_of(disk).await.unwrap(), Some(second.clone()), "it was let be");
        assert_eq!(
            service.submit(attach.clone()).await.unwrap().status,
            OperationStatus::Completed,
            "as before"
        );
        let mistaken = VolumeRequest { volume: Some(second.id), ..attach };
        assert_eq!(service.submit(mistaken).await.unwrap_err().kind(), ErrorKind::AlreadyExists);
    })
    .assert_whole();
}

#[test]
fn l05_a_volume_is_not_made_smaller() {
    with_volume(async |service, world, disk| {
        let before = world.store.volume_of(disk).await.unwrap().unwrap();
        let resize = |capacity| request(disk, VolumeChange::Resize { capacity });
        let refused = service.submit(resize(ByteSize::kib(1))).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Invalid);
        assert!(refused.chain().contains("only grow"), "{}", refused.chain());
        assert_eq!(world.store.volume_of(disk).await.unwrap().unwrap(), before);
        assert_eq!(done(service, &resize(before.capacity)).await.status, OperationStatus::Completed);
    })
    .assert_whole();
}

#[test]
fn one_request_sent_by_many_at_once_is_done_once() {
    let world = World::new();
    let disk = world.disk("web");
    world.live("daemon", FOR_EVER, &[], async |service| {
        let create = request(&disk, create());
        let sent = futures_util::future::join_all((0..8).map(|_| service.submit(create.clone()))).await;
        for operation in sent {
            assert_eq!(operation.unwrap().spec.id, create.id);
        }
        service.wait(&create.id, LONG).await.unwrap();
    });
    world.assert_whole();
    assert_eq!(world.left().len(), 1);
}

#[test]
fn who_saw_an_operation_end_may_ask_for_the_next() {
    with_volume(async |service, world, disk| {
        for change in [VolumeChange::Attach, VolumeChange::Detach, VolumeChange::Attach] {
            let next = request(disk, change);
            service.submit(next.clone()).await.unwrap();
            // As a poll of the records sees it, which may be before the job has ended.
            while world.store.operation(&next.id).await.unwrap().unwrap().status == OperationStatus::Executing
            {
                tokio::task::yield_now().await;
            }
        }
        service.shutdown().await;
    });
}

#[test]
fn a_disk_with_a_volume_gets_no_second_one_and_one_without_nothing_else() {
    with_volume(async |service, world, disk| {
        let again = service.submit(request(disk, create())).await.unwrap_err();
        assert_eq!(again.kind(), ErrorKind::Conflict);
        let volume = world.store.volume_of(disk).await.unwrap().unwrap();
        assert!(again.chain().contains(volume.id.as_str()), "{}", again.chain());
        let unknown = DiskRef { key: crate::DiskKey::parse("disk-9").unwrap(), ..disk.clone() };
        let refused = service.submit(request(&unknown, VolumeChange::Attach)).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::NotFound);
        let refused = service.submit(request(&unknown, create())).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::NotFound);
    })
    .assert_whole();
}

#[test]
fn what_the_backend_refuses_fails_and_says_why() {
    with_volume(async |service, world, disk| {
        done(service, &request(disk, VolumeChange::Attach)).await;
        let volume = world.store.volume_of(disk).await.unwrap().unwrap();
        let tag = world.backend.get(&volume.id).await.unwrap().unwrap().tag.unwrap();
        let open = world.backend.open(&volume.id, &tag, Access::ReadWrite).await.unwrap();
        let refused = done(service, &request(disk, VolumeChange::Detach)).await;
        assert_eq!(refused.status, OperationStatus::Failed, "it is open, however often it is asked");
        assert!(refused.error.unwrap().contains("open"));
        drop(open);
        assert_eq!(
            done(service, &request(disk, VolumeChange::Detach)).await.status,
            OperationStatus::Completed
        );
        let unknown = VolumeChange::Revert { snapshot: SnapshotId::parse("snap-none").unwrap() };
        let refused = service.submit(request(disk, unknown)).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::NotFound);
        let again = service.submit(request(disk, VolumeChange::Detach)).await.unwrap_err();
        assert_eq!(again.kind(), ErrorKind::Conflict, "it is not attached");
    })
    .assert_whole();
}

/// The create that made the world's volume, whose id follows from it.
async fn first_operation(world: &World) -> OperationId {
    let operations = world.store.operations(crate::record::OperationFilter::default());
    let all: Vec<Operation> = futures_util::TryStreamExt::try_collect(operations).await.unwrap();
    all[0].spec.id.clone()
}

#[test]
fn l02_a_volume_that_somebody_else_marked_is_not_touched() {
    let world = World::new();
    let disk = world.disk("web");
    world.live("daemon", FOR_EVER, &[], async |service| {
        done(&service, &request(&disk, create())).await;
        let volume = world.store.volume_of(&disk).await.unwrap().unwrap();
        // The cloud lost it, and gave its id to somebody else's.
        world.backend.lose(&volume.id);
        let tag =
            VolumeTag { instance: InstanceId::mint(), disk: disk.clone(), generation: Generation::FIRST };
        let spec = VolumeSpec {
            operation: first_operation(&world).await,
            tag: tag.clone(),
            name: volume.name.clone(),
            capacity: volume.capacity,
            provisioning: Provisioning::Thin,
        };
        let foreign = world.backend.create(&spec).await.unwrap();
        assert_eq!(foreign.id, volume.id);
        for change in [
            VolumeChange::Attach,
            VolumeChange::Resize { capacity: ByteSize::mib(8) },
            VolumeChange::Snapshot,
            VolumeChange::Delete,
        ] {
            let ended = done(&service, &request(&disk, change)).await;
            assert_eq!(ended.status, OperationStatus::Failed, "{ended:?}");
            assert_eq!(world.backend.get(&foreign.id).await.unwrap(), Some(foreign.clone()));
        }
        assert!(world.backend.frozen().is_empty());
    });
}

#[test]
fn l19_while_nobody_knows_what_became_of_it_an_operation_is_executing_and_says_so() {
    let world = World::new();
    let disk = world.disk("web");
    world.backend.disconnect();
    world.live("daemon", FOR_EVER, &[], async |service| {
        let create = request(&disk, create());
        service.submit(create.clone()).await.unwrap();
        let now = service.wait(&create.id, CONFIG.doubt_pause * 3).await.unwrap();
        assert_eq!((now.spec.kind, now.status), (OperationKind::Create, OperationStatus::Executing));
        assert!(now.error.is_some(), "in doubt");
        world.backend.reconnect();
        let ended = service.wait(&create.id, LONG).await.unwrap();
        assert_eq!((ended.status, ended.error), (OperationStatus::Completed, None));
    });
    world.assert_whole();
}

#[test]
fn l18_an_operation_goes_on_when_who_asked_for_it_goes_away() {
    let world = World::new();
    let disk = world.disk("web");
    world.live("daemon", FOR_EVER, &[], async |service| {
        let create = request(&disk, create());
        let asking = service.submit(create.clone());
        // Polled once, then dropped.
        let gone = tokio::time::timeout(Duration::ZERO, asking).await;
        assert!(gone.is_err());
        while world.store.operation(&create.id).await.unwrap().is_none() {
            tokio::task::yield_now().await;
        }
        assert_eq!(service.wait(&create.id, LONG).await.unwrap().status, OperationStatus::Completed);
    });
    world.assert_whole();
}

#[test]
fn l17_what_another_process_drives_is_let_be_until_its_lease_has_ended() {
    let world = World::new();
    let disk = world.disk("web");
    let create = request(&disk, create());
    // It dies once the backend has made the volume.
    world.live("daemon", FOR_EVER, &[Fate::Silent], async |service| {
        service.submit(create.clone()).await.unwrap();
        service.wait(&create.id, Duration::from_millis(1)).await.unwrap();
    });
    world.live("rival", FOR_EVER, &[], async |service| {
        let begun = tokio::time::Instant::now();
        assert_eq!(service.recover().await.unwrap().resumed, []);
        assert!(begun.elapsed() < CONFIG.retry.first_pause, "nobody waits for a job of others");
        world.clock.advance(CONFIG.lease * 2);
        assert_eq!(service.recover().await.unwrap().resumed, std::slice::from_ref(&create.id));
        assert_eq!(service.wait(&create.id, LONG).await.unwrap().status, OperationStatus::Completed);
    });
    world.assert_whole();
    assert_eq!(world.left().len(), 1);
}
