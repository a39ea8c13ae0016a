//! A backend that never answers.

use std::future::pending;
use std::sync::Arc;

use async_trait::async_trait;
use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream};
use oma_core::conformance::{Trial, trial};
use oma_core::memory::MemoryBackend;
use oma_core::record::{ContentStamp, VolumeTag};
use oma_core::traits::{
    Access, BackendCapabilities, BlockDevice, Snapshot, SnapshotSpec, Volume, VolumeBackend, VolumeSpec,
};
use oma_core::{ByteSize, InstanceId, Result, VolumeId};
use tokio::sync::Semaphore;

use crate::daemon::{Daemon, Way, spec, tag};

pub(crate) fn trials() -> Vec<Trial> {
    vec![trial("a_call_that_is_given_up_is_given_up_at_the_daemon", &[], given_up)]
}

/// Makes no volume, ever, but lists as many as it is told to; does everything else.
#[derive(Debug)]
pub(crate) struct Stuck {
    inner: MemoryBackend,
    listed: u64,
    begun: Semaphore,
    ended: Arc<Semaphore>,
}

impl Stuck {
    pub(crate) fn listing(listed: u64) -> Self {
        let (begun, ended) = (Semaphore::new(0), Arc::new(Semaphore::new(0)));
        Self { inner: MemoryBackend::new(), listed, begun, ended }
    }
}

/// Tells that a call is over, however it ended.
struct Tells(Arc<Semaphore>);

impl Drop for Tells {
    fn drop(&mut self) {
        self.0.add_permits(1);
    }
}

#[async_trait]
impl VolumeBackend for Stuck {
    fn capabilities(&self) -> BackendCapabilities {
        self.inner.capabilities()
    }

    async fn create(&self, _spec: &VolumeSpec) -> Result<Volume> {
        let _tells = Tells(self.ended.clone());
        self.begun.add_permits(1);
        pending().await
    }

    async fn get(&self, id: &VolumeId) -> Result<Option<Volume>> {
        self.inner.get(id).await
    }

    fn list(&self, _instance: &InstanceId) -> BoxStream<'_, Result<Volume>> {
        let volume = |number| Volume {
            id: VolumeId::parse(format!("vol-{number}")).unwrap(),
            name: "web".to_owned(),
            capacity: ByteSize::new(number),
            tag: Some(tag()),
            device_path: None,
        };
        stream::iter((0..self.listed).map(move |number| Ok(volume(number)))).boxed()
    }

    async fn retag(&self, id: &VolumeId, tag: &VolumeTag) -> Result<()> {
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
        self.inner.content_stamp(id).await
    }

    async fn delete(&self, id: &VolumeId, tag: &VolumeTag) -> Result<()> {
        self.inner.delete(id, tag).await
    }

    async fn snapshot(&self, spec: &SnapshotSpec) -> Result<Snapshot> {
        self.inner.snapshot(spec).await
    }

    fn snapshots(&self, volume: &VolumeId) -> BoxStream<'_, Result<Snapshot>> {
        self.inner.snapshots(volume)
    }

    async fn open_snapshot(&self, spec: &SnapshotSpec) -> Result<Arc<dyn BlockDevice>> {
        self.inner.open_snapshot(spec).await
    }

    async fn revert(&self, id: &VolumeId, tag: &VolumeTag, snapshot: &SnapshotSpec) -> Result<Volume> {
        self.inner.revert(id, tag, snapshot).await
    }

    async fn delete_snapshot(&self, spec: &SnapshotSpec) -> Result<()> {
        self.inner.delete_snapshot(spec).await
    }
}

async fn given_up() {
    let stuck = Arc::new(Stuck::listing(0));
    let ended = stuck.ended.clone();
    for way in [Way::Tcp, Way::Unix] {
        let daemon = Daemon::start(stuck.clone(), way).await;
        let remote = daemon.remote().await;
        let spec = spec(&tag());
        let call = tokio::spawn(async move { remote.create(&spec).await });
        stuck.begun.acquire().await.unwrap().forget();
        assert_eq!(ended.available_permits(), 0, "it waits for as long as it takes");
        call.abort();
        ended.acquire().await.unwrap().forget();
    }
}
