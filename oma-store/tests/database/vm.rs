//! VMs on their way through a replication, step by step, by what the store offers.

use std::time::Duration;

use oma_core::record::{
    DiskAttempt, DiskCommit, EpochCommit, JobEnd, JobSpec, JournalBasis, JournalEntry, Lease, OperationSpec,
    SourceDisk, SourceIdentity, SourceVm, VmContext,
};
use oma_core::state::{ExportEvent, JobEvent, JobStatus, OperationKind, ReplicationType};
use oma_core::traits::{
    ChangeIdRepo, ExportRegistry, ExtentJournal, Inventory, JobStore, Volume, VolumeRegistry,
};
use oma_core::{
    ByteSize, ChangeId, DiskKey, DiskRef, Endpoint, ExportName, Extent, ExtentSet, InstanceUuid, JobId,
    OperationId, PointId, Timestamp, VmPath, VolumeId, WorkerId,
};
use oma_store::SqlStore;

/// A VM of one disk, and the job that it has now.
pub(crate) struct Vm<'s> {
    pub(crate) store: &'s SqlStore,
    pub(crate) context: VmContext,
    pub(crate) lease: Lease,
    pub(crate) volume: VolumeId,
    pub(crate) export: ExportName,
    epoch: u64,
}

pub(crate) fn key() -> DiskKey {
    DiskKey::parse("disk-2000").unwrap()
}

fn source_vm(name: &str) -> SourceVm {
    let path = VmPath::parse(format!("/DatabanxDC/vm/{name}")).unwrap();
    let endpoint = Endpoint::parse("vcenter.example").unwrap();
    let identity = SourceIdentity { instance_uuid: InstanceUuid::from_path(&path), endpoint };
    let disk = SourceDisk {
        key: key(),
        label: "Festplatte 1 😀".to_owned(),
        location: format!("[ds1] {name}/{name}.vmdk"),
        capacity: ByteSize::gib(40),
        unit_number: Some(0),
    };
    SourceVm { identity, name: name.to_owned(), path, disks: vec![disk] }
}

impl<'s> Vm<'s> {
    /// Discovered, with a live job that was claimed.
    pub(crate) async fn begun(store: &'s SqlStore, name: &str) -> Self {
        let context = Inventory::record(store, &source_vm(name)).await.unwrap();
        let lease = begin(store, &context, ReplicationType::Initial).await;
        let export = ExportName::for_disk(&context.identity.instance_uuid, &key()).unwrap();
        let volume = VolumeId::parse(format!("vol-{name}")).unwrap();
        Self { store, context, lease, volume, export, epoch: 1 }
    }

    /// In the middle of its first copy.
    pub(crate) async fn copying(store: &'s SqlStore, name: &str) -> Self {
        let vm = Self::begun(store, name).await;
        vm.operate(OperationKind::Create).await;
        vm.operate(OperationKind::Attach).await;
        vm.publish().await;
        vm.copy().await;
        vm
    }

    /// With one committed epoch.
    pub(crate) async fn committed(store: &'s SqlStore, name: &str) -> Self {
        let vm = Self::copying(store, name).await;
        vm.withdraw().await;
        vm.commit().await;
        vm
    }

    /// Another job on it.
    pub(crate) async fn again(&mut self) {
        self.lease = begin(self.store, &self.context, ReplicationType::Incremental).await;
        self.epoch += 1;
    }

    pub(crate) async fn operate(&self, kind: OperationKind) {
        let spec = OperationSpec {
            volume: (kind != OperationKind::Create).then(|| self.volume.clone()),
            capacity: Some(ByteSize::gib(40)),
            ..OperationSpec::new(OperationId::mint(), kind, self.disk(), self.lease.job.clone())
        };
        VolumeRegistry::begin(self.store, &self.lease, &spec).await.unwrap();
        let done = Volume {
            id: self.volume.clone(),
            name: format!("migration-{0}-{0}-disk-0", self.context.name),
            capacity: ByteSize::gib(40),
            tag: None,
            device_path: Some(format!("/dev/{}", self.volume)),
        };
        self.store.complete(&self.lease, &spec.id, &done, true).await.unwrap();
    }

    /// An operator wants its volume gone.
    pub(crate) async fn condemn(&mut self) {
        self.lease = hold(self.store, JobSpec::operate(minted(), self.disk())).await;
        let (id, job) = (OperationId::mint(), self.lease.job.clone());
        let spec = OperationSpec::new(id, OperationKind::Delete, self.disk(), job);
        let spec = OperationSpec { volume: Some(self.volume.clone()), ..spec };
        self.store.condemn(&self.lease, &spec, Duration::ZERO).await.unwrap();
        self.store.end(&self.lease, JobEnd::Done).await.unwrap();
    }

    /// It is due.
    pub(crate) async fn delete(&mut self) {
        self.lease = hold(self.store, JobSpec::operate(minted(), self.disk())).await;
        let condemned = self.store.unfinished(&self.disk()).await.unwrap().unwrap();
        self.store.execute(&self.lease, &condemned.spec.id).await.unwrap();
        let (capacity, tag, device_path) = (ByteSize::gib(40), None, None);
        let gone = Volume { id: self.volume.clone(), name: String::new(), capacity, tag, device_path };
        self.store.complete(&self.lease, &condemned.spec.id, &gone, false).await.unwrap();
        self.store.end(&self.lease, JobEnd::Done).await.unwrap();
    }

    pub(crate) async fn publish(&self) {
        let volume = &self.volume;
        ExportRegistry::begin(self.store, &self.lease, &self.export, &key(), volume).await.unwrap();
        self.export_moves(ExportEvent::Started).await;
    }

    pub(crate) async fn withdraw(&self) {
        self.export_moves(ExportEvent::Drain).await;
        self.export_moves(ExportEvent::Stopped).await;
        ExportRegistry::remove(self.store, &self.export).await.unwrap();
    }

    async fn export_moves(&self, event: ExportEvent) {
        ExportRegistry::advance(self.store, &self.lease, &self.export, event).await.unwrap();
    }

    /// Up to the first extents that are durable.
    pub(crate) async fn copy(&self) {
        for (from, event) in [
            (JobStatus::Initializing, JobEvent::Provision),
            (JobStatus::Provisioning, JobEvent::Prepared),
            (JobStatus::Ready, JobEvent::Copy),
        ] {
            self.advance(from, event).await;
        }
        let base = self.epoch.checked_sub(1).filter(|epoch| *epoch > 0).map(change);
        let sync_type = if base.is_some() { ReplicationType::Incremental } else { ReplicationType::Initial };
        let attempt =
            DiskAttempt { key: key(), change_id: change(self.epoch), previous: base.clone(), sync_type };
        ChangeIdRepo::begin(self.store, &self.lease, &attempt).await.unwrap();
        self.store.mark_inconsistent(&self.lease, &self.volume).await.unwrap();
        let basis = JournalBasis {
            generation: self.store.volume(&self.volume).await.unwrap().unwrap().generation,
            endpoint: Endpoint::parse("vcenter.example").unwrap(),
            content: PointId::parse(format!("point-{}", self.epoch)).unwrap(),
            change_id: attempt.change_id,
            base,
            capacity: ByteSize::gib(40),
        };
        let planned: ExtentSet = [Extent::between(0, 1 << 30).unwrap()].into_iter().collect();
        let entry = JournalEntry::new(basis, planned);
        ExtentJournal::begin(self.store, &self.lease, &key(), &entry).await.unwrap();
        for (start, end) in [(0, 4096), (65_536, 131_072)] {
            let extent = Extent::between(start, end).unwrap();
            ExtentJournal::record(self.store, &self.lease, &key(), extent, ByteSize::new(end)).await.unwrap();
        }
    }

    pub(crate) async fn commit(&self) {
        self.advance(JobStatus::Replicating, JobEvent::Copied).await;
        let disk = DiskCommit {
            key: key(),
            volume: self.volume.clone(),
            generation: self.store.volume(&self.volume).await.unwrap().unwrap().generation,
            change_id: change(self.epoch),
            capacity: ByteSize::mib(70),
            stamp: None,
            extents: 12,
            bytes_transferred: ByteSize::mib(70),
            duration: Duration::from_secs(3),
        };
        let vm = Inventory::context(self.store, &self.context.id).await.unwrap().unwrap();
        let commit = EpochCommit { context: vm.id, epoch: vm.epoch.next(), disks: vec![disk] };
        self.store.commit_epoch(&self.lease, &commit).await.unwrap();
    }

    pub(crate) async fn fail(&self) {
        self.store.end(&self.lease, JobEnd::Failed("the source went away".to_owned())).await.unwrap();
    }

    async fn advance(&self, from: JobStatus, event: JobEvent) {
        JobStore::advance(self.store, &self.lease, from, event).await.unwrap();
    }

    pub(crate) fn disk(&self) -> DiskRef {
        DiskRef { context: self.context.id.clone(), key: key() }
    }
}

async fn begin(store: &SqlStore, vm: &VmContext, kind: ReplicationType) -> Lease {
    hold(store, JobSpec::new(minted(), vm.id.clone(), kind, vec![key()])).await
}

fn minted() -> JobId {
    JobId::mint(Timestamp::from_millis(1_755_770_000_000))
}

async fn hold(store: &SqlStore, spec: JobSpec) -> Lease {
    let job = JobStore::insert(store, spec).await.unwrap();
    let worker = WorkerId::parse("appliance-1").unwrap();
    store.claim(&job.id, &worker, Duration::from_secs(600)).await.unwrap()
}

fn change(epoch: u64) -> ChangeId {
    ChangeId::parse(format!("52 3c ec 11 9e 2c 4c 3d-87 4a c3 4e 85 f2 ea 95/{epoch}")).unwrap()
}
