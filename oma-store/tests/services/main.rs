//! Two volume services, each a worker of its own, on one database, with many operations in flight. One dies in the middle of a
//! dozen; the other finishes what was left once the lease has ended, but for attachments, which the dead one's machine finishes when
//! it is back. Then records and backend agree.
#![allow(clippy::unwrap_used, reason = "a test panics when its setup fails")]

mod backend;
#[path = "../place/mod.rs"]
mod place;

use std::collections::BTreeSet;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use oma_core::conformance::{self, Trial};
use oma_core::engine::{
    RetryConfig, VolumeChange, VolumeRequest, VolumeService, VolumeServices, VolumesConfig,
};
use oma_core::memory::MemoryBackend;
use oma_core::record::{
    JobFilter, Operation, OperationFilter, ReplicationJob, SourceDisk, SourceIdentity, SourceVm,
    VolumeFilter, VolumeRecord, VolumeTag,
};
use oma_core::state::{OperationKind, OperationStatus};
use oma_core::traits::{Inventory, JobStore, Provisioning, Volume, VolumeBackend, VolumeRegistry};
use oma_core::{
    ByteSize, DiskKey, DiskRef, Endpoint, ErrorKind, InstanceUuid, OperationId, VmPath, WorkerId,
};
use oma_store::SqlStore;
use tokio::runtime::Builder;

use backend::{Calls, Unsteady};
use place::{Kind, Place};

const VMS: usize = 50;
/// How many VMs a service changes at once.
const AT_ONCE: usize = 16;
/// From which call on the one that dies hears nothing any more.
const DEAF_FROM: usize = 20;
/// How many operations are under way when it dies.
const UNDER_WAY: usize = 12;
/// How long the other may take to finish everything.
const PATIENCE: Duration = Duration::from_secs(90);
const LOOK: Duration = Duration::from_millis(50);

const CONFIG: VolumesConfig = VolumesConfig {
    lease: Duration::from_secs(3),
    answer_limit: Duration::from_secs(60),
    grace: Duration::from_secs(3600),
    retry: RetryConfig {
        attempts: 6,
        first_pause: Duration::from_millis(20),
        longest_pause: Duration::from_millis(500),
    },
    doubt_pause: Duration::from_millis(100),
};

fn main() -> ExitCode {
    conformance::run(Kind::ALL.iter().map(|kind| trial(*kind)).collect())
}

fn trial(kind: Kind) -> Trial {
    let name = format!("{kind}::l16_what_a_dead_worker_left_of_many_operations_is_finished_by_another");
    conformance::trial(&name, &[kind.required()], move || finished_by_another(kind))
}

async fn finished_by_another(kind: Kind) {
    let place = Place::migrated(kind).await;
    let store = Arc::new(place.open().await.unwrap());
    let world = Arc::new(MemoryBackend::new());
    let plans = plans(&store).await;
    let (dying, staying) = plans.split_at(VMS / 2);

    let deaf = Calls::deaf_from(DEAF_FROM);
    let staying_on = service(&store, "stays", Unsteady::new(&world, Calls::forgetful(7)));
    staying_on.upkeep(Duration::from_secs(1));
    let dies = die(&place, dying.to_vec(), Unsteady::new(&world, deaf.clone()), &deaf);
    futures_util::future::join(dies, finish(&staying_on, staying)).await;
    let left = operations(&store, Some(OperationStatus::Executing)).await;
    assert!(left.len() >= UNDER_WAY, "{} were under way", left.len());
    assert!(left.iter().any(|left| !is_of_a_machine(left)), "{left:?}");

    tokio::time::timeout(PATIENCE, taken_over(&store)).await.unwrap();
    let back = service(&store, "dies", Unsteady::new(&world, Calls::forgetful(7)));
    back.recover().await.unwrap();
    back.upkeep(Duration::from_secs(1));
    tokio::time::timeout(PATIENCE, finish(&back, dying)).await.unwrap();
    tokio::time::timeout(PATIENCE, idle(&store)).await.unwrap();
    back.shutdown().await;
    staying_on.shutdown().await;
    judge(&store, &world, &plans).await;
    assert_eq!(store.check().await.unwrap(), []);
    store.close().await;
}

fn service(store: &Arc<SqlStore>, worker: &str, backend: Unsteady) -> VolumeService {
    let services = VolumeServices { jobs: store.clone(), volumes: store.clone(), backend: Arc::new(backend) };
    VolumeService::new(services, WorkerId::parse(worker).unwrap(), CONFIG)
}

/// A worker with a runtime and connections of its own, which ends without a word while much is under way.
async fn die(place: &Place, plans: Vec<Vec<VolumeRequest>>, backend: Unsteady, calls: &Calls) {
    let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let config = place.config();
    runtime.spawn(async move {
        let store = Arc::new(SqlStore::open(&config).await.unwrap());
        let service = service(&store, "dies", backend);
        finish(&service, &plans).await;
    });
    tokio::time::timeout(PATIENCE, calls.unheard(UNDER_WAY)).await.unwrap();
    runtime.shutdown_background();
}

/// Three operations for each VM, known to the store.
async fn plans(store: &SqlStore) -> Vec<Vec<VolumeRequest>> {
    let create = || VolumeChange::Create {
        name: "disk".to_owned(),
        capacity: ByteSize::mib(1),
        provisioning: Provisioning::Thin,
    };
    let mut plans = Vec::new();
    for number in 0..VMS {
        let disk = disk(store, number).await;
        let changes = match number % 4 {
            0 => [create(), VolumeChange::Attach, VolumeChange::Detach],
            1 => [create(), VolumeChange::Resize { capacity: ByteSize::mib(2) }, VolumeChange::Attach],
            2 => [create(), VolumeChange::Snapshot, VolumeChange::Attach],
            _ => [create(), VolumeChange::Resize { capacity: ByteSize::mib(2) }, VolumeChange::Delete],
        };
        let requests = changes.map(|change| VolumeRequest {
            id: OperationId::mint(),
            disk: disk.clone(),
            volume: None,
            change,
        });
        plans.push(requests.to_vec());
    }
    plans
}

async fn disk(store: &SqlStore, number: usize) -> DiskRef {
    let path = VmPath::parse(format!("/DC/vm/web{number}")).unwrap();
    let key = DiskKey::parse("disk-2000").unwrap();
    let disk = SourceDisk {
        key: key.clone(),
        label: String::new(),
        location: format!("[store] web{number}.vmdk"),
        capacity: ByteSize::mib(1),
        unit_number: None,
    };
    let identity = SourceIdentity {
        instance_uuid: InstanceUuid::from_path(&path),
        endpoint: Endpoint::parse("vcenter").unwrap(),
    };
    let vm = SourceVm { identity, name: format!("web{number}"), path, disks: vec![disk] };
    DiskRef { context: store.record(&vm).await.unwrap().id, key }
}

/// Carries all plans out, many at once, whatever is done of them already.
async fn finish(service: &VolumeService, plans: &[Vec<VolumeRequest>]) {
    let all: Vec<_> = plans.iter().map(|plan| carried_out(service, plan)).collect();
    stream::iter(all).buffer_unordered(AT_ONCE).collect::<()>().await;
}

async fn carried_out(service: &VolumeService, plan: &[VolumeRequest]) {
    for request in plan {
        completed(service, request).await;
    }
}

async fn completed(service: &VolumeService, request: &VolumeRequest) {
    loop {
        match service.submit(request.clone()).await {
            Ok(_) => {
                let now = service.wait(&request.id, PATIENCE).await.unwrap();
                match now.status {
                    OperationStatus::Completed => return,
                    // Of a dead worker, whose lease has just ended.
                    status => assert_eq!(status, OperationStatus::Executing, "{now:?}"),
                }
            }
            // The job of the dead worker.
            Err(error) => assert_eq!(error.kind(), ErrorKind::Conflict, "{}", error.chain()),
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Whether it is finished by the worker alone whose machine it is about.
fn is_of_a_machine(operation: &Operation) -> bool {
    matches!(operation.spec.kind, OperationKind::Attach | OperationKind::Detach)
}

/// Waits until whatever is bound to no machine was finished by who is still there.
async fn taken_over(store: &SqlStore) {
    while !operations(store, Some(OperationStatus::Executing)).await.iter().all(is_of_a_machine) {
        tokio::time::sleep(LOOK).await;
    }
}

/// Waits until no job is live.
async fn idle(store: &SqlStore) {
    loop {
        let live = JobStore::list(store, JobFilter { live_only: true, ..JobFilter::default() });
        if live.try_collect::<Vec<ReplicationJob>>().await.unwrap().is_empty() {
            return;
        }
        tokio::time::sleep(LOOK).await;
    }
}

async fn operations(store: &SqlStore, status: Option<OperationStatus>) -> Vec<Operation> {
    let filter = OperationFilter { status, ..OperationFilter::default() };
    store.operations(filter).try_collect().await.unwrap()
}

/// Each operation was done once, and records and backend tell the same.
async fn judge(store: &SqlStore, backend: &MemoryBackend, plans: &[Vec<VolumeRequest>]) {
    let asked: BTreeSet<_> = plans.iter().flatten().map(|request| request.id.clone()).collect();
    let found = operations(store, None).await;
    assert!(found.iter().all(|operation| operation.status == OperationStatus::Completed));
    let found: BTreeSet<_> = found.into_iter().map(|operation| operation.spec.id).collect();
    assert_eq!(found, asked);
    let instance = store.instance().await.unwrap();
    let records: Vec<VolumeRecord> = store.volumes(VolumeFilter::default()).try_collect().await.unwrap();
    let kept = (0..VMS).filter(|number| number % 4 != 3).count();
    assert_eq!(records.len(), kept);
    for record in &records {
        let volume = backend.get(&record.id).await.unwrap().expect("recorded and gone");
        let tag = VolumeTag {
            instance: instance.clone(),
            disk: record.disk.clone(),
            generation: record.generation,
        };
        assert_eq!((volume.capacity, volume.tag), (record.capacity, Some(tag)));
        assert_eq!(volume.device_path, record.device_path);
    }
    let volumes: Vec<Volume> = backend.list(&instance).try_collect().await.unwrap();
    assert_eq!(volumes.len(), kept, "some are in no record");
    let snapshots = (0..VMS).filter(|number| number % 4 == 2).count();
    assert_eq!(backend.frozen().len(), snapshots);
}
