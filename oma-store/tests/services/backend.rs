//! A backend in memory whose answers are lost on the way to one of its callers.

use std::sync::Arc;

use async_trait::async_trait;
use futures_util::stream::BoxStream;
use oma_core::memory::MemoryBackend;
use oma_core::record::{ContentStamp, VolumeTag};
use oma_core::traits::{
    Access, BackendCapabilities, BlockDevice, Snapshot, SnapshotSpec, Volume, VolumeBackend, VolumeSpec,
};
use oma_core::{ByteSize, Error, ErrorKind, InstanceId, Result, Retry, VolumeId};
use tokio::sync::watch;

/// What becomes of the answers of calls that change something.
#[derive(Clone, Debug)]
pub(crate) struct Calls {
    /// How many calls there were, and how many of them wait for an answer that never comes.
    seen: watch::Sender<(usize, usize)>,
    deaf_from: usize,
    lose_every: usize,
}

impl Calls {
    /// From the n-th call on no answer ever comes; every other call is done all the same.
    pub(crate) fn deaf_from(deaf_from: usize) -> Self {
        Self { seen: watch::Sender::default(), deaf_from, lose_every: usize::MAX }
    }

    /// Of each so many calls the answer of one is lost, which the caller is told.
    pub(crate) fn forgetful(lose_every: usize) -> Self {
        Self { seen: watch::Sender::default(), deaf_from: usize::MAX, lose_every }
    }

    /// Waits until so many calls wait for an answer.
    pub(crate) async fn unheard(&self, calls: usize) {
        self.seen.subscribe().wait_for(|(_, unheard)| *unheard >= calls).await.unwrap();
    }

    async fn answer<T>(&self, call: impl Future<Output = Result<T>>) -> Result<T> {
        let mut number = 0;
        self.seen.send_modify(|(calls, _)| {
            *calls += 1;
            number = *calls;
        });
        let is_deaf = number >= self.deaf_from;
        if is_deaf && number.is_multiple_of(2) {
            return self.never().await;
        }
        let answer = call.await;
        if is_deaf {
            return self.never().await;
        }
        if number.is_multiple_of(self.lose_every) {
            let lost = Error::new(ErrorKind::Unavailable, "ask", "the backend");
            return Err(lost.because("the answer was lost").with_retry(Retry::Later));
        }
        answer
    }

    async fn never<T>(&self) -> T {
        self.seen.send_modify(|(_, unheard)| *unheard += 1);
        std::future::pending().await
    }
}

#[derive(Debug)]
pub(crate) struct Unsteady {
    backend: Arc<MemoryBackend>,
    calls: Calls,
}

impl Unsteady {
    pub(crate) fn new(backend: &Arc<MemoryBackend>, calls: Calls) -> Self {
        Self { backend: backend.clone(), calls }
    }
}

#[async_trait]
impl VolumeBackend for Unsteady {
    fn capabilities(&self) -> BackendCapabilities {
        self.backend.capabilities()
    }

    async fn create(&self, spec: &VolumeSpec) -> Result<Volume> {
        self.calls.answer(self.backend.create(spec)).await
    }

    async fn get(&self, id: &VolumeId) -> Result<Option<Volume>> {
        self.backend.get(id).await
    }

    fn list(&self, instance: &InstanceId) -> BoxStream<'_, Result<Volume>> {
        self.backend.list(instance)
    }

    async fn retag(&self, id: &VolumeId, tag: &VolumeTag) -> Result<()> {
        self.calls.answer(self.backend.retag(id, tag)).await
    }

    async fn attach(&self, id: &VolumeId, tag: &VolumeTag) -> Result<Volume> {
        self.calls.answer(self.backend.attach(id, tag)).await
    }

    async fn detach(&self, id: &VolumeId, tag: &VolumeTag) -> Result<Volume> {
        self.calls.answer(self.backend.detach(id, tag)).await
    }

    async fn open(&self, id: &VolumeId, tag: &VolumeTag, access: Access) -> Result<Arc<dyn BlockDevice>> {
        self.backend.open(id, tag, access).await
    }

    async fn resize(&self, id: &VolumeId, tag: &VolumeTag, capacity: ByteSize) -> Result<Volume> {
        self.calls.answer(self.backend.resize(id, tag, capacity)).await
    }

    async fn content_stamp(&self, id: &VolumeId) -> Result<Option<ContentStamp>> {
        self.backend.content_stamp(id).await
    }

    async fn delete(&self, id: &VolumeId, tag: &VolumeTag) -> Result<()> {
        self.calls.answer(self.backend.delete(id, tag)).await
    }

    async fn snapshot(&self, spec: &SnapshotSpec) -> Result<Snapshot> {
        self.calls.answer(self.backend.snapshot(spec)).await
    }

    fn snapshots(&self, volume: &VolumeId) -> BoxStream<'_, Result<Snapshot>> {
        self.backend.snapshots(volume)
    }

    async fn open_snapshot(&self, spec: &SnapshotSpec) -> Result<Arc<dyn BlockDevice>> {
        self.backend.open_snapshot(spec).await
    }

    async fn revert(&self, id: &VolumeId, tag: &VolumeTag, snapshot: &SnapshotSpec) -> Result<Volume> {
        self.calls.answer(self.backend.revert(id, tag, snapshot)).await
    }

    async fn delete_snapshot(&self, spec: &SnapshotSpec) -> Result<()> {
        self.calls.answer(self.backend.delete_snapshot(spec)).await
    }
}
