//! Volumes whose answers are waited for until a stop.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::stream::{self, BoxStream, StreamExt as _};
use tokio_util::sync::CancellationToken;

use crate::record::{ContentStamp, VolumeTag};
use crate::traits::{
    Access, BackendCapabilities, BlockDevice, Snapshot, SnapshotSpec, Volume, VolumeBackend, VolumeSpec,
};
use crate::{ByteSize, Error, ErrorKind, InstanceId, Result, Retry, VolumeId};

/// Gives up calls that are not answered `patience` after a stop. As after a crash nobody knows whether they were done, and what was
/// recorded before them is left as it is: the next run asks again (L15).
#[derive(Debug)]
pub(super) struct StoppableBackend {
    inner: Arc<dyn VolumeBackend>,
    stop: CancellationToken,
    patience: Duration,
    /// A call was given up.
    hangs: AtomicBool,
}

impl StoppableBackend {
    pub(super) fn new(inner: Arc<dyn VolumeBackend>, stop: CancellationToken, patience: Duration) -> Self {
        Self { inner, stop, patience, hangs: AtomicBool::new(false) }
    }

    async fn ask<T>(
        &self,
        what: &'static str,
        of: &(impl fmt::Display + Sync),
        call: impl Future<Output = Result<T>> + Send,
    ) -> Result<T> {
        tokio::select! {
            biased;
            answer = call => answer,
            () = self.over() => Err(given_up(what, of)),
        }
    }

    /// A backend that did not answer once is not waited for as long again: a run may have much to ask before it ends.
    async fn over(&self) {
        self.stop.cancelled().await;
        let part = if self.hangs.load(Ordering::Relaxed) { 10 } else { 1 };
        tokio::time::sleep(self.patience / part).await;
        self.hangs.store(true, Ordering::Relaxed);
    }

    /// Entries of a list, each waited for so.
    fn entries<'a, T: Send + 'a>(
        &'a self,
        what: &'static str,
        of: impl fmt::Display + Send + Sync + 'a,
        listed: BoxStream<'a, Result<T>>,
    ) -> BoxStream<'a, Result<T>> {
        let next = move |state: Option<(BoxStream<'a, Result<T>>, _)>| async move {
            let (mut listed, of) = state?;
            tokio::select! {
                biased;
                entry = listed.next() => entry.map(|entry| (entry, Some((listed, of)))),
                () = self.over() => Some((Err(given_up(what, &of)), None)),
            }
        };
        stream::unfold(Some((listed, of)), next).boxed()
    }
}

/// Nothing is known of what was asked for. It is neither refused, nor asked again in this run.
fn given_up(what: &'static str, of: &impl fmt::Display) -> Error {
    Error::new(ErrorKind::Cancelled, what, of)
        .because(
            "the run was stopped and there was no answer; it is done or not, and the next run asks again",
        )
        .with_retry(Retry::Exhausted)
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl VolumeBackend for StoppableBackend {
    fn capabilities(&self) -> BackendCapabilities {
        self.inner.capabilities()
    }

    async fn create(&self, spec: &VolumeSpec) -> Result<Volume> {
        self.ask("create volume", &spec.operation, self.inner.create(spec)).await
    }

    async fn get(&self, id: &VolumeId) -> Result<Option<Volume>> {
        self.ask("find volume", id, self.inner.get(id)).await
    }

    fn list(&self, instance: &InstanceId) -> BoxStream<'_, Result<Volume>> {
        self.entries("list volumes", instance.clone(), self.inner.list(instance))
    }

    async fn retag(&self, id: &VolumeId, tag: &VolumeTag) -> Result<()> {
        self.ask("retag volume", id, self.inner.retag(id, tag)).await
    }

    async fn attach(&self, id: &VolumeId, tag: &VolumeTag) -> Result<Volume> {
        self.ask("attach volume", id, self.inner.attach(id, tag)).await
    }

    async fn detach(&self, id: &VolumeId, tag: &VolumeTag) -> Result<Volume> {
        self.ask("detach volume", id, self.inner.detach(id, tag)).await
    }

    async fn open(&self, id: &VolumeId, tag: &VolumeTag, access: Access) -> Result<Arc<dyn BlockDevice>> {
        self.ask("open volume", id, self.inner.open(id, tag, access)).await
    }

    async fn resize(&self, id: &VolumeId, tag: &VolumeTag, capacity: ByteSize) -> Result<Volume> {
        self.ask("resize volume", id, self.inner.resize(id, tag, capacity)).await
    }

    async fn content_stamp(&self, id: &VolumeId) -> Result<Option<ContentStamp>> {
        self.ask("stamp volume", id, self.inner.content_stamp(id)).await
    }

    async fn delete(&self, id: &VolumeId, tag: &VolumeTag) -> Result<()> {
        self.ask("delete volume", id, self.inner.delete(id, tag)).await
    }

    async fn snapshot(&self, spec: &SnapshotSpec) -> Result<Snapshot> {
        self.ask("snapshot volume", &spec.volume, self.inner.snapshot(spec)).await
    }

    fn snapshots(&self, volume: &VolumeId) -> BoxStream<'_, Result<Snapshot>> {
        self.entries("list snapshots", volume.clone(), self.inner.snapshots(volume))
    }

    async fn open_snapshot(&self, spec: &SnapshotSpec) -> Result<Arc<dyn BlockDevice>> {
        self.ask("open snapshot", &spec.id, self.inner.open_snapshot(spec)).await
    }

    async fn revert(&self, id: &VolumeId, tag: &VolumeTag, snapshot: &SnapshotSpec) -> Result<Volume> {
        self.ask("revert volume", id, self.inner.revert(id, tag, snapshot)).await
    }

    async fn delete_snapshot(&self, spec: &SnapshotSpec) -> Result<()> {
        self.ask("delete snapshot", &spec.id, self.inner.delete_snapshot(spec)).await
    }
}
