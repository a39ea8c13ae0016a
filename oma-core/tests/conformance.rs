//! Conformance of what is in memory.
#![allow(clippy::unwrap_used, reason = "a subject that cannot be made is a failed test")]

use std::process::ExitCode;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use oma_core::conformance::{
    self, AddAutomationJob, AddFailover, BackendSubject, Connect, CopyJournalSubject, DEVICE_CAPACITY,
    DeviceSubject, ExportSubject, SourceSubject, SourceWorld, StoreSubject, Trial, sample,
};
use oma_core::memory::{
    ManualClock, MemoryBackend, MemoryCopyJournal, MemoryDevice, MemoryExportServer, MemorySource,
    MemoryStore,
};
use oma_core::traits::{BackendCapabilities, BlockDevice, CopyJournal, Durability, Snapshots};
use oma_core::{ByteSize, DiskKey, Endpoint, Timestamp, VmPath};

fn main() -> ExitCode {
    let mut trials = devices();
    trials.extend(backends());
    trials.extend(sources());
    trials.extend(exports());
    trials.extend(stores());
    trials.extend(copy_journals());
    conformance::run(trials)
}

fn devices() -> Vec<Trial> {
    let subject = |device: MemoryDevice| DeviceSubject { device: Arc::new(device), guard: Box::new(()) };
    let fresh = || MemoryDevice::new("memory", DEVICE_CAPACITY);
    let mut trials =
        conformance::cases("memory_device", &conformance::block_device_cases(), move || async move {
            subject(fresh())
        });
    trials.extend(conformance::cases(
        "memory_device",
        &conformance::read_only_device_cases(),
        move || async move {
            let device = fresh();
            let length = usize::try_from(DEVICE_CAPACITY.bytes()).unwrap();
            device.write_at(0, sample(0, length), Durability::Cached).await.unwrap();
            subject(device.read_only())
        },
    ));
    trials.extend(conformance::cases(
        "memory_device",
        &conformance::short_device_cases(),
        move || async move {
            let device = fresh();
            device.cut(DEVICE_CAPACITY.bytes() / 2);
            subject(device)
        },
    ));
    trials
}

fn exports() -> Vec<Trial> {
    conformance::cases("memory_export_server", &conformance::export_server_cases(), async || {
        let server = Arc::new(MemoryExportServer::new());
        let door = server.clone();
        let connect: Connect = Arc::new(move |name| {
            let door = door.clone();
            Box::pin(async move { door.connect(&name) })
        });
        ExportSubject { server, connect, guard: Box::new(()) }
    })
}

fn copy_journals() -> Vec<Trial> {
    conformance::cases("memory_copy_journal", &conformance::copy_journal_cases(), async || {
        let journal = MemoryCopyJournal::default();
        let open = move || -> BoxFuture<'static, Arc<dyn CopyJournal>> {
            let again: Arc<dyn CopyJournal> = Arc::new(journal.clone());
            Box::pin(std::future::ready(again))
        };
        CopyJournalSubject { open: Arc::new(open), guard: Box::new(()) }
    })
}

fn stores() -> Vec<Trial> {
    conformance::cases("memory_store", &conformance::store_cases(), async || {
        let clock = Arc::new(ManualClock::new(Timestamp::from_millis(1_700_000_000_000)));
        let store = Arc::new(MemoryStore::new(clock.clone()));
        let known = store.clone();
        let automation: AddAutomationJob = Arc::new(move |id| {
            known.add_automation_job(id);
            Box::pin(async {})
        });
        let known = store.clone();
        let failover: AddFailover = Arc::new(move |record| {
            known.add_failover(record);
            Box::pin(async {})
        });
        StoreSubject::new(store, (automation, failover), clock, Box::new(()))
    })
}

fn backends() -> Vec<Trial> {
    let subject = |backend: MemoryBackend| {
        let backend = Arc::new(backend);
        BackendSubject { second: backend.clone(), backend, guard: Box::new(()) }
    };
    let plain = BackendCapabilities {
        zeroed_on_create: false,
        resize: false,
        content_stamp: false,
        snapshots: Snapshots::None,
    };
    let cases = conformance::volume_backend_cases();
    let mut trials =
        conformance::cases("memory_backend", &cases, move || async move { subject(MemoryBackend::new()) });
    trials.extend(conformance::cases("memory_backend_of_little_ability", &cases, move || async move {
        subject(MemoryBackend::new().with_capabilities(plain))
    }));
    trials.extend(conformance::cases(
        "memory_backend",
        &conformance::full_backend_cases(),
        move || async move { subject(MemoryBackend::new().with_room(ByteSize::mib(8))) },
    ));
    trials.extend(conformance::cases(
        "memory_backend",
        &conformance::unreachable_backend_cases(),
        move || async move {
            let backend = MemoryBackend::new();
            backend.disconnect();
            subject(backend)
        },
    ));
    trials
}

fn sources() -> Vec<Trial> {
    let factory = || async {
        let vm = VmPath::parse("/DC/vm/web").unwrap();
        let source = Arc::new(MemorySource::new(Endpoint::parse("memory").unwrap()));
        for key in ["disk-2000", "disk-2001"] {
            source.add_disk(&vm, &DiskKey::parse(key).unwrap(), ByteSize::mib(1));
        }
        let world = Arc::new(Guest { source: source.clone(), vm: vm.clone() });
        SourceSubject { source, vm, world, guard: Box::new(()) }
    };
    let mut trials = conformance::cases("memory_source", &conformance::disk_source_cases(), factory);
    trials.extend(conformance::cases("memory_source", &conformance::snapshot_source_cases(), factory));
    trials.extend(conformance::cases("memory_source", &conformance::tracking_source_cases(), factory));
    trials
}

#[derive(Debug)]
struct Guest {
    source: Arc<MemorySource>,
    vm: VmPath,
}

#[async_trait]
impl SourceWorld for Guest {
    async fn write(&self, key: &DiskKey, offset: u64, data: Bytes) {
        let disk = self.source.disk(&self.vm, key).unwrap();
        disk.write_at(offset, data, Durability::Cached).await.unwrap();
    }

    async fn reset_tracking(&self, key: &DiskKey) {
        self.source.reset_tracking(&self.vm, key);
    }
}
