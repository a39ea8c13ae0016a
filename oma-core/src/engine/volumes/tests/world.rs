//! A store and a backend whose callers die, or hear nothing, at any step.

use std::collections::{HashMap, VecDeque};
use std::future::ready;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::stream::{self, BoxStream};
use futures_util::{StreamExt as _, TryStreamExt as _};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::Notify;

use super::meanwhile::{Disguises, Meanwhile};
use crate::engine::{RetryConfig, VolumeService, VolumeServices, VolumesConfig};
use crate::memory::{ManualClock, MemoryBackend, MemoryStore};
use crate::record::{
    ClaimRequest, Cleanup, CleanupEnd, CleanupFilter, CleanupNews, CleanupSpec, ContentStamp, ExportRecord,
    FailoverRecord, JobEnd, JobFilter, JobProgress, JobSpec, Lease, Operation, OperationFilter,
    OperationSpec, Orphans, ReplicationJob, RetryPolicy, SourceDisk, SourceIdentity, SourceVm, VolumeFilter,
    VolumeRecord, VolumeTag,
};
use crate::state::{ExportEvent, JobEvent, JobStatus, Wanted};
use crate::traits::{
    Access, BackendCapabilities, BlockDevice, Cleanups, ExportRegistry, Inventory, JobStore, Snapshot,
    SnapshotSpec, Volume, VolumeBackend, VolumeRegistry, VolumeSpec,
};
use crate::{
    ByteSize, CleanupId, ContextId, DiskKey, DiskRef, Endpoint, Error, ErrorKind, ExportName, FailoverJobId,
    Generation, InstanceId, InstanceUuid, JobId, OperationId, Result, Retry, Timestamp, VmPath, VolumeId,
    WorkerId,
};

/// What becomes of a call that changes a volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::engine) enum Fate {
    /// It is done and answered.
    Answered,
    /// It is not done, and nobody can tell.
    Lost,
    /// It is done, and the answer is lost.
    Unheard,
    /// It is done twice.
    Twice,
    /// It is done, and no answer ever comes.
    Silent,
    /// It is refused for ever, whether or not it is done. A mark is never refused so.
    Refused { done: bool },
}

/// How one process sees the world: it dies at its n-th step.
#[derive(Debug)]
pub(in crate::engine) struct Process {
    store: Arc<MemoryStore>,
    backend: Arc<MemoryBackend>,
    fates: Mutex<VecDeque<Fate>>,
    /// What becomes of calls of the store: only whether one is lost or unheard counts.
    store_fates: Mutex<VecDeque<Fate>>,
    weather: Arc<Weather>,
    steps: AtomicUsize,
    dies_at: usize,
    pub(in crate::engine) dead: Notify,
}

impl Process {
    pub(in crate::engine) fn new(
        store: Arc<MemoryStore>,
        backend: Arc<MemoryBackend>,
        dies_at: usize,
        fates: &[Fate],
        store_fates: &[Fate],
        weather: Arc<Weather>,
    ) -> Arc<Self> {
        let queue = |fates: &[Fate]| Mutex::new(fates.iter().copied().collect());
        let (fates, store_fates) = (queue(fates), queue(store_fates));
        let steps = AtomicUsize::new(0);
        Arc::new(Self { store, backend, fates, store_fates, weather, steps, dies_at, dead: Notify::new() })
    }

    fn listed(&self, volume: Volume) -> Option<Volume> {
        let looks = self.weather.disguises.of(volume).filter(|volume| volume.tag.is_some());
        looks.map(|volume| self.weather.seen(volume))
    }

    /// One step; none follows the last. Others may make theirs before it.
    async fn step(&self) {
        if self.weather.yields() {
            tokio::task::yield_now().await;
        }
        if self.steps.fetch_add(1, Ordering::SeqCst) >= self.dies_at {
            self.dead.notify_one();
            std::future::pending::<()>().await;
        }
    }

    async fn asked<T>(&self, answer: impl Future<Output = T>) -> T {
        self.step().await;
        let answer = answer.await;
        self.step().await;
        answer
    }

    async fn recorded<T>(&self, answer: impl Future<Output = Result<T>>) -> Result<T> {
        self.step().await;
        let fate = self.store_fates.lock().unwrap().pop_front();
        let lost = || {
            let error = Error::new(ErrorKind::Unavailable, "ask", "the store").because("no answer came");
            Err(error.with_retry(Retry::Later))
        };
        if fate == Some(Fate::Lost) {
            return lost();
        }
        if self.weather.slow.load(Ordering::SeqCst) {
            tokio::task::yield_now().await;
        }
        let answer = answer.await;
        self.step().await;
        if fate == Some(Fate::Unheard) { lost() } else { answer }
    }

    fn fate(&self) -> Fate {
        self.fates.lock().unwrap().pop_front().unwrap_or(Fate::Answered)
    }

    async fn changed<T, Fut: Future<Output = Result<T>>>(&self, change: impl Fn() -> Fut) -> Result<T> {
        self.changed_as(self.fate(), change).await
    }

    async fn changed_as<T, Fut: Future<Output = Result<T>>>(
        &self,
        fate: Fate,
        change: impl Fn() -> Fut,
    ) -> Result<T> {
        self.step().await;
        match fate {
            Fate::Lost => return Err(lost()),
            Fate::Refused { done: false } => return Err(refused(NOT_DONE)),
            _ => {}
        }
        let answer = change().await;
        self.step().await;
        match fate {
            Fate::Unheard => Err(lost()),
            Fate::Twice => change().await,
            Fate::Silent => std::future::pending().await,
            Fate::Refused { .. } => Err(refused(DONE)),
            Fate::Answered | Fate::Lost => answer,
        }
    }
}

fn lost() -> Error {
    let error = Error::new(ErrorKind::Unavailable, "ask", "the backend").because("no answer came");
    error.with_retry(Retry::Later)
}

/// Why a call is refused that was done all the same.
pub(super) const DONE: &str = "refused though it is done";

/// Why a call is refused that was not done.
pub(super) const NOT_DONE: &str = "refused, and not done";

fn refused(why: &'static str) -> Error {
    Error::new(ErrorKind::Conflict, "ask", "the backend").because(why).with_retry(Retry::Never)
}

/// Implements a trait of the store: each call is two steps.
macro_rules! watched {
    ($watched:ident { $($(#[$lint:meta])? $name:ident($($arg:ident: $ty:ty),*) -> $answer:ty;)* }
     { $($list:ident($($list_arg:ident: $list_ty:ty),*) -> $item:ty;)* }) => {
        #[async_trait]
        impl $watched for Process {
            $(async fn $name(&self, $($arg: $ty),*) -> $answer {
                self.recorded($watched::$name(&*self.store, $($arg),*)).await
            })*
            $(fn $list(&self, $($list_arg: $list_ty),*) -> BoxStream<'_, Result<$item>> {
                self.weather.lists.fetch_add(1, Ordering::SeqCst);
                if self.weather.deaf.load(Ordering::SeqCst) {
                    return stream::iter([Err(lost())]).boxed();
                }
                $watched::$list(&*self.store, $($list_arg),*)
            })*
        }
    };
}

watched! { JobStore {
    insert(spec: JobSpec) -> Result<ReplicationJob>;
    get(id: &JobId) -> Result<Option<ReplicationJob>>;
    live(context: &ContextId) -> Result<Option<ReplicationJob>>;
    claim(id: &JobId, worker: &WorkerId, ttl: Duration) -> Result<Lease>;
    claim_next(request: &ClaimRequest) -> Result<Option<Lease>>;
    renew(lease: &Lease, ttl: Duration) -> Result<Lease>;
    release(lease: &Lease) -> Result<()>;
    defer(lease: &Lease, error: &str, policy: &RetryPolicy) -> Result<ReplicationJob>;
    advance(lease: &Lease, from: JobStatus, event: JobEvent) -> Result<ReplicationJob>;
    end(lease: &Lease, end: JobEnd) -> Result<ReplicationJob>;
    want(id: &JobId, wanted: Wanted) -> Result<ReplicationJob>;
    delete(id: &JobId) -> Result<()>;
    tell_progress(lease: &Lease, progress: &JobProgress) -> Result<()>;
    progress(id: &JobId) -> Result<Option<JobProgress>>;
} {
    list(filter: JobFilter) -> ReplicationJob;
} }

watched! { VolumeRegistry {
    instance() -> Result<InstanceId>;
    begin(lease: &Lease, spec: &OperationSpec) -> Result<Operation>;
    condemn(lease: &Lease, spec: &OperationSpec, grace: Duration) -> Result<Operation>;
    execute(lease: &Lease, id: &OperationId) -> Result<Operation>;
    pardon(lease: &Lease, id: &OperationId, reason: &str) -> Result<Operation>;
    doubt(lease: &Lease, id: &OperationId, why: &str) -> Result<()>;
    operation(id: &OperationId) -> Result<Option<Operation>>;
    unfinished(disk: &DiskRef) -> Result<Option<Operation>>;
    complete(lease: &Lease, id: &OperationId, volume: &Volume, zeroed: bool) -> Result<VolumeRecord>;
    fail(lease: &Lease, id: &OperationId, error: &str) -> Result<()>;
    volume(id: &VolumeId) -> Result<Option<VolumeRecord>>;
    volume_of(disk: &DiskRef) -> Result<Option<VolumeRecord>>;
    volume_at(machine: &WorkerId, device_path: &str) -> Result<Option<VolumeRecord>>;
    mark_inconsistent(lease: &Lease, id: &VolumeId) -> Result<()>;
    keep_stamp(lease: &Lease, id: &VolumeId, stamp: &ContentStamp) -> Result<()>;
    advance_generation(lease: &Lease, id: &VolumeId) -> Result<Generation>;
    renew_generation(lease: &Lease, id: &VolumeId) -> Result<Generation>;
    distrust_zeroes(lease: &Lease, id: &VolumeId) -> Result<Generation>;
    forget(lease: &Lease, id: &VolumeId) -> Result<()>;
} {
    operations(filter: OperationFilter) -> Operation;
    volumes(filter: VolumeFilter) -> VolumeRecord;
} }

watched! { ExportRegistry {
    begin(lease: &Lease, name: &ExportName, key: &DiskKey, volume: &VolumeId) -> Result<ExportRecord>;
    advance(lease: &Lease, name: &ExportName, event: ExportEvent) -> Result<ExportRecord>;
    export(name: &ExportName) -> Result<Option<ExportRecord>>;
    remove(name: &ExportName) -> Result<()>;
} {
    exports() -> ExportRecord;
} }

watched! { Cleanups {
    insert_cleanup(spec: &CleanupSpec) -> Result<Cleanup>;
    cleanup(id: &CleanupId) -> Result<Option<Cleanup>>;
    begin_cleanup(id: &CleanupId) -> Result<Cleanup>;
    tell_step(id: &CleanupId, step: usize, news: &CleanupNews) -> Result<()>;
    end_cleanup(id: &CleanupId, end: &CleanupEnd) -> Result<Cleanup>;
    prune_cleanups(older_than: Timestamp) -> Result<u64>;
    failovers(context: &ContextId) -> Result<Vec<FailoverRecord>>;
    forget_failover(id: &FailoverJobId) -> Result<()>;
    orphans(job: &JobId, context: &ContextId) -> Result<Orphans>;
} {
    cleanups(filter: CleanupFilter) -> Cleanup;
} }

#[async_trait]
impl VolumeBackend for Process {
    fn capabilities(&self) -> BackendCapabilities {
        self.backend.capabilities()
    }

    async fn create(&self, spec: &VolumeSpec) -> Result<Volume> {
        self.changed(|| self.backend.create(spec)).await.map(|volume| self.weather.seen(volume))
    }

    async fn get(&self, id: &VolumeId) -> Result<Option<Volume>> {
        let found = self.asked(self.backend.get(id)).await?;
        Ok(found.and_then(|volume| self.weather.disguises.of(volume)).map(|volume| self.weather.seen(volume)))
    }

    fn list(&self, instance: &InstanceId) -> BoxStream<'_, Result<Volume>> {
        match self.fates.lock().unwrap().pop_front() {
            Some(Fate::Lost) => stream::iter([Err(lost())]).boxed(),
            _ => self.backend.list(instance).try_filter_map(|volume| ready(Ok(self.listed(volume)))).boxed(),
        }
    }

    async fn retag(&self, id: &VolumeId, tag: &VolumeTag) -> Result<()> {
        let fate = match self.fate() {
            Fate::Refused { done: false } => Fate::Lost,
            Fate::Refused { done: true } => Fate::Unheard,
            fate => fate,
        };
        self.changed_as(fate, || self.backend.retag(id, tag)).await
    }

    async fn attach(&self, id: &VolumeId, tag: &VolumeTag) -> Result<Volume> {
        self.changed(|| self.backend.attach(id, tag)).await.map(|volume| self.weather.seen(volume))
    }

    async fn detach(&self, id: &VolumeId, tag: &VolumeTag) -> Result<Volume> {
        self.changed(|| self.backend.detach(id, tag)).await.map(|volume| self.weather.seen(volume))
    }

    async fn open(&self, id: &VolumeId, tag: &VolumeTag, access: Access) -> Result<Arc<dyn BlockDevice>> {
        self.backend.open(id, tag, access).await
    }

    async fn resize(&self, id: &VolumeId, tag: &VolumeTag, capacity: ByteSize) -> Result<Volume> {
        self.changed(|| self.backend.resize(id, tag, capacity)).await.map(|volume| self.weather.seen(volume))
    }

    async fn content_stamp(&self, id: &VolumeId) -> Result<Option<ContentStamp>> {
        self.backend.content_stamp(id).await
    }

    async fn delete(&self, id: &VolumeId, tag: &VolumeTag) -> Result<()> {
        self.changed(|| self.backend.delete(id, tag)).await
    }

    async fn snapshot(&self, spec: &SnapshotSpec) -> Result<Snapshot> {
        self.changed(|| self.backend.snapshot(spec)).await
    }

    fn snapshots(&self, volume: &VolumeId) -> BoxStream<'_, Result<Snapshot>> {
        if self.weather.mute.load(Ordering::SeqCst) {
            return stream::pending().boxed();
        }
        let volume = volume.clone();
        let listed = async move {
            self.weather.meanwhile.happens().await;
            self.backend.snapshots(&volume)
        };
        stream::once(listed).flatten().boxed()
    }

    async fn open_snapshot(&self, spec: &SnapshotSpec) -> Result<Arc<dyn BlockDevice>> {
        self.backend.open_snapshot(spec).await
    }

    async fn revert(&self, id: &VolumeId, tag: &VolumeTag, snapshot: &SnapshotSpec) -> Result<Volume> {
        self.changed(|| self.backend.revert(id, tag, snapshot)).await.map(|volume| self.weather.seen(volume))
    }

    async fn delete_snapshot(&self, spec: &SnapshotSpec) -> Result<()> {
        self.changed(|| self.backend.delete_snapshot(spec)).await
    }
}

/// What befalls every process.
#[derive(Debug, Default)]
pub(in crate::engine) struct Weather {
    /// Whether the backend never lists a snapshot, nor that there is none.
    pub(in crate::engine) mute: AtomicBool,
    /// Whether the store lists nothing.
    pub(in crate::engine) deaf: AtomicBool,
    /// Whether the store takes its time.
    pub(in crate::engine) slow: AtomicBool,
    /// How often the store was asked for a list.
    pub(in crate::engine) lists: AtomicUsize,
    /// Where the backend believes that attached volumes are, if not where they are.
    pub(in crate::engine) devices: Mutex<HashMap<VolumeId, String>>,
    pub(in crate::engine) meanwhile: Meanwhile,
    pub(in crate::engine) disguises: Disguises,
    /// Before which steps another process may make its own, over and over; none when empty.
    pub(super) turns: Mutex<VecDeque<bool>>,
}

impl Weather {
    fn yields(&self) -> bool {
        let mut turns = self.turns.lock().unwrap();
        let turn = turns.pop_front();
        turns.extend(turn);
        turn.unwrap_or(false)
    }

    fn seen(&self, volume: Volume) -> Volume {
        let elsewhere = self.devices.lock().unwrap().get(&volume.id).cloned();
        let device_path = volume.device_path.map(|path| elsewhere.unwrap_or(path));
        Volume { device_path, ..volume }
    }
}

/// What outlives every process.
#[derive(Debug)]
pub(in crate::engine) struct World {
    pub(in crate::engine) store: Arc<MemoryStore>,
    pub(in crate::engine) backend: Arc<MemoryBackend>,
    pub(in crate::engine) clock: Arc<ManualClock>,
    pub(in crate::engine) weather: Arc<Weather>,
}

impl World {
    pub(in crate::engine) fn new() -> Self {
        let clock = Arc::new(ManualClock::new(Timestamp::from_millis(1_700_000_000_000)));
        let store = Arc::new(MemoryStore::new(clock.clone()));
        Self { store, backend: Arc::new(MemoryBackend::new()), clock, weather: Arc::default() }
    }

    /// The disk of a VM of this name that is known and has no volume.
    pub(in crate::engine) fn disk(&self, name: &str) -> DiskRef {
        self.record(name, name)
    }

    /// Its source calls a VM something else.
    pub(in crate::engine) fn rename(&self, name: &str, to: &str) {
        self.record(name, to);
    }

    fn record(&self, known: &str, name: &str) -> DiskRef {
        let key = DiskKey::parse("disk-2000").unwrap();
        let disk = SourceDisk {
            key: key.clone(),
            label: String::new(),
            location: format!("[store] {name}.vmdk"),
            capacity: ByteSize::mib(1),
            unit_number: None,
        };
        let path = VmPath::parse(format!("/DC/vm/{name}")).unwrap();
        let identity = SourceIdentity {
            instance_uuid: InstanceUuid::from_path(&VmPath::parse(format!("/DC/vm/{known}")).unwrap()),
            endpoint: Endpoint::parse("vcenter").unwrap(),
        };
        let vm = SourceVm { identity, name: name.to_owned(), path, disks: vec![disk] };
        let context = paused().block_on(self.store.record(&vm)).unwrap();
        DiskRef { context: context.id, key }
    }

    /// A process that lives until it is done, or dies at its n-th step; `None` when it died.
    pub(in crate::engine) fn live<T, Fut: Future<Output = T>>(
        &self,
        worker: &str,
        dies_at: usize,
        fates: &[Fate],
        life: impl FnOnce(VolumeService) -> Fut,
    ) -> Option<T> {
        self.live_on(worker, dies_at, [fates, &[]], life)
    }

    /// The same; the store, too, does not answer every call.
    pub(super) fn live_on<T, Fut: Future<Output = T>>(
        &self,
        worker: &str,
        dies_at: usize,
        fates: [&[Fate]; 2],
        life: impl FnOnce(VolumeService) -> Fut,
    ) -> Option<T> {
        self.live_with(worker, dies_at, fates, |service, _| life(service))
    }

    /// The same, of who looks at more of the store than volumes.
    pub(in crate::engine) fn live_with<T, Fut: Future<Output = T>>(
        &self,
        worker: &str,
        dies_at: usize,
        [fates, store_fates]: [&[Fate]; 2],
        life: impl FnOnce(VolumeService, Arc<Process>) -> Fut,
    ) -> Option<T> {
        // What was spawned dies with the runtime.
        paused().block_on(self.lived(worker, dies_at, [fates, store_fates], life))
    }

    /// A life in a runtime that others live in, too. What it spawned makes no step any more once it died.
    pub(super) async fn lived<T, Fut: Future<Output = T>>(
        &self,
        worker: &str,
        dies_at: usize,
        [fates, store_fates]: [&[Fate]; 2],
        life: impl FnOnce(VolumeService, Arc<Process>) -> Fut,
    ) -> Option<T> {
        let (store, backend) = (self.store.clone(), self.backend.clone());
        let process = Process::new(store, backend, dies_at, fates, store_fates, self.weather.clone());
        let services =
            VolumeServices { jobs: process.clone(), volumes: process.clone(), backend: process.clone() };
        let worker = WorkerId::parse(worker).unwrap();
        let service = VolumeService::with_clock(services, worker, CONFIG, self.clock.clone());
        tokio::select! {
            biased;
            () = process.dead.notified() => None,
            done = life(service, process.clone()) => Some(done),
        }
    }
}

pub(in crate::engine) const CONFIG: VolumesConfig = VolumesConfig {
    lease: Duration::from_secs(30),
    answer_limit: Duration::from_secs(60),
    grace: Duration::from_secs(3600),
    retry: RetryConfig {
        attempts: 2,
        first_pause: Duration::from_millis(10),
        longest_pause: Duration::from_millis(20),
    },
    doubt_pause: Duration::from_secs(1),
};

pub(in crate::engine) fn paused() -> Runtime {
    Builder::new_current_thread().enable_time().start_paused(true).build().unwrap()
}
