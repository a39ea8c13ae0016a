//! One store with the names that were given in it.

use std::fmt::Debug;
use std::time::Duration;

use futures_util::TryStreamExt;
use oma_core::record::{
    ClaimLimits, ClaimRequest, ContentStamp, DiskAttempt, DiskCommit, EpochCommit, JobEnd, JobFilter,
    JobSpec, JournalBasis, JournalEntry, Lease, OperationFilter, OperationSpec, ReplicationJob, RetryPolicy,
    SourceDisk, SourceIdentity, SourceVm, VolumeFilter,
};
use oma_core::state::{JobEvent, JobKind, JobStatus, OperationKind, ReplicationType};
use oma_core::traits::{
    ChangeIdRepo, ExportRegistry, ExtentJournal, Inventory, JobStore, Provisioning, RecoveryPoints, Volume,
    VolumeRegistry,
};
use oma_core::{
    ByteSize, ChangeId, ContextId, DiskKey, DiskRef, Endpoint, Epoch, Error, ExportName, Extent, Fence,
    Generation, InstanceUuid, JobId, OperationId, PointId, Timestamp, VmPath, WorkerId,
};

use super::step::Step;

pub(crate) trait Stores:
    JobStore + Inventory + ChangeIdRepo + ExtentJournal + VolumeRegistry + ExportRegistry + RecoveryPoints
{
}

impl<T> Stores for T where
    T: JobStore + Inventory + ChangeIdRepo + ExtentJournal + VolumeRegistry + ExportRegistry + RecoveryPoints
{
}

pub(crate) struct World<S> {
    pub(crate) store: S,
    contexts: [Option<ContextId>; 2],
    leases: Vec<Lease>,
    /// The next operation that [`World::provision`] has a use for.
    operations: usize,
    /// The next recovery point that [`World::forward`] makes.
    points: usize,
}

pub(crate) fn named<T: std::str::FromStr<Err: Debug>>(kind: &str, number: usize) -> T {
    format!("{kind}-{number}").parse().unwrap()
}

pub(crate) fn key(disk: usize) -> DiskKey {
    named("disk", disk)
}

fn change(number: usize) -> ChangeId {
    named("change", number)
}

fn export(disk: usize) -> ExportName {
    named("export", disk)
}

fn endpoint() -> Endpoint {
    named("vcenter", 0)
}

fn volume(number: usize, path: Option<usize>) -> Volume {
    Volume {
        id: named("volume", number),
        name: format!("volume {number}"),
        capacity: ByteSize::mib(64),
        tag: None,
        device_path: path.map(|path| format!("/dev/vd{path}")),
    }
}

impl<S: Stores> World<S> {
    pub(crate) fn new(store: S) -> Self {
        Self { store, contexts: [None, None], leases: Vec::new(), operations: 10, points: 10 }
    }

    /// Does it and tells the answer, without what differs between two stores by nature.
    pub(crate) async fn apply(&mut self, step: &Step) -> String {
        let answer = match step.clone() {
            Step::Forward { vm } => self.forward(vm).await,
            Step::Record { vm, disks, size } => self.record(vm, disks, size).await,
            Step::Insert { vm, job, disks } => self.insert(vm, job, disks).await,
            Step::Claim { job, worker } => self.claim(job, worker).await,
            Step::ClaimNext { worker, limits, attempts } => self.claim_next(worker, limits, attempts).await,
            Step::Sleep => String::new(),
            Step::Point(point) => self.with_point(point).await,
            Step::RemoveExport { disk } => told(self.store.remove(&export(disk)).await),
            on_lease => self.with_lease(on_lease).await,
        };
        self.normal(answer)
    }

    pub(crate) fn lease(&self, number: usize) -> Lease {
        // The newest leases are the interesting ones.
        let at = self.leases.len().checked_sub(1 + number);
        at.map_or_else(nobody, |at| self.leases[at].clone())
    }

    fn disk(&self, lease: &Lease, disk: usize, job: Option<&ReplicationJob>) -> DiskRef {
        let nowhere = || named("ctx", 0);
        let context = job.filter(|job| job.id == lease.job).map_or_else(nowhere, |job| job.context.clone());
        DiskRef { context, key: key(disk) }
    }

    async fn record(&mut self, vm: usize, disks: usize, size: u64) -> String {
        let disk = |number| SourceDisk {
            key: key(number),
            label: format!("disk {number}"),
            location: format!("[ds] {number}"),
            capacity: ByteSize::mib(size),
            unit_number: None,
        };
        let path: VmPath = named("/DC/vm/web", vm);
        let identity = SourceIdentity { instance_uuid: InstanceUuid::from_path(&path), endpoint: endpoint() };
        let vm_now =
            SourceVm { identity, name: path.to_string(), path, disks: (0..disks).map(disk).collect() };
        let recorded = Inventory::record(&self.store, &vm_now).await;
        if let Ok(context) = &recorded {
            self.contexts[vm] = Some(context.id.clone());
        }
        told(recorded)
    }

    async fn insert(&self, vm: usize, job: usize, disks: usize) -> String {
        let context = self.contexts[vm].clone().unwrap_or_else(|| named("ctx", 0));
        let disks = (0..disks).map(key).collect();
        let replication_type = ReplicationType::Incremental;
        let spec = JobSpec::new(named("job", job), context, replication_type, disks);
        let priority = i32::try_from(job % 3).unwrap() - 1;
        let target = job.is_multiple_of(2).then(|| named("cloud", job % 4));
        let kind = match job {
            1 => JobKind::Operate,
            2 => JobKind::Revert,
            _ => JobKind::Replicate,
        };
        // Every fifth is its recorder's only.
        let request = (job % 5 != 4).then(|| "anybody's".to_owned());
        told(self.store.insert(JobSpec { kind, priority, target, request, ..spec }).await)
    }

    async fn claim(&mut self, job: usize, worker: usize) -> String {
        let (job, worker) = (named("job", job), named("worker", worker));
        let lease = self.store.claim(&job, &worker, Duration::from_secs(30)).await;
        self.leases.extend(lease.iter().cloned());
        told(lease)
    }

    async fn claim_next(&mut self, worker: usize, limits: ClaimLimits, attempts: u32) -> String {
        let ttl = Duration::from_secs(30);
        let request = ClaimRequest { worker: named("worker", worker), ttl, limits, attempts };
        let lease = self.store.claim_next(&request).await;
        self.leases.extend(lease.iter().flatten().cloned());
        told(lease)
    }

    async fn with_lease(&mut self, step: Step) -> String {
        let ttl = Duration::from_secs(30);
        match step {
            Step::Renew(lease) => told(self.store.renew(&self.lease(lease), ttl).await),
            Step::Release(lease) => told(self.store.release(&self.lease(lease)).await),
            Step::Defer { lease, attempts } => {
                let policy = RetryPolicy { attempts, ..RetryPolicy::default() };
                told(self.store.defer(&self.lease(lease), "no answer", &policy).await)
            }
            Step::Advance { lease, from, event } => {
                told(JobStore::advance(&self.store, &self.lease(lease), from, event).await)
            }
            Step::End { lease, end } => {
                let because = || "because".to_owned();
                let end = match end {
                    0 => JobEnd::Failed(because()),
                    1 => JobEnd::Cancelled(because()),
                    _ => JobEnd::Done,
                };
                told(self.store.end(&self.lease(lease), end).await)
            }
            Step::Attempt { lease, disk, change } => self.attempt(&self.lease(lease), disk, change).await,
            Step::Commit { lease, change, generation } => {
                self.commit(&self.lease(lease), change, generation).await
            }
            Step::BeginJournal { lease, disk, base } => self.journal(&self.lease(lease), disk, base).await,
            Step::Finish { lease, disk, offset, length } => {
                let extent = Extent::new(offset, length).unwrap();
                let synced = ByteSize::new(offset + length);
                told(ExtentJournal::record(&self.store, &self.lease(lease), &key(disk), extent, synced).await)
            }
            Step::Export { lease, disk, volume } => {
                let (lease, volume) = (self.lease(lease), named("volume", volume));
                told(ExportRegistry::begin(&self.store, &lease, &export(disk), &key(disk), &volume).await)
            }
            Step::AdvanceExport { lease, disk, event } => {
                told(ExportRegistry::advance(&self.store, &self.lease(lease), &export(disk), event).await)
            }
            on_volume => self.with_volume(on_volume).await,
        }
    }

    async fn with_volume(&mut self, step: Step) -> String {
        match step {
            Step::Operate { lease, operation, kind, disk, volume } => {
                self.operate(&self.lease(lease), operation, kind, disk, volume).await
            }
            Step::Complete { lease, operation, volume: number, path } => {
                self.complete(&self.lease(lease), operation, number, path).await
            }
            Step::Fail { lease, operation } => {
                told(self.store.fail(&self.lease(lease), &named("op", operation), "no answer").await)
            }
            Step::Condemn { lease, operation, disk, volume } => {
                let lease = self.lease(lease);
                let spec = self.intent(&lease, operation, OperationKind::Delete, disk, Some(volume)).await;
                told(self.store.condemn(&lease, &spec, Duration::from_secs(30)).await)
            }
            Step::Execute { lease, operation } => {
                told(self.store.execute(&self.lease(lease), &named("op", operation)).await)
            }
            Step::Pardon { lease, operation } => {
                told(self.store.pardon(&self.lease(lease), &named("op", operation), "wanted").await)
            }
            Step::Doubt { lease, operation } => {
                told(self.store.doubt(&self.lease(lease), &named("op", operation), "no answer").await)
            }
            Step::Mark { lease, volume } => {
                told(self.store.mark_inconsistent(&self.lease(lease), &named("volume", volume)).await)
            }
            Step::KeepStamp { lease, volume } => {
                let stamp = ContentStamp("left".to_owned());
                told(self.store.keep_stamp(&self.lease(lease), &named("volume", volume), &stamp).await)
            }
            Step::AdvanceGeneration { lease, volume } => {
                told(self.store.advance_generation(&self.lease(lease), &named("volume", volume)).await)
            }
            Step::Forget { lease, volume } => {
                told(self.store.forget(&self.lease(lease), &named("volume", volume)).await)
            }
            other => unreachable!("{other:?} is done elsewhere"),
        }
    }

    async fn attempt(&self, lease: &Lease, disk: usize, number: usize) -> String {
        let sync_type = ReplicationType::Initial;
        let attempt = DiskAttempt { key: key(disk), change_id: change(number), previous: None, sync_type };
        told(ChangeIdRepo::begin(&self.store, lease, &attempt).await)
    }

    async fn commit(&self, lease: &Lease, number: usize, generation: u64) -> String {
        let job = self.store.get(&lease.job).await.unwrap();
        let (context, epoch, keys) =
            job.map_or((named("ctx", 0), Epoch(1), Vec::new()), |job| (job.context, job.epoch, job.disks));
        let mut disks = Vec::new();
        for key in keys {
            let disk = DiskRef { context: context.clone(), key: key.clone() };
            let linked = self.store.volume_of(&disk).await.unwrap();
            let linked = linked.map(|volume| (volume.id, volume.generation));
            let (volume, known) = linked.unwrap_or_else(|| (named("volume", 0), Generation(1)));
            disks.push(DiskCommit {
                key,
                volume,
                // 1 is "as it is", 2 is wrong.
                generation: if generation == 1 { known } else { known.next() },
                change_id: change(number),
                capacity: ByteSize::mib(64),
                stamp: Some(ContentStamp("stamp".to_owned())),
                extents: 3,
                bytes_transferred: ByteSize::mib(1),
                duration: Duration::from_millis(1500),
            });
        }
        told(self.store.commit_epoch(lease, &EpochCommit { context, epoch, disks }).await)
    }

    async fn journal(&self, lease: &Lease, disk: usize, base: bool) -> String {
        let basis = JournalBasis {
            generation: Generation::FIRST,
            endpoint: endpoint(),
            content: named::<PointId>("point", 0),
            change_id: change(0),
            base: base.then(|| change(0)),
            capacity: ByteSize::mib(1),
        };
        let planned = base.then(|| Extent::new(10, 50).unwrap()).into_iter().collect();
        // As a carried over journal: something is finished from the beginning.
        let finished = base.then(|| Extent::new(0, 20).unwrap()).into_iter().collect();
        let entry = JournalEntry { finished, ..JournalEntry::new(basis, planned) };
        told(ExtentJournal::begin(&self.store, lease, &key(disk), &entry).await)
    }

    async fn operate(
        &self,
        lease: &Lease,
        number: usize,
        kind: OperationKind,
        disk: usize,
        volume: Option<usize>,
    ) -> String {
        let spec = self.intent(lease, number, kind, disk, volume).await;
        told(VolumeRegistry::begin(&self.store, lease, &spec).await)
    }

    async fn intent(
        &self,
        lease: &Lease,
        number: usize,
        kind: OperationKind,
        disk: usize,
        volume: Option<usize>,
    ) -> OperationSpec {
        let job = self.store.get(&lease.job).await.unwrap();
        let disk = self.disk(lease, disk, job.as_ref());
        OperationSpec {
            volume: volume.map(|number| named("volume", number)),
            capacity: Some(ByteSize::mib(64)),
            name: number.is_multiple_of(2).then(|| "web".to_owned()),
            provisioning: number.is_multiple_of(3).then_some(Provisioning::Thick),
            snapshot: (number != 4).then(|| named("snap", number)),
            ..OperationSpec::new(named("op", number), kind, disk, lease.job.clone())
        }
    }

    async fn complete(&self, lease: &Lease, number: usize, on: usize, path: Option<usize>) -> String {
        let id: OperationId = named("op", number);
        let known = self.store.operation(&id).await.unwrap();
        let done = volume(on, path);
        let answer = self.store.complete(lease, &id, &done, number.is_multiple_of(2)).await;
        // The answer to a repetition may be as of now or as of then.
        if known.is_some_and(|known| known.status.is_terminal()) {
            told(answer.map(|v| v.id))
        } else {
            told(answer)
        }
    }

    /// What the engine would do next for this VM: insert, claim, provision, copy, commit.
    async fn forward(&mut self, vm: usize) -> String {
        let Some(context) = self.contexts[vm].clone() else {
            return self.record(vm, 2, 2).await;
        };
        let Some(job) = self.store.live(&context).await.unwrap() else {
            let jobs: Vec<_> = self.store.list(JobFilter::default()).try_collect().await.unwrap();
            return self.insert(vm, 3 + jobs.len(), 2).await;
        };
        let held =
            self.leases.iter().rev().find(|lease| lease.job == job.id && lease.fence == job.fence).cloned();
        let Some(lease) = held.filter(|_| job.owner.is_some()) else {
            let lease = self.store.claim(&job.id, &named("worker", 0), Duration::from_secs(30)).await;
            self.leases.extend(lease.iter().cloned());
            return told(lease);
        };
        let event = match job.status {
            JobStatus::Initializing => JobEvent::Provision,
            JobStatus::Provisioning => match self.provision(&lease, &job).await {
                None => JobEvent::Prepared,
                Some(answer) => return answer,
            },
            JobStatus::Ready => JobEvent::Copy,
            JobStatus::Replicating => {
                let mut answers = String::new();
                for disk in 0..job.disks.len() {
                    answers += &self.attempt(&lease, disk, 0).await;
                    answers += &self.journal(&lease, disk, true).await;
                }
                return answers
                    + &told(JobStore::advance(&self.store, &lease, job.status, JobEvent::Copied).await);
            }
            _ => return self.commit_with_point(&lease, &job).await,
        };
        told(JobStore::advance(&self.store, &lease, job.status, event).await)
    }

    async fn commit_with_point(&mut self, lease: &Lease, job: &ReplicationJob) -> String {
        self.points += 1;
        let point = named("point", self.points);
        self.begin_point(lease, self.points, job.disks.len()).await
            + &told(self.store.take_point(lease, &point).await)
            + &self.commit(lease, 0, 1).await
            + &self.commit(lease, 0, 1).await
    }

    /// The next thing that a disk of the job needs, if any does.
    async fn provision(&mut self, lease: &Lease, job: &ReplicationJob) -> Option<String> {
        for disk in 0..job.disks.len() {
            let id = self.disk(lease, disk, Some(job));
            let linked = self.store.volume_of(&id).await.unwrap();
            while self.store.operation(&named("op", self.operations)).await.unwrap().is_some() {
                self.operations += 1;
            }
            let number = self.operations;
            if let Some(operation) = self.store.unfinished(&id).await.unwrap() {
                let made = usize::from(operation.spec.volume.is_none()) * (number - 10);
                let mut done = volume(made, Some(number));
                done.id = operation.spec.volume.unwrap_or(done.id);
                return Some(told(self.store.complete(lease, &operation.spec.id, &done, true).await));
            }
            match linked {
                None => return Some(self.operate(lease, number, OperationKind::Create, disk, None).await),
                Some(linked) if linked.device_path.is_none() => {
                    let number_of = linked.id.as_str().trim_start_matches("volume-").parse().unwrap();
                    return Some(
                        self.operate(lease, number, OperationKind::Attach, disk, Some(number_of)).await,
                    );
                }
                Some(_) => {}
            }
        }
        None
    }

    /// Everything that the store holds.
    pub(crate) async fn state(&self) -> String {
        let mut lines = Vec::new();
        let mut contexts: Vec<_> = self.store.contexts(None).try_collect().await.unwrap();
        contexts.sort_by(|a, b| a.path.cmp(&b.path));
        for context in &contexts {
            lines.push(format!("{context:?} {:?}", self.store.live(&context.id).await));
            lines.push(self.points_state(&context.id).await);
            for disk in self.store.disks(&context.id).await.unwrap() {
                lines.push(self.disk_state(&disk.disk).await);
                lines.push(format!("{disk:?}"));
            }
        }
        for filter in [JobFilter::default(), JobFilter { live_only: true, ..JobFilter::default() }] {
            let jobs: Vec<_> = self.store.list(filter).try_collect().await.unwrap();
            lines.push(format!("{jobs:?}"));
        }
        let volumes: Vec<_> = self.store.volumes(VolumeFilter::default()).try_collect().await.unwrap();
        let exports: Vec<_> = self.store.exports().try_collect().await.unwrap();
        let operations: Vec<_> =
            self.store.operations(OperationFilter::default()).try_collect().await.unwrap();
        lines.push(format!("{volumes:?} {exports:?} {operations:?}"));
        self.normal(lines.join("\n"))
    }

    async fn disk_state(&self, disk: &DiskRef) -> String {
        let history: Vec<_> = self.store.history(disk).try_collect().await.unwrap();
        let journal = self.store.load(disk).await.unwrap();
        let unfinished = self.store.unfinished(disk).await.unwrap();
        let mut current = Vec::new();
        for generation in 1..4 {
            current.push(self.store.current(disk, Generation(generation), &endpoint()).await.unwrap());
        }
        format!("{history:?} {journal:?} {unfinished:?} {current:?}")
    }

    /// VM ids are minted by the store: name them by their VM.
    fn normal(&self, mut text: String) -> String {
        for (number, context) in self.contexts.iter().enumerate() {
            if let Some(context) = context {
                text = text.replace(context.as_str(), &format!("vm-{number}"));
            }
        }
        text
    }
}

fn nobody() -> Lease {
    let (job, worker): (JobId, WorkerId) = (named("job", 9), named("worker", 9));
    Lease { job, worker, fence: Fence(1), expires_at: Timestamp::from_millis(0) }
}

pub(crate) fn told<T: Debug>(answer: Result<T, Error>) -> String {
    match answer {
        Ok(value) => format!("{value:?}"),
        Err(error) => format!("{:?} {:?}", error.kind(), error.retry()),
    }
}
