//! Volumes that held an epoch are condemned before they are deleted.

use std::sync::Arc;

use super::world::CONFIG;
use super::*;
use crate::engine::{
    CancellationToken, KeepPoints, Progress, Recovered, ReplicateConfig, ReplicateRequest, Replicator,
    Report, Services, Silent,
};
use crate::memory::{MemoryExportServer, MemorySource};
use crate::record::{FailoverRecord, VolumeFilter};
use crate::state::{FailoverKind, FailoverStatus, VolumeStatus};
use crate::traits::{DiskSource, Inventory as _, VolumeRegistry};
use crate::{DiskKey, Endpoint, ErrorKind, FailoverJobId, VmPath, WorkerId};

/// A world with a VM that was replicated, its volume detached.
pub(super) struct Replicated {
    pub(super) world: World,
    pub(super) source: Arc<MemorySource>,
    pub(super) disk: DiskRef,
}

impl Replicated {
    pub(super) fn new() -> Self {
        let world = World::new();
        let (_, source) = Self::known(&world);
        Self::of(world, source)
    }

    /// The disk of a VM that is known and was never replicated.
    pub(super) fn known(world: &World) -> (DiskRef, Arc<MemorySource>) {
        let source = Arc::new(MemorySource::new(Endpoint::parse("vcenter").unwrap()));
        let (vm, key) = (VmPath::parse("/DC/vm/web").unwrap(), DiskKey::parse("disk-2000").unwrap());
        source.add_disk(&vm, &key, ByteSize::mib(1));
        let context = world.live("daemon", FOR_EVER, &[], async |_| {
            let vm = DiskSource::discover(&*source, &vm).await.unwrap();
            world.store.record(&vm).await.unwrap()
        });
        (DiskRef { context: context.unwrap().id, key }, source)
    }

    /// That VM, replicated.
    pub(super) fn of(world: World, source: Arc<MemorySource>) -> Self {
        Self::told_of(world, source, &Silent)
    }

    /// A VM whose first run is told of.
    pub(super) fn told_in(world: World, progress: &dyn Progress) -> Self {
        let (_, source) = Self::known(&world);
        Self::told_of(world, source, progress)
    }

    fn told_of(world: World, source: Arc<MemorySource>, progress: &dyn Progress) -> Self {
        let disk = world.live("daemon", FOR_EVER, &[], async |_| {
            Self::replicate_told(&world, &source, progress).await.unwrap();
            let all: Vec<_> =
                futures_util::TryStreamExt::try_collect(world.store.volumes(VolumeFilter::default()))
                    .await
                    .unwrap();
            all[0].disk.clone()
        });
        let this = Self { world, source, disk: disk.unwrap() };
        this.detaches();
        this
    }

    pub(super) fn detaches(&self) {
        self.life(async |service| {
            let detach = request(&self.disk, VolumeChange::Detach);
            assert_eq!(done(&service, &detach).await.status, OperationStatus::Completed);
        });
    }

    fn services(world: &World, source: &Arc<MemorySource>) -> Services {
        let server = Arc::new(MemoryExportServer::new());
        Services::new(world.store.clone(), source.clone(), world.backend.clone(), server)
    }

    pub(super) async fn replicate(world: &World, source: &Arc<MemorySource>) -> crate::Result<Report> {
        Self::replicate_told(world, source, &Silent).await
    }

    async fn replicate_told(
        world: &World,
        source: &Arc<MemorySource>,
        progress: &dyn Progress,
    ) -> crate::Result<Report> {
        let services = Self::services(world, source);
        let config = ReplicateConfig::default();
        let replicator = Replicator::new(services, WorkerId::parse("daemon").unwrap(), config);
        let points = Some(KeepPoints { last: Some(2), younger_than: None });
        let request =
            ReplicateRequest { points, ..ReplicateRequest::new(VmPath::parse("/DC/vm/web").unwrap()) };
        let report = replicator.run(&request, progress, &CancellationToken::new()).await?;
        match report.outcome {
            crate::engine::Outcome::Failed(error) => Err(error),
            _ => {
                assert!(report.outcome.is_completed(), "{:?}", report.outcome);
                Ok(report)
            }
        }
    }

    pub(super) fn life<T, Fut: Future<Output = T>>(&self, life: impl FnOnce(VolumeService) -> Fut) -> T {
        self.world.live("daemon", FOR_EVER, &[], life).unwrap()
    }

    /// Replicates once more.
    pub(super) fn replicates(&self) {
        self.life(async |_| Self::replicate(&self.world, &self.source).await.unwrap());
    }

    /// The delete that condemns the volume.
    pub(super) fn condemned(&self) -> VolumeRequest {
        let delete = request(&self.disk, VolumeChange::Delete);
        let pending = self.life(async |service| done(&service, &delete).await);
        assert_eq!(pending.status, OperationStatus::Pending);
        self.world.assert_whole();
        delete
    }

    /// The volumes of the backend; snapshots of recovery points stay.
    fn volumes(&self) -> Vec<String> {
        self.world.left().into_iter().filter(|left| !left.starts_with("snapshot")).collect()
    }

    pub(super) async fn status(&self) -> Option<VolumeStatus> {
        self.world.store.volume_of(&self.disk).await.unwrap().map(|volume| volume.status)
    }
}

#[test]
fn l07_a_volume_that_held_an_epoch_is_deleted_only_when_its_time_has_come() {
    let vm = Replicated::new();
    let delete = vm.condemned();
    for (wait, due) in [(CONFIG.grace / 2, false), (CONFIG.grace, true)] {
        vm.world.clock.advance(wait);
        vm.life(async |service| {
            let begun = service.recover().await.unwrap().due;
            assert_eq!(begun, if due { vec![delete.id.clone()] } else { Vec::new() });
            service.wait(&delete.id, LONG).await.unwrap();
            assert_eq!(vm.status().await, (!due).then_some(VolumeStatus::Condemned));
        });
        vm.world.assert_whole();
    }
    assert_eq!(vm.volumes(), Vec::<String>::new());
}

#[test]
fn l07_a_volume_that_a_vm_may_run_from_since_it_was_condemned_is_not_deleted() {
    let vm = Replicated::new();
    let delete = vm.condemned();
    let fails_over = |status| {
        vm.world.store.add_failover(FailoverRecord {
            id: FailoverJobId::parse("failover-1").unwrap(),
            context: vm.disk.context.clone(),
            replication_job: None,
            kind: FailoverKind::Live,
            status,
            destination_vm: None,
        });
    };
    vm.world.clock.advance(CONFIG.grace);
    for status in [FailoverStatus::SwitchingVolume, FailoverStatus::Failed] {
        fails_over(status);
        vm.life(async |service| {
            assert_eq!(service.recover().await.unwrap(), Recovered::default());
            let refused = service.submit(request(&vm.disk, VolumeChange::Attach)).await.unwrap_err();
            assert!(refused.chain().contains("failover-1"), "{}", refused.chain());
            assert_eq!(vm.status().await, Some(VolumeStatus::Condemned));
        });
    }
    fails_over(FailoverStatus::Reverted);
    vm.life(async |service| {
        assert_eq!(service.recover().await.unwrap().due.first(), Some(&delete.id));
        service.wait(&delete.id, LONG).await.unwrap();
    });
    vm.world.assert_whole();
    assert_eq!(vm.volumes(), Vec::<String>::new());
}

#[test]
fn a_condemned_volume_that_is_pardoned_holds_its_epoch_still() {
    let vm = Replicated::new();
    let before = vm.world.left();
    let delete = vm.condemned();
    vm.life(async |service| {
        for _ in 0..2 {
            let pardoned = service.pardon(&delete.id, "still wanted").await.unwrap();
            assert_eq!(pardoned.status, OperationStatus::Cancelled);
        }
        vm.world.clock.advance(CONFIG.grace * 2);
        assert_eq!(service.recover().await.unwrap().due, []);
        let attach = request(&vm.disk, VolumeChange::Attach);
        assert_eq!(done(&service, &attach).await.status, OperationStatus::Completed);
        let late = service.pardon(&attach.id, "late").await.unwrap_err();
        assert_eq!(late.kind(), ErrorKind::Conflict, "it is no delete");
        done(&service, &request(&vm.disk, VolumeChange::Detach)).await;
    });
    vm.world.assert_whole();
    let next = |left: &String| left.replace("Generation(2)", "Generation(3)");
    assert_eq!(vm.world.left(), before.iter().map(next).collect::<Vec<_>>());
}

#[test]
fn a_condemned_volume_is_not_replicated_to() {
    let vm = Replicated::new();
    let before = vm.world.left();
    let delete = vm.condemned();
    let refused = vm.life(async |_| Replicated::replicate(&vm.world, &vm.source).await.unwrap_err());
    assert_eq!(refused.kind(), ErrorKind::Conflict);
    assert!(refused.chain().contains(delete.id.as_str()), "{}", refused.chain());
    assert_eq!(vm.world.left(), before);
    vm.life(async |service| service.pardon(&delete.id, "replicate again").await.unwrap());
    vm.life(async |_| Replicated::replicate(&vm.world, &vm.source).await.unwrap());
}

#[test]
fn l15_a_deletion_that_was_killed_at_any_step_is_finished() {
    let mut dies_at = 0;
    loop {
        let vm = Replicated::new();
        let delete = vm.condemned();
        vm.world.clock.advance(CONFIG.grace * 2);
        let life = async |service: VolumeService| {
            service.recover().await.unwrap();
            service.wait(&delete.id, LONG).await.unwrap()
        };
        let lived = vm.world.live("daemon", dies_at, &[], life).is_some();
        let ended = vm.life(life);
        assert_eq!(ended.status, OperationStatus::Completed, "killed at step {dies_at}");
        // The job of one that was killed behind its end.
        vm.life(async |service| service.recover().await.unwrap());
        vm.world.assert_whole();
        assert_eq!(vm.volumes(), Vec::<String>::new());
        if lived {
            break;
        }
        dies_at += 1;
    }
    assert!(dies_at > 10);
}

#[test]
fn a_replication_finishes_a_deletion_that_has_begun_and_makes_a_new_volume() {
    let vm = Replicated::new();
    let delete = vm.condemned();
    vm.world.clock.advance(CONFIG.grace * 2);
    vm.world.live("daemon", FOR_EVER, &[Fate::Lost; 4], async |service| {
        service.recover().await.unwrap();
        service.wait(&delete.id, CONFIG.doubt_pause).await.unwrap();
    });
    let job = vm.life(async |_| {
        let live = crate::traits::JobStore::live(&*vm.world.store, &vm.disk.context).await.unwrap();
        live.expect("the deletion was interrupted").id
    });
    let refused = vm.life(async |_| Replicated::replicate(&vm.world, &vm.source).await.unwrap_err());
    assert!(refused.chain().contains(job.as_str()), "{}", refused.chain());
    vm.life(async |_| {
        let store = &*vm.world.store;
        let worker = WorkerId::parse("daemon").unwrap();
        let lease = crate::traits::JobStore::claim(store, &job, &worker, CONFIG.lease).await.unwrap();
        let end = crate::record::JobEnd::Cancelled("by an operator".to_owned());
        crate::traits::JobStore::end(store, &lease, end).await.unwrap();
        Replicated::replicate(&vm.world, &vm.source).await.unwrap();
    });
    vm.world.assert_whole();
    let ended = vm.life(async |service| service.wait(&delete.id, LONG).await.unwrap());
    assert_eq!(ended.status, OperationStatus::Completed);
    assert_eq!(vm.volumes().len(), 1);
}

#[test]
fn l20_a_replication_leaves_the_snapshots_that_an_operator_made() {
    let vm = Replicated::new();
    let snapshot = vm.life(async |service| {
        done(&service, &request(&vm.disk, VolumeChange::Snapshot)).await.spec.snapshot.unwrap()
    });
    for _ in 0..3 {
        vm.life(async |_| Replicated::replicate(&vm.world, &vm.source).await.unwrap());
        assert!(vm.world.backend.frozen().contains(&snapshot));
    }
    vm.life(async |service| {
        let delete = request(&vm.disk, VolumeChange::DeleteSnapshot { snapshot: snapshot.clone() });
        assert_eq!(done(&service, &delete).await.status, OperationStatus::Completed);
    });
    assert!(!vm.world.backend.frozen().contains(&snapshot));
}

#[test]
fn l20_the_snapshot_of_a_recovery_point_is_not_deleted_by_itself() {
    let vm = Replicated::new();
    let kept = vm.world.backend.frozen();
    let [snapshot] = &kept[..] else { panic!("{kept:?}") };
    vm.life(async |service| {
        let delete = request(&vm.disk, VolumeChange::DeleteSnapshot { snapshot: snapshot.clone() });
        let refused = done(&service, &delete).await;
        assert_eq!(refused.status, OperationStatus::Failed);
        assert!(refused.error.unwrap().contains("recovery point"));
    });
    assert_eq!(vm.world.backend.frozen(), kept);
}

#[test]
fn a_vm_with_a_condemned_volume_does_not_go_back_and_keeps_its_epoch() {
    let vm = Replicated::new();
    let before = vm.life(async |_| vm.world.store.volume_of(&vm.disk).await.unwrap().unwrap());
    let delete = vm.condemned();
    let worker = WorkerId::parse("daemon").unwrap();
    let refused = vm.life(async |_| {
        let services = Replicated::services(&vm.world, &vm.source);
        let points = crate::traits::RecoveryPoints::points(&*vm.world.store, &vm.disk.context);
        let points: Vec<_> = futures_util::TryStreamExt::try_collect(points).await.unwrap();
        let stop = CancellationToken::new();
        let config = ReplicateConfig::default();
        crate::engine::revert(&services, &worker, &config, &points[0].id, &stop).await.unwrap_err()
    });
    assert_eq!(refused.kind(), ErrorKind::Conflict);
    assert!(refused.chain().contains(delete.id.as_str()), "{}", refused.chain());
    let now = vm.life(async |_| vm.world.store.volume_of(&vm.disk).await.unwrap().unwrap());
    assert_eq!((now.content, now.generation), (before.content, before.generation));
}
