//! A replicator whose volumes are a daemon's.

use std::fs;
use std::sync::Arc;

use bytes::BytesMut;
use futures_util::TryStreamExt;
use oma_core::conformance::{Trial, sample, trial};
use oma_core::direct::{DirectEntry, DirectSource};
use oma_core::engine::{CancellationToken, ReplicateConfig, ReplicateRequest, Replicator, Services, Silent};
use oma_core::memory::{ManualClock, MemoryStore};
use oma_core::record::{VolumeFilter, VolumeTag};
use oma_core::traits::{Access, VolumeBackend, VolumeRegistry};
use oma_core::{DiskKey, Epoch, Timestamp, VmPath, WorkerId};
use oma_nbd::{Server, ServerConfig};
use oma_volume::source::FileSource;
use tempfile::TempDir;

use crate::daemon::{Daemon, Way};
use crate::files;

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("a_machine_is_replicated_to_a_daemon_over_tcp", &[], || replicated(Way::Tcp)),
        trial("a_machine_is_replicated_to_a_daemon_over_unix", &[], || replicated(Way::Unix)),
    ]
}

async fn replicated(way: Way) {
    let folder = TempDir::new().unwrap();
    let near = folder.path().join("disk.raw");
    let daemon = Daemon::start(files(&folder), way).await;
    let clock = Arc::new(ManualClock::new(Timestamp::from_millis(1_700_000_000_000)));
    let (store, remote) = (Arc::new(MemoryStore::new(clock)), Arc::new(daemon.remote().await));
    for epoch in 1..=2 {
        fs::write(&near, sample(epoch, 4 << 20)).unwrap();
        let disk = Arc::new(FileSource::new(near.clone()));
        let key = DiskKey::parse("disk-2000").unwrap();
        let source = DirectSource::new(vec![DirectEntry { key, change_id: None, disk }]).unwrap();
        let server = Arc::new(Server::new(ServerConfig::default()));
        let services = Services::new(store.clone(), Arc::new(source), remote.clone(), server);
        let worker = WorkerId::parse("replicator").unwrap();
        let replicator = Replicator::new(services, worker, ReplicateConfig::default());
        let request = ReplicateRequest::new(VmPath::parse("/DC/vm/web01").unwrap());
        let report = replicator.run(&request, &Silent, &CancellationToken::new()).await.unwrap();
        assert!(report.outcome.is_completed(), "{report:?}");
        assert_eq!(report.epoch, Epoch(epoch));
        let record = store.volumes(VolumeFilter::default()).try_next().await.unwrap().unwrap();
        let instance = store.instance().await.unwrap();
        let tag = VolumeTag { instance, disk: record.disk, generation: record.generation };
        let again = daemon.remote().await;
        again.attach(&record.id, &tag).await.unwrap();
        let device =
            again.open(&record.id, &tag, Access::ReadOnly).await.expect("the replicator has closed it");
        let held = device.read_at(0, BytesMut::zeroed(4 << 20)).await.unwrap();
        assert!(held == sample(epoch, 4 << 20), "epoch {epoch} is not what was replicated");
    }
}
