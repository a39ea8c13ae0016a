//! A backend that does not answer any more, in the middle of a run that is stopped then.

use async_trait::async_trait;
use futures_util::StreamExt as _;
use futures_util::stream::{self, BoxStream};
use tokio::sync::Notify;

use super::*;
use crate::VolumeId;
use crate::engine::KeepPoints;
use crate::record::ContentStamp;
use crate::traits::{BackendCapabilities, Snapshot, SnapshotSpec, Volume, VolumeSpec};

/// Calls of a run that brings a VM to its first epoch, or to a later one.
const CALLS: [&str; 8] = ["create", "get", "retag", "attach", "open", "stamp", "snapshot", "snapshots"];

/// Whether the backend did what it does not tell of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum When {
    Before,
    After,
}

/// Answers everything but one call.
#[derive(Debug)]
struct Hung {
    inner: Arc<MemoryBackend>,
    call: &'static str,
    when: When,
    reached: Notify,
}

impl Hung {
    async fn around<T: Send>(&self, call: &'static str, doing: impl Future<Output = T> + Send) -> T {
        if call != self.call {
            return doing.await;
        }
        let _done = match self.when {
            When::Before => None,
            When::After => Some(doing.await),
        };
        self.reached.notify_one();
        std::future::pending().await
    }
}

#[async_trait]
impl VolumeBackend for Hung {
    fn capabilities(&self) -> BackendCapabilities {
        self.inner.capabilities()
    }

    async fn create(&self, spec: &VolumeSpec) -> Result<Volume> {
        self.around("create", self.inner.create(spec)).await
    }

    async fn get(&self, id: &VolumeId) -> Result<Option<Volume>> {
        self.around("get", self.inner.get(id)).await
    }

    fn list(&self, instance: &InstanceId) -> BoxStream<'_, Result<Volume>> {
        self.inner.list(instance)
    }

    async fn retag(&self, id: &VolumeId, tag: &VolumeTag) -> Result<()> {
        self.around("retag", self.inner.retag(id, tag)).await
    }

    async fn attach(&self, id: &VolumeId, tag: &VolumeTag) -> Result<Volume> {
        self.around("attach", self.inner.attach(id, tag)).await
    }

    async fn detach(&self, id: &VolumeId, tag: &VolumeTag) -> Result<Volume> {
        self.inner.detach(id, tag).await
    }

    async fn open(&self, id: &VolumeId, tag: &VolumeTag, access: Access) -> Result<Arc<dyn BlockDevice>> {
        self.around("open", self.inner.open(id, tag, access)).await
    }

    async fn resize(&self, id: &VolumeId, tag: &VolumeTag, capacity: ByteSize) -> Result<Volume> {
        self.inner.resize(id, tag, capacity).await
    }

    async fn content_stamp(&self, id: &VolumeId) -> Result<Option<ContentStamp>> {
        self.around("stamp", self.inner.content_stamp(id)).await
    }

    async fn delete(&self, id: &VolumeId, tag: &VolumeTag) -> Result<()> {
        self.inner.delete(id, tag).await
    }

    async fn snapshot(&self, spec: &SnapshotSpec) -> Result<Snapshot> {
        self.around("snapshot", self.inner.snapshot(spec)).await
    }

    fn snapshots(&self, volume: &VolumeId) -> BoxStream<'_, Result<Snapshot>> {
        let listed = self.inner.snapshots(volume);
        let begin = stream::once(async { self.around("snapshots", async {}).await });
        begin.filter_map(async |()| None).chain(listed).boxed()
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

fn request(world: &World) -> ReplicateRequest {
    ReplicateRequest { points: Some(KeepPoints { last: Some(4), younger_than: None }), ..world.request() }
}

/// A run that is stopped where the backend hangs; `false` when it never came there.
async fn stopped(world: &World, call: &'static str, when: When) -> bool {
    world.clock.advance(Duration::from_secs(1));
    let hung = Arc::new(Hung { inner: world.backend.clone(), call, when, reached: Notify::new() });
    let services = Services { backend: hung.clone(), ..world.services().0 };
    let replicator = Replicator::new(services, worker("appliance"), world.config);
    let (request, stop) = (request(world), CancellationToken::new());
    let run = replicator.run(&request, &Silent, &stop);
    tokio::pin!(run);
    tokio::select! {
        report = &mut run => {
            assert!(report.unwrap().outcome.is_completed());
            return false;
        }
        () = hung.reached.notified() => stop.cancel(),
    }
    let ended = tokio::time::timeout(world.config.drain * 4, run).await;
    let report = ended.unwrap_or_else(|_| panic!("{call} {when:?}: it never ends")).unwrap();
    let ends_well = matches!(report.outcome, Outcome::Suspended) || report.outcome.is_completed();
    assert!(ends_well, "{call} {when:?}: {report:?}");
    true
}

#[tokio::test(start_paused = true)]
async fn l15_a_stop_ends_a_run_whose_backend_hangs_and_the_next_one_finishes_it() {
    for call in CALLS {
        let mut reached = 0;
        for (when, epochs) in [(When::Before, 0), (When::After, 0), (When::Before, 1), (When::After, 1)] {
            let world = World::new(&["disk-2000"]).await;
            for epoch in 1..=epochs {
                assert!(world.run_as(&request(&world), &Silent).await.unwrap().outcome.is_completed());
                world.write("disk-2000", 0, 100_000, epoch).await;
            }
            if !stopped(&world, call, when).await {
                continue;
            }
            reached += 1;
            let report = world.run_as(&request(&world), &Silent).await.unwrap();
            assert!(report.outcome.is_completed(), "{call} {when:?}: {report:?}");
            world.assert_consistent(report.epoch.0).await;
            let volumes: Vec<_> = world.backend.list(&world.store.instance().await.unwrap()).collect().await;
            assert_eq!(volumes.len(), 1, "{call} {when:?}: another volume was made");
        }
        assert!(reached > 0, "{call} is never made");
    }
}
