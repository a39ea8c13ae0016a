//! What every store promises: [`JobStore`], [`Inventory`], [`ChangeIdRepo`], [`ExtentJournal`], [`VolumeRegistry`],
//! [`ExportRegistry`], [`LogStore`], [`Overview`], [`ReportStore`], [`RecoveryPoints`], [`Accounts`], [`AuditLog`],
//! [`JobLog`] and [`Cleanups`] over the same records.

mod accounts;
mod attempts;
mod audit;
mod bounds;
mod changes;
mod cleanups;
mod commits;
mod deletes;
mod exports;
mod fences;
mod inventory;
mod job_lists;
mod jobs;
mod journal;
mod leases;
mod lines;
mod lists;
mod logins;
mod logs;
mod operates;
mod operations;
mod overview;
mod points;
mod protections;
mod queue;
mod races;
mod reports;
mod results;
mod retention;
mod steps;
mod tokens;
mod volumes;
mod wanted;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures_util::TryStreamExt;
use futures_util::future::BoxFuture;

use super::{Case, Guard};
use crate::memory::ManualClock;
use crate::record::{
    CbtRecord, ClaimLimits, ClaimRequest, CommittedChange, ContentStamp, DiskAttempt, DiskCommit, DiskRecord,
    EpochCommit, ExportRecord, FailoverRecord, JobFilter, JobSpec, JournalBasis, JournalEntry, Lease,
    Operation, OperationSpec, ReplicationJob, SourceDisk, SourceIdentity, SourceVm, VmContext, VolumeFilter,
    VolumeRecord,
};
use crate::state::{JobEvent, OperationKind, ReplicationType};
use crate::traits::{
    Accounts, AuditLog, ChangeIdRepo, Cleanups, ExportRegistry, ExtentJournal, Inventory, JobLog, JobStore,
    LogStore, Overview, RecoveryPoints, ReportStore, Volume, VolumeRegistry,
};
use crate::{
    AutomationJobId, ByteSize, ChangeId, Clock, ContextId, DiskKey, DiskRef, Endpoint, ErrorKind, ExportName,
    Extent, ExtentSet, Generation, InstanceUuid, JobId, OperationId, PointId, Result, SnapshotId, VmPath,
    VolumeId, WorkerId,
};

/// Makes an automation job known to a store, beside all traits: its own trait does not exist yet.
pub type AddAutomationJob = Arc<dyn Fn(AutomationJobId) -> BoxFuture<'static, ()> + Send + Sync>;

/// Makes a failover job known to a store, as it stands, beside all traits: nothing fails over yet. A second time it stands as it is
/// said then.
pub type AddFailover = Arc<dyn Fn(FailoverRecord) -> BoxFuture<'static, ()> + Send + Sync>;

/// An empty store, to be put to the test.
pub struct StoreSubject {
    /// Its jobs.
    pub jobs: Arc<dyn JobStore>,
    /// Its VMs.
    pub inventory: Arc<dyn Inventory>,
    /// Its change ids.
    pub change_ids: Arc<dyn ChangeIdRepo>,
    /// Its journals.
    pub journal: Arc<dyn ExtentJournal>,
    /// Its volumes.
    pub volumes: Arc<dyn VolumeRegistry>,
    /// Its exports.
    pub exports: Arc<dyn ExportRegistry>,
    /// Its logs.
    pub logs: Arc<dyn LogStore>,
    /// Its steps of jobs.
    pub job_log: Arc<dyn JobLog>,
    /// It in numbers.
    pub overview: Arc<dyn Overview>,
    /// Its verification reports.
    pub reports: Arc<dyn ReportStore>,
    /// Its recovery points.
    pub points: Arc<dyn RecoveryPoints>,
    /// Its users and their tokens.
    pub accounts: Arc<dyn Accounts>,
    /// Its audit trail.
    pub audit: Arc<dyn AuditLog>,
    /// Its cleanups.
    pub cleanups: Arc<dyn Cleanups>,
    /// How it comes to know an automation job.
    pub automation: AddAutomationJob,
    /// How it comes to know a failover job.
    pub failover: AddFailover,
    /// The clock that it goes by.
    pub clock: Arc<ManualClock>,
    /// What it lives on.
    pub guard: Guard,
}

impl StoreSubject {
    /// A subject whose records all lie in one store.
    pub fn new<S>(
        store: Arc<S>,
        (automation, failover): (AddAutomationJob, AddFailover),
        clock: Arc<ManualClock>,
        guard: Guard,
    ) -> Self
    where
        S: JobStore + Inventory + ChangeIdRepo + ExtentJournal,
        S: VolumeRegistry + ExportRegistry + LogStore + Overview + ReportStore + RecoveryPoints,
        S: Accounts + AuditLog + JobLog + Cleanups,
    {
        Self {
            jobs: store.clone(),
            inventory: store.clone(),
            change_ids: store.clone(),
            journal: store.clone(),
            volumes: store.clone(),
            exports: store.clone(),
            logs: store.clone(),
            job_log: store.clone(),
            overview: store.clone(),
            reports: store.clone(),
            points: store.clone(),
            accounts: store.clone(),
            audit: store.clone(),
            cleanups: store,
            automation,
            failover,
            clock,
            guard,
        }
    }
}

impl fmt::Debug for StoreSubject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoreSubject").field("jobs", &self.jobs).finish_non_exhaustive()
    }
}

/// Cases over a store.
#[must_use]
pub fn store_cases() -> Vec<Case<StoreSubject>> {
    let mut all = inventory::cases();
    all.extend(jobs::cases());
    all.extend(job_lists::cases());
    all.extend(leases::cases());
    all.extend(queue::cases());
    all.extend(bounds::cases());
    all.extend(wanted::cases());
    all.extend(attempts::cases());
    all.extend(fences::cases());
    all.extend(operations::cases());
    all.extend(operates::cases());
    all.extend(deletes::cases());
    all.extend(results::cases());
    all.extend(volumes::cases());
    all.extend(lists::cases());
    all.extend(exports::cases());
    all.extend(journal::cases());
    all.extend(changes::cases());
    all.extend(commits::cases());
    all.extend(races::cases());
    all.extend(logs::cases());
    all.extend(lines::cases());
    all.extend(retention::cases());
    all.extend(steps::cases());
    all.extend(overview::cases());
    all.extend(reports::cases());
    all.extend(points::cases());
    all.extend(accounts::cases());
    all.extend(tokens::cases());
    all.extend(logins::cases());
    all.extend(audit::cases());
    all.extend(cleanups::cases());
    all.extend(protections::cases());
    all
}

/// How long leases last here.
const TTL: Duration = Duration::from_secs(30);
/// The disks of the VM here, by key.
const KEYS: [&str; 2] = ["disk-2000", "disk-2001"];

fn key(text: &str) -> DiskKey {
    DiskKey::parse(text).unwrap()
}

fn worker(text: &str) -> WorkerId {
    WorkerId::parse(text).unwrap()
}

fn change_id(text: &str) -> ChangeId {
    ChangeId::parse(text).unwrap()
}

fn extent(offset: u64, length: u64) -> Extent {
    Extent::new(offset, length).unwrap()
}

fn name(text: &str) -> ExportName {
    ExportName::parse(text).unwrap()
}

/// A VM with the disks of [`KEYS`].
fn source_vm(uuid: &str) -> SourceVm {
    let disk = |(unit, text): (usize, &&str)| SourceDisk {
        key: key(text),
        label: format!("Hard disk {text}"),
        location: format!("[store] {uuid}/{text}.vmdk"),
        capacity: ByteSize::mib(8),
        unit_number: u32::try_from(unit).ok(),
    };
    SourceVm {
        identity: SourceIdentity {
            instance_uuid: InstanceUuid::parse(uuid).unwrap(),
            endpoint: Endpoint::parse("vcenter.example").unwrap(),
        },
        name: "web".to_owned(),
        path: VmPath::parse(format!("/DC/vm/{uuid}")).unwrap(),
        disks: KEYS.iter().enumerate().map(disk).collect(),
    }
}

/// A claim that no bound forbids, of jobs with up to three attempts.
fn request(by: &str) -> ClaimRequest {
    ClaimRequest { worker: worker(by), ttl: TTL, limits: ClaimLimits::default(), attempts: 3 }
}

fn basis(generation: Generation) -> JournalBasis {
    JournalBasis {
        generation,
        endpoint: Endpoint::parse("vcenter.example").unwrap(),
        content: PointId::parse("point-1").unwrap(),
        change_id: change_id("point-1"),
        base: None,
        capacity: ByteSize::mib(8),
    }
}

/// A journal of a full copy of which nothing is finished.
fn empty_journal() -> JournalEntry {
    JournalEntry::new(basis(Generation::FIRST), ExtentSet::new())
}

/// The attempt of a job that copies what changed.
fn attempt(text: &str, marker: &str) -> DiskAttempt {
    DiskAttempt {
        key: key(text),
        change_id: change_id(marker),
        previous: None,
        sync_type: ReplicationType::Incremental,
    }
}

fn assert_kind<T: fmt::Debug>(result: Result<T>, kind: ErrorKind) {
    match result {
        Err(error) if error.kind() == kind => {}
        other => panic!("{other:?} where {kind} was promised"),
    }
}

/// The store with comfort for tests.
impl StoreSubject {
    fn spec(&self, vm: &VmContext) -> JobSpec {
        let disks = KEYS.iter().map(|text| key(text)).collect();
        let id = JobId::mint(self.clock.now());
        let spec = JobSpec::new(id, vm.id.clone(), ReplicationType::Initial, disks);
        JobSpec { request: Some("anybody's".to_owned()), ..spec }
    }

    fn revert_spec(&self, vm: &VmContext) -> JobSpec {
        let JobSpec { id, context, disks, .. } = self.spec(vm);
        // It names its point, and is nobody's to find for all that.
        JobSpec { request: Some("a point".to_owned()), ..JobSpec::revert(id, context, disks) }
    }

    fn operate_spec(&self, vm: &VmContext) -> JobSpec {
        JobSpec::operate(JobId::mint(self.clock.now()), self.disk(vm, KEYS[0]))
    }

    /// The waiting job of another VM; `shape` says what is special about it.
    async fn queued(&self, number: usize, shape: impl FnOnce(&mut SourceVm, &mut JobSpec)) -> JobId {
        let mut source = source_vm(&format!("uuid-queued-{number}"));
        let id = JobId::parse(format!("job-{number}")).unwrap();
        let disks = KEYS.iter().map(|text| key(text)).collect();
        let nowhere = ContextId::parse("ctx-none").unwrap();
        let mut spec = JobSpec::new(id, nowhere, ReplicationType::Initial, disks);
        spec.request = Some("anybody's".to_owned());
        shape(&mut source, &mut spec);
        spec.context = self.inventory.record(&source).await.unwrap().id;
        self.jobs.insert(spec).await.unwrap().id
    }

    /// Claims the next job as this worker, by no bound.
    async fn next(&self, by: &str) -> Option<Lease> {
        self.jobs.claim_next(&request(by)).await.unwrap()
    }

    async fn job(&self, id: &JobId) -> ReplicationJob {
        self.jobs.get(id).await.unwrap().unwrap()
    }

    async fn vm(&self) -> VmContext {
        self.inventory.record(&source_vm("uuid-1")).await.unwrap()
    }

    /// A VM with a claimed job.
    async fn claimed(&self) -> (VmContext, Lease) {
        let vm = self.vm().await;
        let job = self.jobs.insert(self.spec(&vm)).await.unwrap();
        let lease = self.jobs.claim(&job.id, &worker("one"), TTL).await.unwrap();
        (vm, lease)
    }

    /// Another worker takes the job over: the lease is stale now.
    async fn take_over(&self, lease: &Lease) -> Lease {
        self.clock.advance(TTL * 2);
        self.jobs.claim(&lease.job, &worker("two"), TTL).await.unwrap()
    }

    fn disk(&self, vm: &VmContext, text: &str) -> DiskRef {
        DiskRef { context: vm.id.clone(), key: key(text) }
    }

    fn operation(
        &self,
        lease: &Lease,
        disk: &DiskRef,
        kind: OperationKind,
        volume: Option<&VolumeId>,
    ) -> OperationSpec {
        OperationSpec {
            volume: volume.cloned(),
            capacity: Some(ByteSize::mib(8)),
            snapshot: kind.is_of_snapshot().then(|| SnapshotId::mint(&lease.job)),
            ..OperationSpec::new(OperationId::mint(), kind, disk.clone(), lease.job.clone())
        }
    }

    /// What a backend answers.
    fn backend_volume(&self, id: &str, device_path: Option<&str>) -> Volume {
        Volume {
            id: VolumeId::parse(id).unwrap(),
            name: format!("migration-{id}"),
            capacity: ByteSize::mib(8),
            tag: None,
            device_path: device_path.map(str::to_owned),
        }
    }

    /// Records and completes one operation.
    async fn carry_out(&self, lease: &Lease, spec: &OperationSpec, volume: &Volume) -> Result<VolumeRecord> {
        self.volumes.begin(lease, spec).await?;
        self.volumes.complete(lease, &spec.id, volume, true).await
    }

    /// Gives a disk an attached volume.
    async fn provision(&self, lease: &Lease, disk: &DiskRef, id: &str) -> VolumeRecord {
        let create = self.operation(lease, disk, OperationKind::Create, None);
        let made = self.carry_out(lease, &create, &self.backend_volume(id, None)).await.unwrap();
        let attach = self.operation(lease, disk, OperationKind::Attach, Some(&made.id));
        let path = format!("/dev/mapper/{id}");
        self.carry_out(lease, &attach, &self.backend_volume(id, Some(&path))).await.unwrap()
    }

    async fn advance(&self, lease: &Lease, events: &[JobEvent]) -> ReplicationJob {
        let mut job = self.jobs.get(&lease.job).await.unwrap().unwrap();
        for event in events {
            job = self.jobs.advance(lease, job.status, *event).await.unwrap();
        }
        job
    }

    /// Everything of an epoch but its commit: volumes, attempts, journals, the job in `finalizing`.
    async fn ready_to_commit(&self, vm: &VmContext, lease: &Lease, marker: &str) -> EpochCommit {
        let commit = self.copied(vm, lease, marker).await;
        use JobEvent::{Copied, Copy, Prepared, Provision};
        self.advance(lease, &[Provision, Prepared, Copy, Copied]).await;
        commit
    }

    /// As [`StoreSubject::ready_to_commit`], with the job still in its first state.
    async fn copied(&self, vm: &VmContext, lease: &Lease, marker: &str) -> EpochCommit {
        let job = self.jobs.get(&lease.job).await.unwrap().unwrap();
        let mut disks = Vec::new();
        for disk in job.disks.iter().map(|key| self.disk(vm, key.as_str())) {
            let text = disk.key.as_str();
            let volume = match self.volumes.volume_of(&disk).await.unwrap() {
                Some(volume) => volume,
                None => self.provision(lease, &disk, &format!("{}-{text}", vm.identity.instance_uuid)).await,
            };
            self.volumes.mark_inconsistent(lease, &volume.id).await.unwrap();
            let attempt = attempt(text, &format!("{marker}/{text}"));
            self.change_ids.begin(lease, &attempt).await.unwrap();
            let entry = JournalEntry::new(basis(volume.generation), ExtentSet::new());
            self.journal.begin(lease, &disk.key, &entry).await.unwrap();
            disks.push(DiskCommit {
                key: disk.key,
                volume: volume.id,
                generation: volume.generation,
                change_id: attempt.change_id,
                capacity: ByteSize::mib(7),
                stamp: Some(ContentStamp("stamp".to_owned())),
                extents: 3,
                bytes_transferred: ByteSize::kib(12),
                duration: Duration::from_millis(1500),
            });
        }
        EpochCommit { context: vm.id.clone(), epoch: job.epoch, disks }
    }

    /// A VM whose first epoch is committed.
    async fn replicated(&self) -> VmContext {
        let (vm, lease) = self.claimed().await;
        let commit = self.ready_to_commit(&vm, &lease, "first").await;
        self.change_ids.commit_epoch(&lease, &commit).await.unwrap();
        self.inventory.context(&vm.id).await.unwrap().unwrap()
    }

    /// A claimed second job of [`StoreSubject::replicated`].
    async fn second_job(&self, vm: &VmContext) -> Lease {
        self.job_of(self.spec(vm)).await
    }

    async fn job_of(&self, spec: JobSpec) -> Lease {
        self.clock.advance(Duration::from_secs(1));
        let job = self.jobs.insert(spec).await.unwrap();
        self.jobs.claim(&job.id, &worker("one"), TTL).await.unwrap()
    }

    /// The claimed job of another VM, whose lease is worth nothing here.
    async fn job_of_another_vm(&self) -> Lease {
        let vm = self.inventory.record(&source_vm("uuid-2")).await.unwrap();
        self.second_job(&vm).await
    }

    async fn listed(&self, filter: JobFilter) -> Vec<ReplicationJob> {
        self.jobs.list(filter).try_collect().await.unwrap()
    }

    /// All that is recorded of a VM: to be compared before and after a call that was refused.
    async fn world(&self, vm: &VmContext) -> World {
        let disks = self.inventory.disks(&vm.id).await.unwrap();
        let (mut histories, mut more) = (Vec::new(), Vec::new());
        for DiskRecord { disk, .. } in &disks {
            histories.push(self.change_ids.history(disk).try_collect().await.unwrap());
            let volume = self.volumes.volume_of(disk).await.unwrap();
            let generation = volume.map_or(Generation::FIRST, |volume| volume.generation);
            more.push(DiskWorld {
                change: self.change_ids.current(disk, generation, &vm.identity.endpoint).await.unwrap(),
                journal: self.journal.load(disk).await.unwrap(),
                unfinished: self.volumes.unfinished(disk).await.unwrap(),
            });
        }
        World {
            vm: self.inventory.context(&vm.id).await.unwrap(),
            disks,
            histories,
            more,
            volumes: self.volumes.volumes(VolumeFilter::default()).try_collect().await.unwrap(),
            exports: self.exports.exports().try_collect().await.unwrap(),
            jobs: self.listed(JobFilter::default()).await,
        }
    }
}

#[derive(Debug, PartialEq)]
struct World {
    vm: Option<VmContext>,
    disks: Vec<DiskRecord>,
    /// By disk.
    histories: Vec<Vec<CbtRecord>>,
    /// By disk.
    more: Vec<DiskWorld>,
    volumes: Vec<VolumeRecord>,
    exports: Vec<ExportRecord>,
    jobs: Vec<ReplicationJob>,
}

/// What hangs on a disk beside its record.
#[derive(Debug, PartialEq)]
struct DiskWorld {
    change: Option<CommittedChange>,
    journal: Option<JournalEntry>,
    unfinished: Option<Operation>,
}
