//! Volumes whose backend's calls are counted.

use std::sync::Arc;
use std::time::Instant;

use async_trait::async_trait;
use futures_util::stream::BoxStream;
use oma_core::record::{ContentStamp, VolumeTag};
use oma_core::traits::{
    Access, BackendCapabilities, BlockDevice, Snapshot, SnapshotSpec, Volume, VolumeBackend, VolumeSpec,
};
use oma_core::{ByteSize, InstanceId, Result, VolumeId};
use tracing::Instrument as _;

use super::figures::Figures;
use super::traced;

/// Counts every call that is answered once; lists are not counted.
#[derive(Debug)]
pub(super) struct MeteredBackend {
    inner: Arc<dyn VolumeBackend>,
    figures: Figures,
}

impl MeteredBackend {
    pub(super) fn new(inner: Arc<dyn VolumeBackend>, figures: Figures) -> Self {
        Self { inner, figures }
    }

    async fn count<T>(&self, call: &'static str, asked: impl Future<Output = Result<T>> + Send) -> Result<T> {
        let span = traced::call(call);
        let begun = Instant::now();
        let answer = asked.instrument(span.clone()).await;
        traced::told(&span, &answer);
        self.figures.called(call, begun, &answer);
        answer
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl VolumeBackend for MeteredBackend {
    fn capabilities(&self) -> BackendCapabilities {
        self.inner.capabilities()
    }

    async fn create(&self, spec: &VolumeSpec) -> Result<Volume> {
        self.count("create", self.inner.create(spec)).await
    }

    async fn get(&self, id: &VolumeId) -> Result<Option<Volume>> {
        self.count("get", self.inner.get(id)).await
    }

    fn list(&self, instance: &InstanceId) -> BoxStream<'_, Result<Volume>> {
        self.inner.list(instance)
    }

    async fn retag(&self, id: &VolumeId, tag: &VolumeTag) -> Result<()> {
        self.count("retag", self.inner.retag(id, tag)).await
    }

    async fn attach(&self, id: &VolumeId, tag: &VolumeTag) -> Result<Volume> {
        self.count("attach", self.inner.attach(id, tag)).await
    }

    async fn detach(&self, id: &VolumeId, tag: &VolumeTag) -> Result<Volume> {
        self.count("detach", self.inner.detach(id, tag)).await
    }

    async fn open(&self, id: &VolumeId, tag: &VolumeTag, access: Access) -> Result<Arc<dyn BlockDevice>> {
        self.count("open", self.inner.open(id, tag, access)).await
    }

    async fn resize(&self, id: &VolumeId, tag: &VolumeTag, capacity: ByteSize) -> Result<Volume> {
        self.count("resize", self.inner.resize(id, tag, capacity)).await
    }

    async fn content_stamp(&self, id: &VolumeId) -> Result<Option<ContentStamp>> {
        self.count("content_stamp", self.inner.content_stamp(id)).await
    }

    async fn delete(&self, id: &VolumeId, tag: &VolumeTag) -> Result<()> {
        self.count("delete", self.inner.delete(id, tag)).await
    }

    async fn snapshot(&self, spec: &SnapshotSpec) -> Result<Snapshot> {
        self.count("snapshot", self.inner.snapshot(spec)).await
    }

    fn snapshots(&self, volume: &VolumeId) -> BoxStream<'_, Result<Snapshot>> {
        self.inner.snapshots(volume)
    }

    async fn open_snapshot(&self, spec: &SnapshotSpec) -> Result<Arc<dyn BlockDevice>> {
        self.count("open_snapshot", self.inner.open_snapshot(spec)).await
    }

    async fn revert(&self, id: &VolumeId, tag: &VolumeTag, snapshot: &SnapshotSpec) -> Result<Volume> {
        self.count("revert", self.inner.revert(id, tag, snapshot)).await
    }

    async fn delete_snapshot(&self, spec: &SnapshotSpec) -> Result<()> {
        self.count("delete_snapshot", self.inner.delete_snapshot(spec)).await
    }
}
