//! Appliances that share a store and a cloud: each sees the disks of its own machine only.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use futures_util::TryStreamExt as _;
use futures_util::stream::BoxStream;

use super::world::{CONFIG, paused};
use super::*;
use crate::engine::{Recovered, VolumeServices};
use crate::memory::MemoryBackend;
use crate::record::{ContentStamp, JobEnd, VolumeRecord, VolumeTag};
use crate::state::VolumeStatus;
use crate::traits::{
    Access, BackendCapabilities, BlockDevice, JobStore, Snapshot, SnapshotSpec, Volume, VolumeBackend,
    VolumeRegistry, VolumeSpec,
};
use crate::{Error, ErrorKind, InstanceId, Result, Retry, VolumeId, WorkerId};

/// What becomes of a call that attaches or detaches.
#[derive(Clone, Copy, Debug)]
enum Answer {
    /// It is not done, and nobody can tell.
    Lost,
    /// It is done, and the answer is lost.
    Unheard,
    /// It is not done, and never answered.
    Silent,
    /// It is refused, and nothing is done.
    Refused(ErrorKind),
}

/// What the cloud knows, for all machines.
#[derive(Debug, Default)]
struct Cloud {
    /// The machine that each attached volume is at.
    places: Mutex<HashMap<VolumeId, String>>,
    answers: Mutex<VecDeque<Answer>>,
    /// Machines whose guest does not see what is attached to them.
    blind: Mutex<Vec<String>>,
}

/// The cloud as one machine sees it.
#[derive(Debug)]
struct Machine {
    name: String,
    cloud: Arc<Cloud>,
    backend: Arc<MemoryBackend>,
}

impl Machine {
    fn place(&self, id: &VolumeId) -> Option<String> {
        self.cloud.places.lock().unwrap().get(id).cloned()
    }

    fn seen(&self, volume: Volume) -> Volume {
        let is_here = self.place(&volume.id).as_deref() == Some(&self.name);
        let is_seen = is_here && !self.cloud.blind.lock().unwrap().contains(&self.name);
        Volume { device_path: volume.device_path.filter(|_| is_seen), ..volume }
    }

    /// Refuses what is attached to another machine, as the cloud does.
    fn here_or_nowhere(&self, id: &VolumeId) -> Result<()> {
        match self.place(id).filter(|place| *place != self.name) {
            Some(place) => {
                let error = Error::new(ErrorKind::Conflict, "change volume", id);
                Err(error.because(format!("it is attached to machine {place}")))
            }
            None => Ok(()),
        }
    }

    async fn answered<T, Fut: Future<Output = Result<T>>>(
        &self,
        id: &VolumeId,
        change: impl FnOnce() -> Fut,
    ) -> Result<T> {
        let answer = self.cloud.answers.lock().unwrap().pop_front();
        let error = |kind| Error::new(kind, "change volume", id).because("so it was planned");
        let lost = || Err(error(ErrorKind::Unavailable).with_retry(Retry::Later));
        match answer {
            None => change().await,
            Some(Answer::Lost) => lost(),
            Some(Answer::Unheard) => {
                change().await?;
                lost()
            }
            Some(Answer::Silent) => std::future::pending().await,
            Some(Answer::Refused(kind)) => Err(error(kind)),
        }
    }
}

#[async_trait]
impl VolumeBackend for Machine {
    fn capabilities(&self) -> BackendCapabilities {
        self.backend.capabilities()
    }

    async fn create(&self, spec: &VolumeSpec) -> Result<Volume> {
        self.backend.create(spec).await
    }

    async fn get(&self, id: &VolumeId) -> Result<Option<Volume>> {
        Ok(self.backend.get(id).await?.map(|volume| self.seen(volume)))
    }

    fn list(&self, instance: &InstanceId) -> BoxStream<'_, Result<Volume>> {
        Box::pin(self.backend.list(instance).map_ok(|volume| self.seen(volume)))
    }

    async fn retag(&self, id: &VolumeId, tag: &VolumeTag) -> Result<()> {
        self.backend.retag(id, tag).await
    }

    async fn attach(&self, id: &VolumeId, tag: &VolumeTag) -> Result<Volume> {
        let attach = async || {
            self.here_or_nowhere(id)?;
            let volume = self.backend.attach(id, tag).await?;
            self.cloud.places.lock().unwrap().insert(id.clone(), self.name.clone());
            Ok(self.seen(volume))
        };
        self.answered(id, attach).await
    }

    async fn detach(&self, id: &VolumeId, tag: &VolumeTag) -> Result<Volume> {
        let detach = async || {
            self.here_or_nowhere(id)?;
            let volume = self.backend.detach(id, tag).await?;
            self.cloud.places.lock().unwrap().remove(id);
            Ok(volume)
        };
        self.answered(id, detach).await
    }

    async fn open(&self, id: &VolumeId, tag: &VolumeTag, access: Access) -> Result<Arc<dyn BlockDevice>> {
        self.backend.open(id, tag, access).await
    }

    async fn resize(&self, id: &VolumeId, tag: &VolumeTag, capacity: ByteSize) -> Result<Volume> {
        Ok(self.seen(self.backend.resize(id, tag, capacity).await?))
    }

    async fn content_stamp(&self, id: &VolumeId) -> Result<Option<ContentStamp>> {
        self.backend.content_stamp(id).await
    }

    async fn delete(&self, id: &VolumeId, tag: &VolumeTag) -> Result<()> {
        self.here_or_nowhere(id)?;
        self.backend.delete(id, tag).await
    }

    async fn snapshot(&self, spec: &SnapshotSpec) -> Result<Snapshot> {
        self.backend.snapshot(spec).await
    }

    fn snapshots(&self, volume: &VolumeId) -> BoxStream<'_, Result<Snapshot>> {
        self.backend.snapshots(volume)
    }

    async fn open_snapshot(&self, spec: &SnapshotSpec) -> Result<Arc<dyn BlockDevice>> {
        self.backend.open_snapshot(spec).await
    }

    async fn revert(&self, id: &VolumeId, tag: &VolumeTag, snapshot: &SnapshotSpec) -> Result<Volume> {
        Ok(self.seen(self.backend.revert(id, tag, snapshot).await?))
    }

    async fn delete_snapshot(&self, spec: &SnapshotSpec) -> Result<()> {
        self.backend.delete_snapshot(spec).await
    }
}

/// A volume that appliances `a` and `b` can reach.
struct Shared {
    world: World,
    cloud: Arc<Cloud>,
    disk: DiskRef,
}

impl Shared {
    /// After these changes by `a`.
    fn after(changes: &[VolumeChange]) -> Self {
        let world = World::new();
        let disk = world.disk("web");
        let this = Self { world, cloud: Arc::default(), disk };
        this.live("a", async |service| {
            for change in [create()].iter().chain(changes) {
                let ended = done(&service, &request(&this.disk, change.clone())).await;
                assert_eq!(ended.status, OperationStatus::Completed, "{ended:?}");
            }
        });
        this
    }

    /// What is under way at its end dies.
    fn live<T, Fut: Future<Output = T>>(&self, name: &str, life: impl FnOnce(VolumeService) -> Fut) -> T {
        let World { store, backend, clock, .. } = &self.world;
        let machine = Machine { name: name.into(), cloud: self.cloud.clone(), backend: backend.clone() };
        let services =
            VolumeServices { jobs: store.clone(), volumes: store.clone(), backend: Arc::new(machine) };
        let worker = WorkerId::parse(name).unwrap();
        let service = VolumeService::with_clock(services, worker, CONFIG, clock.clone());
        paused().block_on(life(service))
    }

    fn answers(&self, answers: &[Answer]) {
        self.cloud.answers.lock().unwrap().extend(answers);
    }

    /// `a` asks for it, and ends while nobody knows what became of it.
    fn left_by_a(&self, change: &VolumeChange, end: End) -> OperationId {
        let request = request(&self.disk, change.clone());
        self.live("a", async |service| {
            service.submit(request.clone()).await.unwrap();
            tokio::time::sleep(CONFIG.doubt_pause / 2).await;
            if let End::Stopped = end {
                service.shutdown().await;
                let left = service.wait(&request.id, LONG);
                let left = tokio::time::timeout(CONFIG.doubt_pause, left).await.unwrap().unwrap();
                assert_eq!(left.status, OperationStatus::Executing);
            }
        });
        self.world.clock.advance(CONFIG.lease * 2);
        request.id
    }

    fn recorded(&self) -> VolumeRecord {
        paused().block_on(self.world.store.volume_of(&self.disk)).unwrap().unwrap()
    }

    fn operation(&self, id: &OperationId) -> Operation {
        paused().block_on(self.world.store.operation(id)).unwrap().unwrap()
    }

    fn place(&self) -> Option<String> {
        self.cloud.places.lock().unwrap().values().next().cloned()
    }

    /// It takes up everything that it may.
    fn recovers(&self, name: &str) -> Recovered {
        self.live(name, async |service| {
            let recovered = service.recover().await.unwrap();
            for id in &recovered.resumed {
                service.wait(id, LONG).await.unwrap();
            }
            recovered
        })
    }
}

/// How a process ends.
#[derive(Clone, Copy, Debug)]
enum End {
    Killed,
    Stopped,
}

const ENDS: [End; 2] = [End::Killed, End::Stopped];
const LOST: [Answer; 3] = [Answer::Lost, Answer::Unheard, Answer::Silent];

#[test]
fn l21_a_detach_that_another_machine_left_is_not_said_to_be_done_where_nobody_can_see() {
    for (end, answer) in ENDS.iter().flat_map(|end| LOST.map(|answer| (*end, answer))) {
        let shared = Shared::after(&[VolumeChange::Attach]);
        let before = shared.recorded();
        shared.answers(&[answer; 2]);
        let id = shared.left_by_a(&VolumeChange::Detach, end);
        shared.cloud.answers.lock().unwrap().clear();
        shared.recovers("b");
        assert_eq!(shared.operation(&id).status, OperationStatus::Executing, "{end:?} {answer:?}");
        assert_eq!(shared.recorded(), before, "{end:?} {answer:?}");
        shared.recovers("a");
        assert_eq!(shared.operation(&id).status, OperationStatus::Completed, "{end:?} {answer:?}");
        assert_eq!((shared.recorded().status, shared.place()), (VolumeStatus::Detached, None));
        shared.world.assert_whole();
    }
}

#[test]
fn l15_an_attach_that_another_machine_left_is_finished_there() {
    for (end, answer) in ENDS.iter().flat_map(|end| LOST.map(|answer| (*end, answer))) {
        let shared = Shared::after(&[]);
        shared.answers(&[answer; 2]);
        let id = shared.left_by_a(&VolumeChange::Attach, end);
        shared.cloud.answers.lock().unwrap().clear();
        shared.recovers("b");
        assert_eq!(shared.operation(&id).status, OperationStatus::Executing, "{end:?} {answer:?}");
        assert_ne!(shared.place().as_deref(), Some("b"), "{end:?} {answer:?}");
        shared.recovers("a");
        assert_eq!(shared.operation(&id).status, OperationStatus::Completed, "{end:?} {answer:?}");
        assert_eq!(shared.recorded().attached_to, Some(WorkerId::parse("a").unwrap()));
        assert_eq!(shared.place().as_deref(), Some("a"));
        shared.world.assert_whole();
    }
}

/// As an operator does who cancels it while its owner is dead.
#[test]
fn l21_an_attach_whose_job_was_ended_by_another_machine_is_finished_where_it_was_begun() {
    for answer in LOST {
        let shared = Shared::after(&[]);
        shared.answers(&[answer; 2]);
        let id = shared.left_by_a(&VolumeChange::Attach, End::Killed);
        shared.cloud.answers.lock().unwrap().clear();
        let (job, b) = (shared.operation(&id).spec.job, WorkerId::parse("b").unwrap());
        paused().block_on(async {
            let lease = shared.world.store.claim(&job, &b, CONFIG.lease).await.unwrap();
            shared.world.store.end(&lease, JobEnd::Cancelled("its host is dead".to_owned())).await.unwrap();
        });
        assert_eq!(shared.recovers("b").resumed, [], "{answer:?}");
        assert_eq!(shared.operation(&id).status, OperationStatus::Executing, "{answer:?}");
        shared.recovers("a");
        assert_eq!(shared.operation(&id).status, OperationStatus::Completed, "{answer:?}");
        assert_eq!(shared.recorded().attached_to, Some(WorkerId::parse("a").unwrap()));
        shared.world.assert_whole();
    }
}

#[test]
fn what_is_of_no_machine_is_finished_by_any_of_them() {
    let shared = Shared::after(&[]);
    shared.world.backend.disconnect();
    let id = shared.left_by_a(&VolumeChange::Resize { capacity: ByteSize::mib(2) }, End::Killed);
    shared.world.backend.reconnect();
    assert_eq!(shared.recovers("b").resumed, std::slice::from_ref(&id));
    assert_eq!(shared.operation(&id).status, OperationStatus::Completed);
    shared.world.assert_whole();
}

#[test]
fn l21_a_detach_that_is_refused_is_not_done_because_the_disk_cannot_be_seen() {
    for kind in [ErrorKind::Conflict, ErrorKind::Busy, ErrorKind::PermissionDenied] {
        let shared = Shared::after(&[VolumeChange::Attach]);
        let before = shared.recorded();
        shared.answers(&[Answer::Lost; 2]);
        let id = shared.left_by_a(&VolumeChange::Detach, End::Killed);
        shared.cloud.blind.lock().unwrap().push("a".to_owned());
        shared.answers(&[Answer::Refused(kind)]);
        shared.recovers("a");
        let ended = shared.operation(&id);
        assert_eq!(ended.status, OperationStatus::Failed, "{ended:?}");
        assert_eq!((shared.recorded(), shared.place().as_deref()), (before, Some("a")));
    }
}

#[test]
fn l05_an_attach_whose_disk_was_refused_is_not_done_because_there_is_a_disk() {
    for kind in [ErrorKind::Busy, ErrorKind::PermissionDenied] {
        let shared = Shared::after(&[]);
        let before = shared.recorded();
        shared.answers(&[Answer::Unheard; 2]);
        let id = shared.left_by_a(&VolumeChange::Attach, End::Killed);
        shared.answers(&[Answer::Refused(kind)]);
        shared.recovers("a");
        let ended = shared.operation(&id);
        assert_eq!(ended.status, OperationStatus::Failed, "{ended:?}");
        assert_eq!(shared.recorded(), before);
    }
}

#[test]
fn what_a_machine_that_never_comes_back_left_is_abandoned_by_another() {
    for (before, change) in [(&[][..], VolumeChange::Attach), (&[VolumeChange::Attach], VolumeChange::Detach)]
    {
        let shared = Shared::after(before);
        shared.answers(&[Answer::Silent]);
        let id = shared.left_by_a(&change, End::Killed);
        shared.recovers("b");
        shared.live("b", async |service| {
            let ended = service.abandon(&id, "its host burnt down").await.unwrap();
            assert_eq!(ended.status, OperationStatus::Failed, "{ended:?}");
            assert!(ended.error.unwrap().contains("worker a"));
        });
        shared.world.assert_idle();
    }
}

#[test]
fn what_the_backend_refuses_for_ever_with_a_promise_is_abandoned_once_it_had_its_time() {
    let shared = Shared::after(&[VolumeChange::Attach]);
    shared.answers(&[Answer::Lost; 1000]);
    let detach = request(&shared.disk, VolumeChange::Detach);
    shared.live("a", async |service| {
        service.submit(detach.clone()).await.unwrap();
        tokio::time::sleep(CONFIG.doubt_pause * 3).await;
        let early = service.abandon(&detach.id, "the guest never lets go").await.unwrap_err();
        assert_eq!(early.kind(), ErrorKind::Conflict);
        assert!(early.chain().contains("the backend answers"), "{}", early.chain());
        assert!(service.driven().has(&detach.id), "it goes on");
        shared.world.clock.advance(CONFIG.answer_limit);
        let ended = service.abandon(&detach.id, "the guest never lets go").await.unwrap();
        assert_eq!(ended.status, OperationStatus::Failed, "{ended:?}");
    });
    shared.world.assert_whole();
    assert_eq!(shared.place().as_deref(), Some("a"));
}

#[test]
fn l05_a_volume_that_an_administrator_attached_to_another_machine_is_neither_detached_nor_deleted() {
    for before in [&[][..], &[VolumeChange::Attach]] {
        let shared = Shared::after(before);
        let recorded = shared.recorded();
        shared.cloud.places.lock().unwrap().insert(recorded.id.clone(), "db-server".to_owned());
        shared.live("a", async |service| {
            if recorded.status == VolumeStatus::Attached {
                let detached = done(&service, &request(&shared.disk, VolumeChange::Detach)).await;
                assert_eq!(detached.status, OperationStatus::Failed, "{detached:?}");
                let refused = service.submit(request(&shared.disk, VolumeChange::Delete)).await.unwrap_err();
                assert_eq!(refused.kind(), ErrorKind::Conflict);
            } else {
                let deleted = done(&service, &request(&shared.disk, VolumeChange::Delete)).await;
                assert_eq!(deleted.status, OperationStatus::Failed, "{deleted:?}");
                assert!(deleted.error.unwrap().contains("db-server"));
            }
        });
        assert_eq!(shared.place().as_deref(), Some("db-server"));
        assert!(shared.world.backend.device(&recorded.id).is_some());
        assert_eq!(shared.recorded().id, recorded.id);
    }
}
