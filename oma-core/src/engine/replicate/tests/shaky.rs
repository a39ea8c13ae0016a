//! A backend and records whose calls about recovery points fail, lose their answer, or are the last of a process.

use std::sync::atomic::AtomicBool;

use async_trait::async_trait;
use futures_util::StreamExt as _;
use futures_util::stream::BoxStream;

use super::*;
use crate::record::{ContentStamp, Needless, RecoveryPoint, RecoveryPointSpec};
use crate::traits::{BackendCapabilities, RecoveryPoints, Snapshot, SnapshotSpec, Volume, VolumeSpec};
use crate::{ContextId, RecoveryPointId, VolumeId};

/// What happens at a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Trouble {
    /// The process dies.
    Death,
    /// The call fails; when it was done, its answer is lost. Trying again helps.
    Hiccup,
    /// The same, and trying again does not help.
    Failure,
}

/// Counts the moments before and after each call; one of them is trouble.
#[derive(Debug)]
pub(super) struct Moments {
    left: AtomicUsize,
    trouble: Trouble,
}

impl Moments {
    pub(super) fn new(nth: usize, trouble: Trouble) -> Arc<Self> {
        Arc::new(Self { left: AtomicUsize::new(nth), trouble })
    }

    /// Whether the moment has come.
    pub(super) fn has_come(&self) -> bool {
        self.left.load(Ordering::SeqCst) == 0
    }

    fn pass(&self, call: &'static str) -> Result<()> {
        if self.has_come() || self.left.fetch_sub(1, Ordering::SeqCst) > 1 {
            return Ok(());
        }
        let error = Error::new(ErrorKind::Unavailable, call, "a fault was injected here");
        match self.trouble {
            Trouble::Death => std::panic::resume_unwind(Box::new("killed")),
            Trouble::Hiccup => Err(error.with_retry(Retry::Later)),
            Trouble::Failure => Err(error),
        }
    }

    async fn around<T: Send>(
        &self,
        name: &'static str,
        call: impl Future<Output = Result<T>> + Send,
    ) -> Result<T> {
        self.pass(name)?;
        let answer = call.await;
        self.pass(name)?;
        answer
    }
}

/// Services of a world with trouble.
pub(super) fn troubled(world: &World, moments: &Arc<Moments>) -> Services {
    let (services, _) = world.services();
    let backend = ShakyBackend {
        inner: world.backend.clone(),
        moments: moments.clone(),
        flips: None,
        stamped: None,
        refuses: None,
    };
    let points =
        ShakyPoints { inner: world.store.clone(), moments: moments.clone(), listed: None, then: None };
    Services { backend: Arc::new(backend), points: Arc::new(points), ..services }
}

/// Services of a world whose backend gives volumes no other marks while it is told so.
pub(super) fn refusing(world: &World, refuses: &Arc<AtomicBool>) -> (Services, Arc<MemoryExportServer>) {
    let (services, server) = world.services();
    let moments = Moments::new(usize::MAX, Trouble::Failure);
    let (inner, refuses) = (world.backend.clone(), Some(refuses.clone()));
    let backend = ShakyBackend { inner, moments, flips: None, stamped: None, refuses };
    (Services { backend: Arc::new(backend), ..services }, server)
}

/// Services of a world whose backend says that a volume was reverted, and one byte was not.
pub(super) fn flipping(world: &World, offset: u64) -> Services {
    let (services, _) = world.services();
    let moments = Moments::new(usize::MAX, Trouble::Failure);
    let backend = ShakyBackend {
        inner: world.backend.clone(),
        moments,
        flips: Some(offset),
        stamped: None,
        refuses: None,
    };
    Services { backend: Arc::new(backend), ..services }
}

/// Services of a world in which something happens right before it is told first what a volume looks like.
pub(super) fn stamping(world: &World, before: impl FnOnce() + Send + 'static) -> Services {
    let (services, _) = world.services();
    let moments = Moments::new(usize::MAX, Trouble::Failure);
    let stamped = Some(Then(Mutex::new(Some(Box::new(before)))));
    let backend = ShakyBackend { inner: world.backend.clone(), moments, flips: None, stamped, refuses: None };
    Services { backend: Arc::new(backend), ..services }
}

/// Services of a world that list recovery points as they were a while ago.
pub(super) fn lagging(world: &World, listed: Vec<RecoveryPoint>) -> Services {
    let (services, _) = world.services();
    let moments = Moments::new(usize::MAX, Trouble::Failure);
    let points = ShakyPoints { inner: world.store.clone(), moments, listed: Some(listed), then: None };
    Services { points: Arc::new(points), ..services }
}

/// Services of a world in which something happens right after recovery points were listed first.
pub(super) fn overtaken(world: &World, then: impl FnOnce() + Send + 'static) -> Services {
    let (services, _) = world.services();
    let moments = Moments::new(usize::MAX, Trouble::Failure);
    let then = Some(Then(Mutex::new(Some(Box::new(then)))));
    let points = ShakyPoints { inner: world.store.clone(), moments, listed: None, then };
    Services { points: Arc::new(points), ..services }
}

/// What happens once.
struct Then(Mutex<Option<Box<dyn FnOnce() + Send>>>);

impl Then {
    fn happens(this: Option<&Self>) {
        if let Some(then) = this.and_then(|then| then.0.lock().unwrap().take()) {
            then();
        }
    }
}

impl std::fmt::Debug for Then {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Then").finish_non_exhaustive()
    }
}

#[derive(Debug)]
struct ShakyPoints {
    inner: Arc<MemoryStore>,
    moments: Arc<Moments>,
    listed: Option<Vec<RecoveryPoint>>,
    then: Option<Then>,
}

#[async_trait]
impl RecoveryPoints for ShakyPoints {
    async fn begin_point(&self, lease: &Lease, spec: &RecoveryPointSpec) -> Result<RecoveryPoint> {
        self.moments.around("begin", self.inner.begin_point(lease, spec)).await
    }

    async fn take_point(&self, lease: &Lease, id: &RecoveryPointId) -> Result<()> {
        self.moments.around("take", self.inner.take_point(lease, id)).await
    }

    async fn condemn_point(&self, id: &RecoveryPointId, needless: Needless, reason: &str) -> Result<()> {
        self.moments.around("condemn", self.inner.condemn_point(id, needless, reason)).await
    }

    async fn remove_point(&self, id: &RecoveryPointId) -> Result<()> {
        self.moments.around("remove", self.inner.remove_point(id)).await
    }

    async fn point(&self, id: &RecoveryPointId) -> Result<Option<RecoveryPoint>> {
        self.inner.point(id).await
    }

    fn points(&self, context: &ContextId) -> BoxStream<'_, Result<RecoveryPoint>> {
        let listed = match &self.listed {
            Some(listed) => futures_util::stream::iter(listed.clone().into_iter().map(Ok)).boxed(),
            None => self.inner.points(context),
        };
        Then::happens(self.then.as_ref());
        listed
    }

    async fn reverted_to(
        &self,
        lease: &Lease,
        id: &RecoveryPointId,
        stamps: &[(VolumeId, Option<ContentStamp>)],
    ) -> Result<()> {
        self.moments.around("record revert", self.inner.reverted_to(lease, id, stamps)).await
    }
}

#[derive(Debug)]
struct ShakyBackend {
    inner: Arc<MemoryBackend>,
    moments: Arc<Moments>,
    flips: Option<u64>,
    stamped: Option<Then>,
    /// Whether no volume gets another mark.
    refuses: Option<Arc<AtomicBool>>,
}

#[async_trait]
impl VolumeBackend for ShakyBackend {
    fn capabilities(&self) -> BackendCapabilities {
        self.inner.capabilities()
    }

    async fn create(&self, spec: &VolumeSpec) -> Result<Volume> {
        self.inner.create(spec).await
    }

    async fn get(&self, id: &VolumeId) -> Result<Option<Volume>> {
        self.inner.get(id).await
    }

    fn list(&self, instance: &InstanceId) -> BoxStream<'_, Result<Volume>> {
        self.inner.list(instance)
    }

    async fn retag(&self, id: &VolumeId, tag: &VolumeTag) -> Result<()> {
        if self.refuses.as_ref().is_some_and(|refuses| refuses.load(Ordering::SeqCst)) {
            return Err(Error::new(ErrorKind::Unavailable, "mark volume", id));
        }
        self.inner.retag(id, tag).await
    }

    async fn attach(&self, id: &VolumeId, tag: &VolumeTag) -> Result<Volume> {
        self.inner.attach(id, tag).await
    }

    async fn detach(&self, id: &VolumeId, tag: &VolumeTag) -> Result<Volume> {
        self.inner.detach(id, tag).await
    }

    async fn open(&self, id: &VolumeId, tag: &VolumeTag, access: Access) -> Result<Arc<dyn BlockDevice>> {
        self.inner.open(id, tag, access).await
    }

    async fn resize(&self, id: &VolumeId, tag: &VolumeTag, capacity: ByteSize) -> Result<Volume> {
        self.inner.resize(id, tag, capacity).await
    }

    async fn content_stamp(&self, id: &VolumeId) -> Result<Option<ContentStamp>> {
        Then::happens(self.stamped.as_ref());
        self.inner.content_stamp(id).await
    }

    async fn delete(&self, id: &VolumeId, tag: &VolumeTag) -> Result<()> {
        self.inner.delete(id, tag).await
    }

    async fn snapshot(&self, spec: &SnapshotSpec) -> Result<Snapshot> {
        self.moments.around("snapshot", self.inner.snapshot(spec)).await
    }

    fn snapshots(&self, volume: &VolumeId) -> BoxStream<'_, Result<Snapshot>> {
        self.inner.snapshots(volume)
    }

    async fn open_snapshot(&self, spec: &SnapshotSpec) -> Result<Arc<dyn BlockDevice>> {
        self.inner.open_snapshot(spec).await
    }

    async fn revert(&self, id: &VolumeId, tag: &VolumeTag, snapshot: &SnapshotSpec) -> Result<Volume> {
        let reverted = self.moments.around("revert", self.inner.revert(id, tag, snapshot)).await;
        if let Some(offset) = self.flips {
            let device = self.inner.device(id).expect("it was reverted");
            device.write_at(offset, Bytes::from_static(b"~"), Durability::Durable).await?;
        }
        reverted
    }

    async fn delete_snapshot(&self, spec: &SnapshotSpec) -> Result<()> {
        self.moments.around("delete snapshot", self.inner.delete_snapshot(spec)).await
    }
}
