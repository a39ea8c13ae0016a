//! Each operation, killed at each of its steps, with each kind of answer.

use super::*;
use crate::SnapshotId;

/// A change, by the snapshots that were made before.
type Asked = Box<dyn Fn(&[SnapshotId]) -> VolumeChange>;
/// Every operation on one disk, in an order that is possible.
type Script = Vec<(OperationId, Asked)>;

fn script() -> Script {
    let changes: [Asked; 10] = [
        Box::new(|_| create()),
        Box::new(|_| VolumeChange::Attach),
        Box::new(|_| VolumeChange::Snapshot),
        Box::new(|_| VolumeChange::Snapshot),
        Box::new(|_| VolumeChange::Detach),
        Box::new(|_| VolumeChange::Resize { capacity: ByteSize::mib(2) }),
        Box::new(|made| VolumeChange::Revert { snapshot: made[0].clone() }),
        Box::new(|made| VolumeChange::DeleteSnapshot { snapshot: made[1].clone() }),
        Box::new(|_| VolumeChange::Attach),
        Box::new(|_| VolumeChange::Detach),
    ];
    changes.into_iter().map(|change| (OperationId::mint(), change)).collect()
}

/// The same, and the volume is deleted in the end.
fn script_to_the_end() -> Script {
    let last: [Asked; 2] = [
        Box::new(|made| VolumeChange::DeleteSnapshot { snapshot: made[0].clone() }),
        Box::new(|_| VolumeChange::Delete),
    ];
    script().into_iter().chain(last.into_iter().map(|change| (OperationId::mint(), change))).collect()
}

async fn play(service: VolumeService, disk: &DiskRef, script: &Script) {
    let mut made = Vec::new();
    for (id, change) in script {
        let request =
            VolumeRequest { id: id.clone(), disk: disk.clone(), volume: None, change: change(&made) };
        let ended = done(&service, &request).await;
        assert_eq!(ended.status, OperationStatus::Completed, "{ended:?}");
        if request.change == VolumeChange::Snapshot {
            made.extend(ended.spec.snapshot);
        }
    }
}

#[test]
fn l15_killed_at_any_step_the_next_start_leaves_what_an_unharmed_one_does() {
    let mut dies_at = 0;
    loop {
        let world = World::new();
        let disk = world.disk("web");
        let script = script();
        let lived = world.live("daemon", dies_at, &[], |service| play(service, &disk, &script)).is_some();
        world.live("daemon", FOR_EVER, &[], async |service| {
            service.recover().await.unwrap();
            play(service, &disk, &script).await;
        });
        world.assert_whole();
        let left = world.left();
        assert_eq!(left.len(), 2, "killed at step {dies_at}: {left:?}");
        assert!(left[1].starts_with("web-disk-2000 2.0 MiB attached=false"), "{left:?}");
        if lived {
            assert!(dies_at > 100, "each operation has many steps");
            break;
        }
        dies_at += 1;
    }
}

#[test]
fn l15_killed_again_while_it_recovers_nothing_is_lost() {
    for dies_at in (0..160).step_by(3) {
        let world = World::new();
        let disk = world.disk("web");
        let script = script();
        world.live("daemon", dies_at, &[], |service| play(service, &disk, &script));
        for again in 1..12 {
            world.live("daemon", again, &[], async |service| service.recover().await.unwrap());
        }
        world.live("daemon", FOR_EVER, &[], async |service| {
            service.recover().await.unwrap();
            play(service, &disk, &script).await;
        });
        world.assert_whole();
        assert_eq!(world.left().len(), 2, "killed at step {dies_at}");
    }
}

#[test]
fn l19_whatever_becomes_of_an_answer_each_operation_is_done_once() {
    for fate in [Fate::Lost, Fate::Unheard, Fate::Twice, Fate::Silent] {
        for call in 0..16 {
            let world = World::new();
            let disk = world.disk("web");
            let script = script();
            let mut fates = vec![Fate::Answered; call];
            // More often than it is tried again before the operation is in doubt.
            fates.extend([fate; 3]);
            world.live("daemon", FOR_EVER, &fates, |service| play(service, &disk, &script)).unwrap();
            world.assert_whole();
            assert_eq!(world.left().len(), 2, "{fate:?} at call {call}");
        }
    }
}

#[test]
fn l15_killed_at_any_step_up_to_its_deletion_nothing_is_left_of_a_volume() {
    let mut dies_at = 0;
    loop {
        let world = World::new();
        let disk = world.disk("web");
        let script = script_to_the_end();
        let lived = world.live("daemon", dies_at, &[], |service| play(service, &disk, &script)).is_some();
        for again in [4, 9] {
            world.live("daemon", again, &[], async |service| service.recover().await.unwrap());
        }
        world.live("daemon", FOR_EVER, &[], async |service| {
            service.recover().await.unwrap();
            play(service, &disk, &script).await;
        });
        world.assert_whole();
        assert_eq!(world.left(), Vec::<String>::new(), "killed at step {dies_at}");
        if lived {
            break;
        }
        dies_at += 1;
    }
}

#[test]
fn l19_whatever_becomes_of_an_answer_a_volume_is_deleted_once() {
    for fate in [Fate::Lost, Fate::Unheard, Fate::Twice, Fate::Silent] {
        // Those of the deletion, and of what is before it.
        for call in 8..16 {
            let world = World::new();
            let disk = world.disk("web");
            let script = script_to_the_end();
            let mut fates = vec![Fate::Answered; call];
            fates.extend([fate; 3]);
            world.live("daemon", FOR_EVER, &fates, |service| play(service, &disk, &script)).unwrap();
            world.assert_whole();
            assert_eq!(world.left(), Vec::<String>::new(), "{fate:?} at call {call}");
        }
    }
}

#[test]
fn l21_a_deletion_that_is_refused_leaves_the_volume_and_one_in_doubt_is_looked_at() {
    for (doubt, done, status) in [
        (None, false, OperationStatus::Failed),
        (None, true, OperationStatus::Failed),
        (Some(Fate::Lost), false, OperationStatus::Failed),
        (Some(Fate::Lost), true, OperationStatus::Completed),
        (Some(Fate::Unheard), false, OperationStatus::Completed),
    ] {
        let world = World::new();
        let disk = world.disk("web");
        let fates: Vec<_> =
            [Fate::Answered].into_iter().chain(doubt).chain([Fate::Refused { done }]).collect();
        let ended = world.live("daemon", FOR_EVER, &fates, async |service| {
            done_with(&service, &disk, create()).await;
            done_with(&service, &disk, VolumeChange::Delete).await
        });
        assert_eq!(ended.unwrap().status, status, "{doubt:?} {done}");
        let is_there = !done && doubt != Some(Fate::Unheard);
        assert_eq!(!world.left().is_empty(), is_there, "{doubt:?} {done}");
    }
}

async fn done_with(service: &VolumeService, disk: &DiskRef, change: VolumeChange) -> Operation {
    done(service, &request(disk, change)).await
}
