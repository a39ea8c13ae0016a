//! A database is restored from a backup, and its volumes have gone on since: what it asks for is not done to them.

use std::sync::{Arc, Mutex};

use super::deletes::Replicated;
use super::world::CONFIG;
use super::*;
use crate::engine::{Event, Progress, Recovered};
use crate::memory::MemoryStore;
use crate::record::{JobEnd, JobFilter, ReplicationJob, VolumeContent};
use crate::state::ReplicationType;
use crate::traits::{JobStore, Volume, VolumeBackend, VolumeRegistry};
use crate::{Epoch, Generation, WorkerId};

/// Takes a backup at everything that a run tells.
#[derive(Debug)]
struct Backups {
    store: Arc<MemoryStore>,
    taken: Mutex<Vec<(String, MemoryStore)>>,
}

impl Progress for Backups {
    fn event(&self, event: Event<'_>) {
        self.taken.lock().unwrap().push((format!("{event:?}"), self.store.copy()));
    }
}

impl Replicated {
    /// The same volumes, with the records of a backup.
    fn restored(&self, backup: &MemoryStore) -> World {
        let World { backend, clock, weather, .. } = &self.world;
        let store = Arc::new(backup.copy());
        World { store, backend: backend.clone(), clock: clock.clone(), weather: weather.clone() }
    }

    async fn volume(&self) -> Option<Volume> {
        let record = self.world.store.volume_of(&self.disk).await.unwrap().unwrap();
        self.world.backend.get(&record.id).await.unwrap()
    }
}

/// Ends the jobs that a backup has under way, as an operator does with those of an appliance that is no more.
async fn cancel_all(store: &MemoryStore) {
    let live = JobFilter { live_only: true, ..JobFilter::default() };
    let live: Vec<ReplicationJob> =
        futures_util::TryStreamExt::try_collect(JobStore::list(store, live)).await.unwrap();
    for job in live {
        let worker = job.owner.unwrap_or_else(|| WorkerId::parse("daemon").unwrap());
        let lease = store.claim(&job.id, &worker, CONFIG.lease).await.unwrap();
        store.end(&lease, JobEnd::Cancelled("restored".to_owned())).await.unwrap();
    }
}

#[test]
fn l02_a_backup_of_any_moment_of_the_first_run_deletes_nothing_at_once_that_has_epochs_since() {
    let world = World::new();
    let backups = Arc::new(Backups { store: world.store.clone(), taken: Mutex::default() });
    let vm = Replicated::told_in(world, &*backups);
    for _ in 0..3 {
        vm.replicates();
    }
    vm.detaches();
    vm.world.clock.advance(CONFIG.lease * 2);
    let taken = std::mem::take(&mut *backups.taken.lock().unwrap());
    let (mut refused, mut condemned) = (0, 0);
    for (moment, backup) in &taken {
        let before = vm.life(async |_| vm.volume().await);
        let restored = vm.restored(backup);
        let ended = restored.live("daemon", FOR_EVER, &[], async |service| {
            cancel_all(&restored.store).await;
            service.recover().await.unwrap();
            let record = restored.store.volume_of(&vm.disk).await.unwrap()?;
            if record.device_path.is_some() {
                let detached = done(&service, &request(&vm.disk, VolumeChange::Detach)).await;
                if detached.status == OperationStatus::Failed {
                    return Some(detached.status);
                }
            }
            Some(done(&service, &request(&vm.disk, VolumeChange::Delete)).await.status)
        });
        match ended.unwrap() {
            // Not recorded yet.
            None => {}
            Some(OperationStatus::Failed) => refused += 1,
            Some(OperationStatus::Pending) => condemned += 1,
            other => panic!("{moment}: {other:?}"),
        }
        assert_eq!(vm.life(async |_| vm.volume().await), before, "{moment}");
    }
    assert!(refused > 5, "{refused} of {}", taken.len());
    assert!(condemned > 0, "one of after the commit knows that it has held an epoch");
}

#[test]
fn l02_a_backup_from_before_the_first_run_does_not_delete_at_once_what_has_epochs_since() {
    let world = World::new();
    let (disk, source) = Replicated::known(&world);
    world.live("daemon", FOR_EVER, &[], async |service| {
        assert_eq!(done(&service, &request(&disk, create())).await.status, OperationStatus::Completed);
    });
    let backup = world.store.copy();
    let vm = Replicated::of(world, source);
    for _ in 0..50 {
        vm.replicates();
    }
    vm.detaches();
    let before = vm.life(async |_| vm.volume().await);
    assert!(before.is_some());
    let restored = vm.restored(&backup);
    restored.live("daemon", FOR_EVER, &[], async |service| {
        let record = restored.store.volume_of(&disk).await.unwrap().unwrap();
        assert!(!record.held_epoch, "the backup knows of no epoch");
        let ended = done(&service, &request(&disk, VolumeChange::Delete)).await;
        assert_eq!(ended.status, OperationStatus::Failed, "{ended:?}");
        assert!(ended.error.unwrap().contains("it bears the tag"));
        // Nor does it come to the volume's generation by counting on.
        for _ in 0..3 {
            let refused = Replicated::replicate(&restored, &vm.source).await.unwrap_err();
            assert!(refused.chain().contains("they are an old copy"), "{}", refused.chain());
        }
        let ended = done(&service, &request(&disk, VolumeChange::Delete)).await;
        assert_eq!(ended.status, OperationStatus::Failed, "{ended:?}");
    });
    assert_eq!(vm.life(async |_| vm.volume().await), before);
}

#[test]
fn l02_a_backup_in_which_a_volume_is_condemned_does_not_delete_it_once_it_was_pardoned() {
    let vm = Replicated::new();
    let delete = vm.condemned();
    let backup = vm.world.store.copy();
    vm.life(async |service| service.pardon(&delete.id, "still wanted").await.unwrap());
    vm.replicates();
    vm.detaches();
    let before = vm.life(async |_| vm.volume().await);
    vm.world.clock.advance(CONFIG.grace * 2);
    let restored = vm.restored(&backup);
    restored.live("daemon", FOR_EVER, &[], async |service| {
        let early = service.pardon(&delete.id, "once more").await.unwrap_err();
        assert!(early.chain().contains("they are an old copy"), "{}", early.chain());
        assert_eq!(service.recover().await.unwrap().due, std::slice::from_ref(&delete.id));
        let ended = service.wait(&delete.id, LONG).await.unwrap();
        assert_eq!(ended.status, OperationStatus::Failed, "{ended:?}");
        let again = done(&service, &request(&vm.disk, VolumeChange::Attach)).await;
        assert_eq!(again.status, OperationStatus::Failed, "it never comes to the mark by counting on");
    });
    assert_eq!(vm.life(async |_| vm.volume().await), before);
}

#[test]
fn l02_a_backup_in_which_a_deletion_is_under_way_does_not_delete_what_it_was_refused_for() {
    let vm = Replicated::new();
    let delete = vm.condemned();
    vm.world.clock.advance(CONFIG.grace * 2);
    // Killed before the backend has done it.
    vm.world.live("daemon", FOR_EVER, &[Fate::Lost; 4], async |service| {
        service.recover().await.unwrap();
        service.wait(&delete.id, CONFIG.doubt_pause).await.unwrap();
    });
    let backup = vm.world.store.copy();
    let refused = [Fate::Refused { done: false }];
    vm.world.live("daemon", FOR_EVER, &refused, async |service| {
        service.recover().await.unwrap();
        let ended = service.wait(&delete.id, LONG).await.unwrap();
        assert_eq!(ended.status, OperationStatus::Failed, "{ended:?}");
    });
    vm.world.assert_whole();
    vm.replicates();
    vm.detaches();
    let before = vm.life(async |_| vm.volume().await);
    vm.world.clock.advance(CONFIG.lease * 2);
    let restored = vm.restored(&backup);
    restored.live("daemon", FOR_EVER, &[], async |service| {
        assert_eq!(service.recover().await.unwrap().resumed, std::slice::from_ref(&delete.id));
        let ended = service.wait(&delete.id, LONG).await.unwrap();
        assert_eq!(ended.status, OperationStatus::Failed, "{ended:?}");
    });
    assert_eq!(vm.life(async |_| vm.volume().await), before);
}

#[test]
fn l09_a_pardon_costs_no_comparison_and_no_epoch() {
    let vm = Replicated::new();
    let delete = vm.condemned();
    let before = vm.life(async |_| vm.world.store.volume_of(&vm.disk).await.unwrap().unwrap());
    assert_eq!((before.content, before.generation), (VolumeContent::Epoch(Epoch(1)), Generation(2)));
    vm.life(async |service| service.pardon(&delete.id, "still wanted").await.unwrap());
    let pardoned = vm.life(async |_| vm.world.store.volume_of(&vm.disk).await.unwrap().unwrap());
    assert_eq!((pardoned.content, pardoned.stamp), (before.content, before.stamp));
    assert_eq!(pardoned.generation, Generation(3));
    let report = vm.life(async |_| Replicated::replicate(&vm.world, &vm.source).await.unwrap());
    assert_eq!(report.replication_type, ReplicationType::Incremental);
    assert_eq!((report.disks[0].bytes_read, report.disks[0].bytes_hashed), (ByteSize::ZERO, ByteSize::ZERO));
}

#[test]
fn l15_a_pardon_that_was_killed_at_any_step_leaves_a_volume_that_bears_its_mark() {
    let mut dies_at = 0;
    loop {
        let vm = Replicated::new();
        let delete = vm.condemned();
        let pardon = async |service: VolumeService| service.pardon(&delete.id, "still wanted").await.unwrap();
        let lived = vm.world.live("daemon", dies_at, &[], pardon).is_some();
        vm.life(async |service| {
            service.recover().await.unwrap();
            service.pardon(&delete.id, "still wanted").await.unwrap()
        });
        vm.world.assert_whole();
        let generation = vm.life(async |_| vm.volume().await.unwrap().tag.unwrap().generation);
        assert_eq!(generation, Generation(3), "killed at step {dies_at}");
        if lived {
            break;
        }
        dies_at += 1;
    }
    assert!(dies_at > 10);
}

#[test]
fn l21_a_volume_is_pardoned_while_the_backend_is_away_and_marked_once_it_is_back() {
    let vm = Replicated::new();
    let delete = vm.condemned();
    vm.world.backend.disconnect();
    vm.life(async |service| {
        let pardoned = service.pardon(&delete.id, "still wanted").await.unwrap();
        assert_eq!(pardoned.status, OperationStatus::Cancelled);
        vm.world.clock.advance(CONFIG.grace * 2);
        let Recovered { due, left, .. } = service.recover().await.unwrap();
        assert_eq!((due, left.len()), (Vec::new(), 1), "the mark is left");
        vm.world.backend.reconnect();
        assert_eq!(service.recover().await.unwrap(), Recovered::default());
    });
    vm.world.assert_whole();
    assert_eq!(vm.life(async |_| vm.volume().await.unwrap().tag.unwrap().generation), Generation(3));
}
