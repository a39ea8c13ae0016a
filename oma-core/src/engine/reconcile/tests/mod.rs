//! Records and backend that disagree, in every way and after every accident.

mod accidents;
mod classes;
mod plans;
mod random;

use futures_util::TryStreamExt as _;

use super::*;
use crate::engine::volumes::tests::world::{CONFIG, Fate, World, paused};
use crate::engine::volumes::tests::{FOR_EVER, create, done, request};
use crate::engine::{VolumeChange, VolumeRequest};
use crate::record::{JobEnd, JobSpec, Lease, OperationSpec, VolumeRecord, VolumeTag};
use crate::state::{ContextStatus, OperationKind, OperationStatus};
use crate::traits::{Inventory, JobStore, Provisioning, Volume, VolumeBackend, VolumeRegistry, VolumeSpec};
use crate::{
    ByteSize, Clock as _, ContextId, DiskRef, Generation, InstanceId, JobId, OperationId, SystemClock,
    VolumeId, WorkerId,
};

/// How a volume is before it is harmed.
type Was = fn(&World, &str) -> VolumeRecord;

/// Lets the reconciler of the daemon live until it is done, or dies at its n-th step.
fn live<T, Fut: Future<Output = T>>(
    world: &World,
    dies_at: usize,
    life: impl FnOnce(VolumeService, Reconciler) -> Fut,
) -> Option<T> {
    lost(world, dies_at, &[], life)
}

/// The same, and some of its calls are not answered.
fn lost<T, Fut: Future<Output = T>>(
    world: &World,
    dies_at: usize,
    fates: &[Fate],
    life: impl FnOnce(VolumeService, Reconciler) -> Fut,
) -> Option<T> {
    world.live("daemon", dies_at, fates, |service| {
        let services = ReconcileServices { inventory: world.store.clone(), points: world.store.clone() };
        life(service.clone(), Reconciler::new(service, services))
    })
}

fn compare(world: &World) -> Reconciliation {
    compare_with(world, None)
}

fn compare_with(world: &World, devices: Option<&[LocalDevice]>) -> Reconciliation {
    live(world, FOR_EVER, async |_, reconciler| reconciler.compare(devices).await.unwrap()).unwrap()
}

fn execute(world: &World, plan: &ReconcilePlan) -> Reconciled {
    live(world, FOR_EVER, async |_, reconciler| reconciler.execute(plan).await.unwrap()).unwrap()
}

fn classes(found: &Reconciliation) -> Vec<FindingClass> {
    found.findings.iter().map(|finding| finding.class).collect()
}

/// A volume of a VM of this name, made by the daemon.
fn volume(world: &World, name: &str) -> VolumeRecord {
    let disk = world.disk(name);
    change(world, "daemon", &request(&disk, create()));
    record(world, &disk)
}

fn attached(world: &World, name: &str) -> VolumeRecord {
    let made = volume(world, name);
    change(world, "daemon", &request(&made.disk, VolumeChange::Attach));
    record(world, &made.disk)
}

fn change(world: &World, worker: &str, request: &VolumeRequest) {
    let ended = world.live(worker, FOR_EVER, &[], async |service| done(&service, request).await).unwrap();
    assert_eq!(ended.status, OperationStatus::Completed, "{ended:?}");
}

fn record(world: &World, disk: &DiskRef) -> VolumeRecord {
    paused().block_on(world.store.volume_of(disk)).unwrap().unwrap()
}

fn instance(world: &World) -> InstanceId {
    paused().block_on(world.store.instance()).unwrap()
}

fn tag(world: &World, record: &VolumeRecord) -> VolumeTag {
    VolumeTag { instance: instance(world), disk: record.disk.clone(), generation: record.generation }
}

fn found(world: &World, id: &VolumeId) -> Option<Volume> {
    paused().block_on(world.backend.get(id)).unwrap()
}

/// Everything that bears a mark of a deployment.
fn all_of(world: &World, instance: &InstanceId) -> Vec<Volume> {
    paused().block_on(world.backend.list(instance).try_collect()).unwrap()
}

/// What somebody under a job of his own does to the records, and dies before he does it to the volume.
fn leased<T, Fut: Future<Output = Result<T>>>(
    world: &World,
    disk: &DiskRef,
    act: impl FnOnce(Lease) -> Fut,
) -> T {
    paused().block_on(async {
        let id = JobId::mint(SystemClock.now());
        world.store.insert(JobSpec::operate(id.clone(), disk.clone())).await.unwrap();
        let worker = WorkerId::parse("somebody").unwrap();
        let lease = world.store.claim(&id, &worker, CONFIG.lease).await.unwrap();
        let done = act(lease.clone()).await.unwrap();
        world.store.end(&lease, JobEnd::Done).await.unwrap();
        done
    })
}

/// Makes a volume beside all records; the id is that of the operation.
fn plant(world: &World, operation: &OperationId, tag: VolumeTag) -> VolumeId {
    let spec = VolumeSpec {
        operation: operation.clone(),
        tag,
        name: "web-disk-2000".to_owned(),
        capacity: ByteSize::mib(1),
        provisioning: Provisioning::Thin,
    };
    paused().block_on(world.backend.create(&spec)).unwrap().id
}

/// The operation that made the volume of a disk.
fn maker(world: &World, disk: &DiskRef) -> OperationId {
    let filter = crate::record::OperationFilter {
        context: Some(disk.context.clone()),
        kind: Some(OperationKind::Create),
        ..Default::default()
    };
    let made: Vec<_> = paused().block_on(world.store.operations(filter).try_collect()).unwrap();
    made[0].spec.id.clone()
}

/// Every way to break a volume that this world has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Harm {
    Lose,
    DetachBehind,
    AttachBehind,
    AdvanceOnly,
    RetagBehind,
    Cut,
    Grow,
    TakenByInstance,
    TakenByDisk,
    PlantOrphan,
    AttachThere,
    LeaveOperation,
    Condemn,
    FailOver,
}

const HARMS: [Harm; 14] = [
    Harm::Lose,
    Harm::DetachBehind,
    Harm::AttachBehind,
    Harm::AdvanceOnly,
    Harm::RetagBehind,
    Harm::Cut,
    Harm::Grow,
    Harm::TakenByInstance,
    Harm::TakenByDisk,
    Harm::PlantOrphan,
    Harm::AttachThere,
    Harm::LeaveOperation,
    Harm::Condemn,
    Harm::FailOver,
];

/// Breaks the volume of a disk; one that cannot be broken so, as it is broken already, stays as it is.
fn harm(world: &World, record: &VolumeRecord, harm: Harm) {
    let backend = &world.backend;
    let (id, bears) = (&record.id, found(world, &record.id).and_then(|volume| volume.tag));
    let mark = bears.clone().unwrap_or_else(|| tag(world, record));
    let taken = |tag: VolumeTag| {
        let maker = maker(world, &record.disk);
        backend.lose(id);
        assert_eq!(plant(world, &maker, tag), *id);
    };
    let now = paused();
    match harm {
        Harm::Lose => backend.lose(id),
        Harm::DetachBehind => drop(now.block_on(backend.detach(id, &mark))),
        Harm::AttachBehind => drop(now.block_on(backend.attach(id, &mark))),
        Harm::AdvanceOnly => {
            leased(world, &record.disk, async |lease| world.store.advance_generation(&lease, id).await);
        }
        Harm::RetagBehind => {
            let generation = Generation(mark.generation.0 + 7);
            drop(now.block_on(backend.retag(id, &VolumeTag { generation, ..mark })));
        }
        Harm::Cut => backend.cut(id, ByteSize::kib(4)),
        Harm::Grow => drop(now.block_on(backend.resize(id, &mark, ByteSize::mib(9)))),
        Harm::TakenByInstance => taken(VolumeTag { instance: InstanceId::mint(), ..mark }),
        Harm::TakenByDisk => {
            let disk = DiskRef { context: ContextId::mint(), key: record.disk.key.clone() };
            taken(VolumeTag { disk, ..mark });
        }
        Harm::PlantOrphan => drop(plant(world, &OperationId::mint(), mark)),
        Harm::AttachThere => {
            let attach = request(&record.disk, VolumeChange::Attach);
            world
                .live("elsewhere", FOR_EVER, &[], async |service| drop(service.submit(attach.clone()).await));
            world.clock.advance(CONFIG.lease * 2);
        }
        Harm::LeaveOperation => {
            leave(world, "daemon", record);
        }
        Harm::Condemn => condemn(world, record),
        Harm::FailOver => {
            world.store.stands(&record.disk.context, ContextStatus::FailedOverLive);
        }
    }
}

/// A process begins to attach a volume, and dies before it has recorded that it did; `false` when it was refused.
fn leave(world: &World, worker: &str, record: &VolumeRecord) -> bool {
    let attach = request(&record.disk, VolumeChange::Attach);
    let lived = world.live(worker, 14, &[], async |service| {
        drop(service.submit(attach.clone()).await);
        drop(service.wait(&attach.id, CONFIG.answer_limit).await);
    });
    lived.is_none()
}

/// Condemns a volume, as far as it stands so that it can be; its time passes.
fn condemn(world: &World, record: &VolumeRecord) {
    let spec = |lease: &Lease| OperationSpec {
        volume: Some(record.id.clone()),
        ..OperationSpec::new(
            OperationId::mint(),
            OperationKind::Delete,
            record.disk.clone(),
            lease.job.clone(),
        )
    };
    leased(world, &record.disk, async |lease| {
        drop(world.store.condemn(&lease, &spec(&lease), CONFIG.grace).await);
        Ok(())
    });
    world.clock.advance(CONFIG.grace * 2);
}
