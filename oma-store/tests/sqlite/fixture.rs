//! A store in a folder of its own, and a VM in it that has a committed epoch.

use std::path::PathBuf;
use std::time::Duration;

use oma_core::record::{
    DiskAttempt, DiskCommit, EpochCommit, JobSpec, Lease, OperationSpec, SourceDisk, SourceIdentity,
    SourceVm, VmContext,
};
use oma_core::state::{JobEvent, JobStatus, OperationKind, ReplicationType};
use oma_core::traits::{ChangeIdRepo, ExportRegistry, Inventory, JobStore, Volume, VolumeRegistry};
use oma_core::{
    ByteSize, ChangeId, DiskKey, DiskRef, Endpoint, ExportName, Generation, InstanceUuid, JobId, OperationId,
    Result, Timestamp, VmPath, VolumeId, WorkerId,
};
use oma_store::{SqlStore, StoreConfig};
use sqlx::{Connection, SqliteConnection};
use tempfile::TempDir;

pub(crate) const CHANGE: &str = "52 3c ec 11 9e 2c 4c 3d-87 4a c3 4e 85 f2 ea 95/446";

/// A folder for one database.
pub(crate) struct Folder(TempDir);

impl Folder {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub(crate) fn file(&self) -> PathBuf {
        self.0.path().join("oma.db")
    }

    pub(crate) fn config(&self) -> StoreConfig {
        StoreConfig { url: format!("sqlite://{}", self.file().display()), ..StoreConfig::default() }
    }

    pub(crate) async fn open(&self) -> Result<SqlStore> {
        SqlStore::open(&self.config()).await
    }

    pub(crate) async fn open_read_only(&self) -> Result<SqlStore> {
        SqlStore::open_read_only(&self.config()).await
    }

    /// Another program at the same file.
    pub(crate) async fn connect(&self) -> SqliteConnection {
        SqliteConnection::connect(&format!("sqlite://{}?mode=rwc", self.file().display())).await.unwrap()
    }
}

pub(crate) fn worker() -> WorkerId {
    WorkerId::parse("appliance-1").unwrap()
}

pub(crate) fn key() -> DiskKey {
    DiskKey::parse("disk-2000").unwrap()
}

pub(crate) fn source_vm(name: &str) -> SourceVm {
    let path = VmPath::parse(format!("/DatabanxDC/vm/{name}")).unwrap();
    let identity = SourceIdentity {
        instance_uuid: InstanceUuid::from_path(&path),
        endpoint: Endpoint::parse("vcenter.example").unwrap(),
    };
    let disk = SourceDisk {
        key: key(),
        label: "Hard disk 1".to_owned(),
        location: format!("[ds1] {name}/{name}.vmdk"),
        capacity: ByteSize::gib(40),
        unit_number: Some(0),
    };
    SourceVm { identity, name: name.to_owned(), path, disks: vec![disk] }
}

pub(crate) fn job_of(vm: &VmContext) -> JobSpec {
    let id = JobId::mint(Timestamp::from_millis(1_755_770_000_000));
    JobSpec::new(id, vm.id.clone(), ReplicationType::Initial, vec![key()])
}

/// A VM with a live job.
pub(crate) async fn begun(store: &SqlStore, name: &str) -> (VmContext, Lease) {
    let vm = Inventory::record(store, &source_vm(name)).await.unwrap();
    let job = store.insert(job_of(&vm)).await.unwrap();
    (vm, store.claim(&job.id, &worker(), Duration::from_secs(60)).await.unwrap())
}

/// Records one operation and that it was done.
pub(crate) async fn operate(
    store: &SqlStore,
    lease: &Lease,
    vm: &VmContext,
    kind: OperationKind,
    volume: &VolumeId,
) {
    let spec = OperationSpec {
        volume: (kind != OperationKind::Create).then(|| volume.clone()),
        capacity: Some(ByteSize::gib(40)),
        ..OperationSpec::new(
            OperationId::mint(),
            kind,
            DiskRef { context: vm.id.clone(), key: key() },
            lease.job.clone(),
        )
    };
    VolumeRegistry::begin(store, lease, &spec).await.unwrap();
    let done = Volume {
        id: volume.clone(),
        name: format!("migration-{}-{}-disk-0", vm.name, vm.name),
        capacity: ByteSize::gib(40),
        tag: None,
        device_path: Some(format!("/dev/{volume}")),
    };
    store.complete(lease, &spec.id, &done, true).await.unwrap();
}

/// A VM with a live job whose volume is attached and exported.
pub(crate) async fn published(store: &SqlStore, name: &str) -> (VmContext, Lease, VolumeId) {
    let (vm, lease) = begun(store, name).await;
    let volume = VolumeId::parse(format!("vol-{name}")).unwrap();
    operate(store, &lease, &vm, OperationKind::Create, &volume).await;
    operate(store, &lease, &vm, OperationKind::Attach, &volume).await;
    let export = ExportName::for_disk(&vm.identity.instance_uuid, &key()).unwrap();
    ExportRegistry::begin(store, &lease, &export, &key(), &volume).await.unwrap();
    (vm, lease, volume)
}

/// A VM with one committed epoch.
pub(crate) async fn replicated(store: &SqlStore, name: &str) -> (VmContext, JobId, VolumeId) {
    let (vm, lease, volume) = published(store, name).await;
    let change_id = ChangeId::parse(CHANGE).unwrap();
    let sync_type = ReplicationType::Initial;
    let attempt = DiskAttempt { key: key(), change_id: change_id.clone(), previous: None, sync_type };
    ChangeIdRepo::begin(store, &lease, &attempt).await.unwrap();
    for (from, event) in [
        (JobStatus::Initializing, JobEvent::Provision),
        (JobStatus::Provisioning, JobEvent::Prepared),
        (JobStatus::Ready, JobEvent::Copy),
        (JobStatus::Replicating, JobEvent::Copied),
    ] {
        JobStore::advance(store, &lease, from, event).await.unwrap();
    }
    let disk = DiskCommit {
        key: key(),
        volume: volume.clone(),
        generation: Generation::FIRST,
        change_id,
        capacity: ByteSize::mib(70),
        stamp: None,
        extents: 12,
        bytes_transferred: ByteSize::mib(70),
        duration: Duration::from_secs(3),
    };
    let commit = EpochCommit { context: vm.id.clone(), epoch: vm.epoch.next(), disks: vec![disk] };
    store.commit_epoch(&lease, &commit).await.unwrap();
    (vm, lease.job, volume)
}
