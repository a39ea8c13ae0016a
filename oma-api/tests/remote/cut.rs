//! The connection is lost in the middle of each call: the client does not know, and the same call again finishes it.

use std::sync::Arc;

use futures_util::TryStreamExt;
use oma_api::client::RemoteBackend;
use oma_core::conformance::{Trial, sample, trial};
use oma_core::memory::MemoryBackend;
use oma_core::record::VolumeTag;
use oma_core::traits::{Access, Durability, SnapshotSpec, VolumeBackend};
use oma_core::{ByteSize, ErrorKind, JobId, Result, Retry, SnapshotId, Timestamp, VolumeId};

use crate::cutter::{Cut, Cutter};
use crate::daemon::{Daemon, Way, spec, tag};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("l19_a_call_that_is_cut_before_the_daemon_hears_of_it_is_done_by_the_same_call", &[], || {
            each_call(Cut::Before)
        }),
        trial("l19_a_call_that_is_cut_before_the_answer_is_done_once_by_the_same_call", &[], || {
            each_call(Cut::After)
        }),
        trial("a_session_that_is_cut_closes_the_volume_and_its_device", &[], session),
    ]
}

/// A daemon, and a client whose way to it is cut now and then.
struct World {
    backend: Arc<MemoryBackend>,
    remote: RemoteBackend,
    cutter: Cutter,
    _daemon: Daemon,
}

impl World {
    async fn new() -> Self {
        let backend = Arc::new(MemoryBackend::new());
        let daemon = Daemon::start(backend.clone(), Way::Tcp).await;
        let (cutter, address) = Cutter::before(&daemon.address).await;
        let remote = daemon.connect(&address, None).await.unwrap();
        Self { backend, remote, cutter, _daemon: daemon }
    }

    /// Makes a call that is cut, and the same again.
    async fn twice<T, Fut>(&self, cut: Cut, call: impl Fn() -> Fut) -> T
    where
        T: std::fmt::Debug,
        Fut: Future<Output = Result<T>>,
    {
        self.cutter.cut(cut);
        let error = call().await.unwrap_err();
        assert_eq!(
            (error.kind(), error.retry()),
            (ErrorKind::Unavailable, Retry::Later),
            "{}",
            error.chain()
        );
        assert!(self.cutter.has_cut());
        call().await.unwrap()
    }

    async fn made(&self, tag: &VolumeTag) -> Vec<VolumeId> {
        self.backend.list(&tag.instance).map_ok(|volume| volume.id).try_collect().await.unwrap()
    }
}

async fn each_call(cut: Cut) {
    let world = World::new().await;
    let (remote, mut tag) = (&world.remote, tag());
    let spec = spec(&tag);
    let volume = world.twice(cut, || remote.create(&spec)).await;
    let id = &volume.id;
    assert_eq!(world.made(&tag).await, std::slice::from_ref(id), "one volume");
    tag.generation = tag.generation.next();
    world.twice(cut, || remote.retag(id, &tag)).await;
    assert!(world.twice(cut, || remote.attach(id, &tag)).await.device_path.is_some());
    assert!(world.twice(cut, || remote.get(id)).await.is_some());
    assert!(world.twice(cut, || remote.content_stamp(id)).await.is_some());
    let listed = world.twice(cut, || remote.list(&tag.instance).try_collect::<Vec<_>>()).await;
    assert_eq!(listed.len(), 1);
    assert_eq!(
        world.twice(cut, || remote.resize(id, &tag, ByteSize::mib(2))).await.capacity,
        ByteSize::mib(2)
    );
    let device = world.twice(cut, || remote.open(id, &tag, Access::ReadWrite)).await;
    device.write_at(0, sample(3, 4096), Durability::Durable).await.unwrap();
    drop(device);
    snapshots(&world, cut, id, &tag).await;
    assert_eq!(world.twice(cut, || remote.detach(id, &tag)).await.device_path, None);
    world.twice(cut, || remote.delete(id, &tag)).await;
    assert!(world.made(&tag).await.is_empty());
}

async fn snapshots(world: &World, cut: Cut, id: &VolumeId, tag: &VolumeTag) {
    let remote = &world.remote;
    let job = JobId::mint(Timestamp::from_millis(0));
    let spec = SnapshotSpec { id: SnapshotId::mint(&job), volume: id.clone(), tag: tag.clone(), job };
    world.twice(cut, || remote.snapshot(&spec)).await;
    assert_eq!(world.twice(cut, || remote.snapshots(id).try_collect::<Vec<_>>()).await.len(), 1);
    drop(world.twice(cut, || remote.open_snapshot(&spec)).await);
    world.twice(cut, || remote.revert(id, tag, &spec)).await;
    world.twice(cut, || remote.delete_snapshot(&spec)).await;
    assert!(remote.snapshots(id).try_collect::<Vec<_>>().await.unwrap().is_empty());
}

async fn session() {
    let world = World::new().await;
    let tag = tag();
    let id = crate::daemon::attached(&world.remote, &tag).await;
    let device = world.remote.open(&id, &tag, Access::ReadWrite).await.unwrap();
    device.write_at(0, sample(3, 4096), Durability::Durable).await.unwrap();
    world.cutter.cut_now();
    let error = loop {
        match device.write_at(0, sample(3, 4096), Durability::Durable).await {
            Ok(()) => tokio::task::yield_now().await,
            Err(error) => break error,
        }
    };
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{}", error.chain());
    // In memory a client shares the device itself.
    drop(device);
    world.remote.open(&id, &tag, Access::ReadWrite).await.expect("the lock is free");
}
