//! Operations whose backend went silent for good are ended by an operator.

use futures_util::TryStreamExt as _;

use super::deletes::Replicated;
use super::doubts::attached;
use super::world::CONFIG;
use super::*;
use crate::ErrorKind;
use crate::engine::{FindingClass, ReconcileServices, Reconciler};
use crate::record::VolumeContent;
use crate::traits::{VolumeBackend, VolumeRegistry};

/// What is prepared, what is asked for, and how many calls of the backend come before the one that is lost, at each of two tries.
struct Case {
    before: &'static [VolumeChange],
    change: fn(&[crate::SnapshotId]) -> VolumeChange,
    calls: usize,
    ends_content: bool,
}

const fn case(
    before: &'static [VolumeChange],
    change: fn(&[crate::SnapshotId]) -> VolumeChange,
    ends_content: bool,
) -> Case {
    Case { before, change, calls: 0, ends_content }
}

fn cases() -> [Case; 8] {
    use VolumeChange as C;
    [
        case(&[], |_| create(), false),
        case(&[], |_| C::Attach, false),
        case(&[C::Attach], |_| C::Detach, false),
        case(&[], |_| C::Resize { capacity: ByteSize::mib(4) }, true),
        case(&[], |_| C::Delete, true),
        case(&[], |_| C::Snapshot, false),
        Case { calls: 1, ..case(&[C::Snapshot], |made| C::Revert { snapshot: made[0].clone() }, true) },
        case(&[C::Snapshot], |made| C::DeleteSnapshot { snapshot: made[0].clone() }, false),
    ]
}

impl Case {
    fn is_create(&self) -> bool {
        (self.change)(&[crate::SnapshotId::parse("snap-none").unwrap()]) == create()
    }

    /// A world in which this is possible, and what is asked for in it.
    fn world(&self) -> (World, VolumeRequest) {
        let world = World::new();
        let disk = world.disk("web");
        let made = world.live("daemon", FOR_EVER, &[], async |service| {
            let mut made = Vec::new();
            let first = if self.is_create() { None } else { Some(create()) };
            for change in first.iter().chain(self.before) {
                let ended = done(&service, &request(&disk, change.clone())).await;
                assert_eq!(ended.status, OperationStatus::Completed);
                made.extend(ended.spec.snapshot);
            }
            made
        });
        let request = request(&disk, (self.change)(&made.unwrap()));
        (world, request)
    }

    /// What becomes of the calls of a process that asks for it.
    fn fates(&self, fate: Fate) -> Vec<Fate> {
        let tried = [vec![Fate::Answered; self.calls], vec![fate]].concat();
        tried.repeat(usize::try_from(CONFIG.retry.attempts).unwrap())
    }
}

/// Asks for it, and has the backend go away for good before it has told.
async fn doubt(world: &World, service: &VolumeService, request: &VolumeRequest) {
    service.submit(request.clone()).await.unwrap();
    tokio::time::sleep(CONFIG.doubt_pause / 2).await;
    world.backend.disconnect();
    doubted(world, &request.id).await;
}

async fn doubted(world: &World, id: &OperationId) {
    loop {
        let now = world.store.operation(id).await.unwrap().unwrap();
        assert_eq!(now.status, OperationStatus::Executing, "{now:?}");
        if now.error.is_some() {
            return;
        }
        tokio::time::sleep(CONFIG.doubt_pause).await;
    }
}

/// Generation and content of a volume.
type Held = (crate::Generation, VolumeContent);

/// Nothing is believed of a content that may have ended, and everything of one that has not.
fn check_content(ends_content: bool, before: Option<Held>, after: Option<Held>) {
    if ends_content {
        let (before, after) = (before.unwrap(), after.unwrap());
        assert!(after.0 > before.0, "{before:?} {after:?}");
        assert_eq!(after.1, VolumeContent::Inconsistent);
    } else {
        assert_eq!(after, before);
    }
}

async fn generation(world: &World, disk: &DiskRef) -> Option<Held> {
    world.store.volume_of(disk).await.unwrap().map(|volume| (volume.generation, volume.content))
}

#[test]
fn l09_whatever_is_abandoned_leaves_nothing_that_is_believed_and_can_be_asked_for_again() {
    for case in cases() {
        for fate in [Fate::Lost, Fate::Silent] {
            let (world, request) = case.world();
            let kind = world.live("daemon", FOR_EVER, &case.fates(fate), async |service| {
                let before = generation(&world, &request.disk).await;
                doubt(&world, &service, &request).await;
                let ended = service.abandon(&request.id, "the array burnt down").await.unwrap();
                assert_eq!(ended.status, OperationStatus::Failed);
                let why = ended.error.clone().unwrap();
                assert!(why.contains("the array burnt down") && why.contains("may"), "{why}");
                assert_eq!(
                    service.abandon(&request.id, "again").await.unwrap(),
                    ended,
                    "the first reason stays"
                );
                let after = generation(&world, &request.disk).await;
                check_content(case.ends_content, before, after);
                ended.spec.kind
            });
            world.backend.reconnect();
            world.live("daemon", FOR_EVER, &[], async |service| {
                assert_eq!(service.recover().await.unwrap(), crate::engine::Recovered::default());
                let again = super::request(&request.disk, request.change.clone());
                match service.submit(again.clone()).await {
                    Ok(_) => {
                        let ended = service.wait(&again.id, LONG).await.unwrap();
                        assert_eq!(ended.status, OperationStatus::Completed, "{ended:?}");
                    }
                    Err(error) => {
                        let kind = kind.unwrap();
                        assert_eq!((kind, fate), (crate::state::OperationKind::DeleteSnapshot, Fate::Silent));
                        assert_eq!(error.kind(), ErrorKind::NotFound, "it is gone");
                    }
                }
            });
            if !(case.is_create() && fate == Fate::Silent) {
                world.assert_whole();
            }
        }
    }
}

#[test]
fn a_volume_of_an_abandoned_create_is_found_as_nobodys_and_not_used() {
    let case = &cases()[0];
    let (world, create) = case.world();
    let made = world.live("daemon", FOR_EVER, &case.fates(Fate::Silent), async |service| {
        doubt(&world, &service, &create).await;
        service.abandon(&create.id, "gone").await.unwrap();
        world.backend.reconnect();
        let instance = world.store.instance().await.unwrap();
        let made: Vec<_> = world.backend.list(&instance).try_collect().await.unwrap();
        assert!(world.store.volume(&made[0].id).await.unwrap().is_none());
        let again = done(&service, &request(&create.disk, super::create())).await;
        assert_eq!(again.status, OperationStatus::Completed);
        let volume = world.store.volume_of(&create.disk).await.unwrap().unwrap();
        assert_ne!(volume.id, made[0].id);
        made[0].id.clone()
    });
    assert_eq!(world.left().len(), 2);
    let seen = world.live("daemon", FOR_EVER, &[], async |service| {
        let services = ReconcileServices { inventory: world.store.clone(), points: world.store.clone() };
        Reconciler::new(service, services).compare(None).await.unwrap()
    });
    let seen: Vec<_> =
        seen.unwrap().findings.into_iter().map(|finding| (finding.class, finding.volume)).collect();
    assert_eq!(seen, [(FindingClass::Orphan, made)]);
}

#[test]
fn l02_what_comes_late_of_an_abandoned_delete_is_refused_by_its_mark() {
    let vm = Replicated::new();
    let delete = vm.condemned();
    vm.world.clock.advance(CONFIG.grace * 2);
    let (id, mark) = vm.life(async |_| {
        let volume = vm.world.store.volume_of(&vm.disk).await.unwrap().unwrap();
        let mark = vm.world.backend.get(&volume.id).await.unwrap().unwrap().tag.unwrap();
        (volume.id, mark)
    });
    vm.world.live("daemon", FOR_EVER, &[Fate::Lost; 2], async |service| {
        service.recover().await.unwrap();
        doubted(&vm.world, &delete.id).await;
        vm.world.backend.disconnect();
        service.abandon(&delete.id, "the cloud does not answer").await.unwrap();
        vm.world.backend.reconnect();
    });
    // It is used again, and compared as a whole.
    vm.replicates();
    vm.life(async |_| {
        let late = vm.world.backend.delete(&id, &mark).await.unwrap_err();
        assert_eq!(late.kind(), ErrorKind::PermissionDenied);
        assert_eq!(vm.world.store.volume_of(&vm.disk).await.unwrap().unwrap().id, id);
    });
    vm.world.assert_whole();
}

#[test]
fn what_is_not_in_doubt_or_is_told_of_is_not_abandoned() {
    let (world, disk) = attached();
    let refused = async |service: &VolumeService, id: &OperationId, says: &str| {
        let error = service.abandon(id, "why not").await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Conflict);
        assert!(error.chain().contains(says), "{}", error.chain());
    };
    world.live("daemon", FOR_EVER, &[Fate::Silent], async |service| {
        let unknown = service.abandon(&OperationId::mint(), "why not").await.unwrap_err();
        assert_eq!(unknown.kind(), ErrorKind::NotFound);
        let detach = request(&disk, VolumeChange::Detach);
        service.submit(detach.clone()).await.unwrap();
        refused(&service, &detach.id, "not in doubt").await;
        let without = service.abandon(&detach.id, " ").await.unwrap_err();
        assert_eq!(without.kind(), ErrorKind::Invalid);
        assert_eq!(service.wait(&detach.id, LONG).await.unwrap().status, OperationStatus::Completed);
        refused(&service, &detach.id, "completed").await;
    });
    world.live("daemon", FOR_EVER, &[Fate::Lost; 2], async |service| {
        let attach = request(&disk, VolumeChange::Attach);
        doubt(&world, &service, &attach).await;
        world.backend.reconnect();
        refused(&service, &attach.id, "the backend answers").await;
        assert_eq!(service.wait(&attach.id, LONG).await.unwrap().status, OperationStatus::Completed);
    });
    world.assert_whole();
}

#[test]
fn a_deletion_that_has_not_begun_is_called_off_and_not_abandoned() {
    let vm = Replicated::new();
    let delete = vm.condemned();
    vm.life(async |service| {
        let refused = service.abandon(&delete.id, "why not").await.unwrap_err();
        assert!(refused.chain().contains("call it off"), "{}", refused.chain());
    });
}

#[test]
fn l16_what_another_worker_carries_out_is_not_abandoned_until_its_lease_has_ended() {
    let case = &cases()[1];
    let (world, attach) = case.world();
    world.live("daemon", FOR_EVER, &case.fates(Fate::Lost), async |service| {
        doubt(&world, &service, &attach).await;
    });
    world.live("rival", FOR_EVER, &[], async |service| {
        let refused = service.abandon(&attach.id, "gone").await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Busy);
        world.clock.advance(CONFIG.lease * 2);
        assert_eq!(service.abandon(&attach.id, "gone").await.unwrap().status, OperationStatus::Failed);
    });
    world.backend.reconnect();
    world.assert_whole();
}

#[test]
fn l15_killed_at_any_step_of_abandoning_it_is_in_doubt_or_abandoned() {
    for case in cases() {
        let mut dies_at = 0;
        loop {
            let (world, request) = case.world();
            let before = world.live("daemon", FOR_EVER, &case.fates(Fate::Silent), async |service| {
                let before = generation(&world, &request.disk).await;
                doubt(&world, &service, &request).await;
                before
            });
            let abandon = async |service: VolumeService| service.abandon(&request.id, "gone").await.unwrap();
            let lived = world.live("daemon", dies_at, &[], abandon).is_some();
            let ended = world.live("daemon", FOR_EVER, &[], async |service| {
                let ended = service.abandon(&request.id, "gone").await.unwrap();
                // The job of one that was killed behind its end.
                service.recover().await.unwrap();
                (ended, generation(&world, &request.disk).await)
            });
            let (ended, after) = ended.unwrap();
            assert_eq!(ended.status, OperationStatus::Failed, "killed at step {dies_at}");
            check_content(case.ends_content, before.unwrap(), after);
            world.assert_idle();
            if lived {
                assert!(dies_at > 8, "{dies_at}");
                break;
            }
            dies_at += 1;
        }
    }
}

#[test]
fn l16_what_is_being_abandoned_is_not_taken_up_by_its_own_process_meanwhile() {
    let case = &cases()[3];
    for lost in 0..60 {
        let (world, resize) = case.world();
        world.live("daemon", FOR_EVER, &case.fates(Fate::Lost), async |service| {
            doubt(&world, &service, &resize).await;
        });
        let store_fates = [vec![Fate::Answered; lost], vec![Fate::Lost]].concat();
        world.live_on("daemon", FOR_EVER, [&[], &store_fates], async |service| {
            let recovered = async {
                for _ in 0..60 {
                    drop(service.recover().await);
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            };
            let abandoned = service.abandon(&resize.id, "gone");
            match futures_util::future::join(abandoned, recovered).await.0 {
                Ok(abandoned) => assert_eq!(abandoned.status, OperationStatus::Failed),
                Err(error) => assert_ne!(error.kind(), ErrorKind::Fenced, "{lost}: {}", error.chain()),
            }
            // Of two calls in a row the store loses one at most.
            let ended = match service.abandon(&resize.id, "gone").await {
                Err(_) => service.abandon(&resize.id, "gone").await,
                abandoned => abandoned,
            };
            assert_eq!(ended.unwrap().status, OperationStatus::Failed);
        });
    }
}

#[test]
fn l21_what_the_backend_has_made_is_not_abandoned_for_silence() {
    let world = World::new();
    let create = request(&world.disk("web"), create());
    world.live("daemon", FOR_EVER, &[Fate::Unheard; 40], async |service| {
        service.submit(create.clone()).await.unwrap();
        tokio::time::sleep(CONFIG.doubt_pause / 2).await;
        doubted(&world, &create.id).await;
        let refused = service.abandon(&create.id, "no answer").await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Conflict, "{}", refused.chain());
        assert!(refused.chain().contains("the backend answers"), "{}", refused.chain());
        assert_eq!(service.wait(&create.id, LONG).await.unwrap().status, OperationStatus::Completed);
    });
    world.assert_whole();
}

#[test]
fn l21_a_store_that_does_not_answer_is_no_silence_of_the_backend() {
    let case = &cases()[1];
    for lost in 0..30 {
        let (world, attach) = case.world();
        world.live("daemon", FOR_EVER, &case.fates(Fate::Lost), async |service| {
            doubt(&world, &service, &attach).await;
        });
        world.backend.reconnect();
        let store_fates = [vec![Fate::Answered; lost], vec![Fate::Lost; 2]].concat();
        world.live_on("daemon", FOR_EVER, [&[], &store_fates], async |service| {
            let refused = service.abandon(&attach.id, "gone").await.unwrap_err();
            assert!(matches!(refused.kind(), ErrorKind::Conflict | ErrorKind::Unavailable), "{refused:?}");
            let now = world.store.operation(&attach.id).await.unwrap().unwrap();
            assert_eq!(now.status, OperationStatus::Executing, "{lost}: {now:?}");
        });
    }
}

#[test]
fn a_create_that_is_refused_beside_a_volume_of_nobody_says_so_and_can_be_ended() {
    use crate::memory::MemoryBackend;
    let backend = std::sync::Arc::new(MemoryBackend::new().with_room(ByteSize::mib(1)));
    let world = World { backend, ..World::new() };
    let disk = world.disk("web");
    let orphan = request(&disk, create());
    world.live("daemon", FOR_EVER, &[Fate::Unheard; 2], async |service| {
        doubt(&world, &service, &orphan).await;
        service.abandon(&orphan.id, "gone").await.unwrap();
    });
    world.backend.reconnect();
    world.live("daemon", FOR_EVER, &[Fate::Lost; 2], async |service| {
        let refused = request(&disk, create());
        service.submit(refused.clone()).await.unwrap();
        tokio::time::sleep(CONFIG.doubt_pause * 5).await;
        let left = world.store.operation(&refused.id).await.unwrap().unwrap();
        assert_eq!(left.status, OperationStatus::Executing);
        let why = left.error.unwrap();
        assert!(why.contains("there is room for") && why.contains("is in no record"), "{why}");
        world.clock.advance(CONFIG.answer_limit);
        let ended = service.abandon(&refused.id, "no room, and it made nothing").await.unwrap();
        assert_eq!(ended.status, OperationStatus::Failed);
    });
    world.assert_idle();
}

#[test]
fn a_deletion_has_its_time_from_when_it_began() {
    let vm = Replicated::new();
    let delete = vm.condemned();
    vm.world.clock.advance(CONFIG.grace * 2);
    vm.world.live("daemon", FOR_EVER, &[Fate::Lost; 40], async |service| {
        service.recover().await.unwrap();
        doubted(&vm.world, &delete.id).await;
        let early = service.abandon(&delete.id, "it never ends").await.unwrap_err();
        assert_eq!(early.kind(), ErrorKind::Conflict, "{}", early.chain());
        vm.world.clock.advance(CONFIG.answer_limit);
        let ended = service.abandon(&delete.id, "it never ends").await.unwrap();
        assert_eq!(ended.status, OperationStatus::Failed);
    });
    vm.world.assert_idle();
}
