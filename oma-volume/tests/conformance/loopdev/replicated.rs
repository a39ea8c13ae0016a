//! VMs replicated onto loop devices by the engine.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use oma_core::conformance::{self, Requirement, Trial};
use oma_core::direct::{DirectEntry, DirectSource};
use oma_core::engine::{
    CancellationToken, ReplicateConfig, ReplicateRequest, Replicator, Services, Silent, VerifyLevel,
};
use oma_core::memory::{ManualClock, MemoryExportServer, MemoryStore};
use oma_core::{DiskKey, Epoch, Timestamp, VmPath, WorkerId};
use oma_volume::source::FileSource;

use super::sizes::{ODD, run};
use super::{Place, fs};

pub(super) fn trials(needs: &[Requirement]) -> Vec<Trial> {
    let tools = [needs, &["mke2fs", "e2fsck", "cmp", "losetup"].map(Requirement::Program)].concat();
    let name = "loop_backend::a_vm_is_replicated_again_and_again_also_after_a_restart_of_the_machine";
    vec![conformance::trial(name, &tools, replicated)]
}

/// An appliance whose volumes are loop devices.
struct World {
    place: Place,
    clock: Arc<ManualClock>,
    store: Arc<MemoryStore>,
}

impl World {
    fn new() -> Self {
        let clock = Arc::new(ManualClock::new(Timestamp::from_millis(1_700_000_000_000)));
        Self { place: Place::new(), store: Arc::new(MemoryStore::new(clock.clone())), clock }
    }

    /// One epoch of the disk, by a process of its own as far as anybody can tell.
    async fn run(&self, disk: &Path) -> Epoch {
        self.clock.advance(Duration::from_secs(1));
        let entry = DirectEntry {
            key: DiskKey::parse("disk-2000").unwrap(),
            change_id: None,
            disk: Arc::new(FileSource::new(disk.to_owned())),
        };
        let source = Arc::new(DirectSource::new(vec![entry]).unwrap());
        let (volumes, server) = (Arc::new(self.place.open()), Arc::new(MemoryExportServer::new()));
        let services = Services::new(self.store.clone(), source, volumes, server);
        let worker = WorkerId::parse("appliance").unwrap();
        let replicator = Replicator::new(services, worker, ReplicateConfig::default());
        let mut request = ReplicateRequest::new(VmPath::parse("/DC/vm/web01").unwrap());
        request.verify = VerifyLevel::Full;
        let report = replicator.run(&request, &Silent, &CancellationToken::new()).await.unwrap();
        assert!(report.outcome.is_completed(), "{report:?}");
        report.epoch
    }

    /// The one device is a whole file system, and byte for byte the disk.
    fn check(&self, disk: &Path) {
        let [device] = &self.place.devices()[..] else { panic!("{:?}", self.place.devices()) };
        run("e2fsck", &["-f", "-n"], device);
        let bytes = fs::metadata(disk).unwrap().len().to_string();
        run("cmp", &["-n", &bytes, disk.to_str().unwrap()], device);
    }
}

async fn replicated() {
    let mut trees = ["src", "tests"].map(|name| format!("{}/{name}", env!("CARGO_MANIFEST_DIR")));
    for bytes in ODD {
        let world = World::new();
        let disk = world.place.path("disk");
        fs::File::create(&disk).unwrap().set_len(bytes).unwrap();
        for epoch in 1..=3 {
            run("mke2fs", &["-q", "-F", "-t", "ext4", "-d", &trees[0]], &disk);
            trees.rotate_left(1);
            if epoch == 3 {
                world.place.take_away(&world.place.devices()[0]);
            }
            assert_eq!(world.run(&disk).await, Epoch(epoch));
            world.check(&disk);
        }
    }
}
