mod bad_sources;
mod compared;
mod epochs;
mod explained;
mod foreign;
mod fragile;
mod growth;
mod hung;
mod interrupted;
mod known;
mod limited;
mod point_service;
mod points;
mod pushed;
mod repair;
mod resumed;
mod reverts;
mod sequences;
mod shaky;
mod shrunk;

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::TryStreamExt;

use self::fragile::Fragile;
use super::*;
use crate::engine::config::VerifyLevel;
use crate::engine::progress::Silent;
use crate::engine::{RetryConfig, VerifyRequest, cancel, tree_root, verify};
use crate::memory::{
    ManualClock, MemoryBackend, MemoryDevice, MemoryExportServer, MemorySource, MemoryStore,
};
use crate::record::{DiskRecord, VolumeTag};
use crate::record::{JobFilter, SampleSize, VolumeContent, VolumeRecord};
use crate::state::{ContextStatus, DiskStatus, JobStatus};
use crate::traits::{Access, DiskSource, ExportServer, ReportStore, VolumeBackend};
use crate::traits::{BlockDevice, Durability, ExportRegistry, Inventory, JobStore, VolumeRegistry};
use crate::tree::LEAF;
use crate::{ByteSize, ChangeId, Endpoint, Epoch, Extent, InstanceId, Retry, Timestamp, VmPath};

const CAPACITY: ByteSize = ByteSize::mib(4);

/// A whole appliance in memory. Everything but the replicator survives a crash.
struct World {
    clock: Arc<ManualClock>,
    store: Arc<MemoryStore>,
    source: Arc<MemorySource>,
    backend: Arc<MemoryBackend>,
    journal: Arc<Fragile>,
    config: ReplicateConfig,
    vm: VmPath,
}

impl World {
    /// A VM with these disks, each with some data.
    async fn new(keys: &[&str]) -> Self {
        let world = Self::empty(keys, CAPACITY);
        for key in keys {
            world.write(key, 0, 1_000_000, 1).await;
            world.write(key, 2 << 20, 300_000, 2).await;
        }
        world
    }

    /// A VM with disks of this size on which nothing was written.
    fn empty(keys: &[&str], capacity: ByteSize) -> Self {
        let clock = Arc::new(ManualClock::new(Timestamp::from_millis(1_700_000_000_000)));
        let store = Arc::new(MemoryStore::new(clock.clone()));
        let world = Self {
            journal: Fragile::new(store.clone()),
            store,
            clock,
            source: Arc::new(MemorySource::new(Endpoint::parse("vcenter").unwrap())),
            backend: Arc::new(MemoryBackend::new()),
            config: ReplicateConfig {
                piece: ByteSize::kib(64),
                journal_step: ByteSize::kib(512),
                retry: RetryConfig { attempts: 2, first_pause: Duration::ZERO, ..RetryConfig::default() },
                ..ReplicateConfig::default()
            },
            vm: VmPath::parse("/DC/vm/web").unwrap(),
        };
        for key in keys {
            world.source.add_disk(&world.vm, &self::key(key), capacity);
        }
        world
    }

    /// The appliance after a restart: another export server, the same records and volumes.
    fn services(&self) -> (Services, Arc<MemoryExportServer>) {
        let server = Arc::new(MemoryExportServer::new());
        let (source, backend) = (self.source.clone(), self.backend.clone());
        let services = Services::new(self.store.clone(), source, backend, server.clone());
        (Services { journal: self.journal.clone(), ..services }, server)
    }

    async fn run_as(&self, request: &ReplicateRequest, progress: &dyn Progress) -> Result<Report> {
        self.clock.advance(Duration::from_secs(1));
        let (services, server) = self.services();
        let replicator = Replicator::new(services, worker("appliance"), self.config);
        let result = replicator.run(request, progress, &CancellationToken::new()).await;
        let left: Vec<_> = server.list().try_collect().await.unwrap();
        assert!(left.is_empty(), "still served: {left:?}");
        result
    }

    /// Lets a thread each move the pieces of these disks, as between devices of one machine.
    fn use_in_place(&self, keys: &[&str]) {
        for key in keys.iter().map(|key| self::key(key)) {
            self.source.faults(&key).pass_in_place();
            self.backend.faults(&key).pass_in_place();
        }
    }

    /// Waits until no thread of a run that is over has a volume any more.
    async fn until_left(&self) {
        let Some(context) = self.store.by_path(&self.vm).await.unwrap() else { return };
        for record in self.store.disks(&context.id).await.unwrap() {
            self.backend.faults(&record.disk.key).until_unused().await;
        }
    }

    async fn run(&self) -> Report {
        self.run_as(&self.request(), &Silent).await.unwrap()
    }

    fn request(&self) -> ReplicateRequest {
        ReplicateRequest::new(self.vm.clone())
    }

    async fn write(&self, disk: &str, offset: u64, length: usize, seed: u8) {
        let data: Vec<u8> = (0..length).map(|at| u8::try_from(at % 250).unwrap() ^ seed | 1).collect();
        let device = self.source.disk(&self.vm, &key(disk)).unwrap();
        device.write_at(offset, Bytes::from(data), Durability::Cached).await.unwrap();
    }

    async fn disks(&self) -> Vec<DiskRecord> {
        let context = self.store.by_path(&self.vm).await.unwrap().unwrap();
        self.store.disks(&context.id).await.unwrap()
    }

    /// The record of a disk, if there is one yet.
    async fn disk(&self, disk: &str) -> Option<DiskRecord> {
        let context = self.store.by_path(&self.vm).await.unwrap()?;
        self.store.disks(&context.id).await.unwrap().into_iter().find(|record| record.disk.key == key(disk))
    }

    async fn change_ids(&self) -> Vec<Option<ChangeId>> {
        self.disks().await.into_iter().map(|disk| disk.change_id).collect()
    }

    async fn volume(&self, disk: &str) -> VolumeRecord {
        let record = self.disks().await.into_iter().find(|record| record.disk.key == key(disk)).unwrap();
        self.store.volume_of(&record.disk).await.unwrap().unwrap()
    }

    async fn target(&self, disk: &str) -> MemoryDevice {
        self.backend.device(&self.volume(disk).await.id).unwrap()
    }

    /// Source and target are byte for byte equal, and the epoch is committed.
    async fn assert_replicated(&self, epoch: u64) {
        for record in self.disks().await {
            let disk = record.disk.key.as_str();
            let source = self.source.disk(&self.vm, &record.disk.key).unwrap();
            assert!(source.bytes() == self.target(disk).await.bytes(), "{disk} differs");
            assert_eq!((record.epoch, record.status), (Epoch(epoch), DiskStatus::Completed), "{disk}");
            assert_eq!(self.volume(disk).await.content, VolumeContent::Epoch(Epoch(epoch)));
        }
        assert!(self.source.points().is_empty(), "points in time are left at the source");
        let exports: Vec<_> = self.store.exports().try_collect().await.unwrap();
        assert!(exports.is_empty(), "{exports:?}");
    }

    /// As [`World::assert_replicated`], after a crash that may have come between the commit and the release of the
    /// source's point in time.
    async fn assert_consistent(&self, epoch: u64) {
        assert!(self.source.points().len() <= 1);
        self.source.forget_points();
        self.assert_replicated(epoch).await;
    }

    async fn jobs(&self) -> Vec<ReplicationJob> {
        self.store.list(JobFilter::default()).try_collect().await.unwrap()
    }
}

fn key(text: &str) -> DiskKey {
    DiskKey::parse(text).unwrap()
}

fn worker(text: &str) -> WorkerId {
    WorkerId::parse(text).unwrap()
}

fn failure(report: &Report) -> &Error {
    match &report.outcome {
        Outcome::Failed(error) => error,
        other => panic!("{other:?} where a failure was expected"),
    }
}

/// Acts once, when the engine tells of the `nth` event that is named so; 0 counts every event.
struct Acting<F> {
    event: &'static str,
    left: AtomicUsize,
    act: F,
}

impl<F: Fn() + Send + Sync> Acting<F> {
    fn at(event: &'static str, nth: usize, act: F) -> Self {
        Self { event, left: AtomicUsize::new(nth), act }
    }
}

impl<F> std::fmt::Debug for Acting<F> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "at {} {:?}", self.event, self.left)
    }
}

impl<F: Fn() + Send + Sync> Progress for Acting<F> {
    fn event(&self, event: Event<'_>) {
        let name = match event {
            Event::Job { .. } => "job".to_owned(),
            Event::StepBegins(step) => format!("begins {step}"),
            Event::StepEnded(step) => format!("ended {step}"),
            Event::Planned { .. } => "planned".to_owned(),
            Event::Compared { .. } => "compared".to_owned(),
            Event::Copied { .. } => "copied".to_owned(),
            Event::Recorded { .. } => "recorded".to_owned(),
            Event::Warning(_) => "warning".to_owned(),
        };
        if (self.event == "any" || self.event == name) && self.left.fetch_sub(1, Ordering::SeqCst) == 1 {
            (self.act)();
        }
    }
}

/// Keeps the notes of plans.
#[derive(Debug, Default)]
struct Notes(Mutex<String>);

impl Notes {
    fn text(&self) -> String {
        self.0.lock().unwrap().clone()
    }
}

impl Progress for Notes {
    fn event(&self, event: Event<'_>) {
        if let Event::Planned { note: Some(note), .. } = event {
            self.0.lock().unwrap().push_str(note);
        }
    }
}

/// The answer of a call on something in memory, which never waits.
fn now<T>(call: impl Future<Output = T>) -> T {
    futures_util::FutureExt::now_or_never(call).expect("memory answers at once")
}

fn damage(world: &World, offset: u64) {
    let device = now(world.target("disk-2000"));
    now(device.write_at(offset, Bytes::from_static(b"flipped"), Durability::Cached)).unwrap();
}
