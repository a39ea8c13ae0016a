//! What every [`VolumeBackend`] promises.

mod create;
mod failing;
mod lifecycle;
mod open;
mod revert;
mod snapshots;

use std::fmt;
use std::sync::Arc;

use bytes::BytesMut;
use futures_util::TryStreamExt;

use super::runner::table;
use super::{Case, Guard, sample};
use crate::record::VolumeTag;
use crate::traits::{
    Access, BlockDevice, Durability, Provisioning, Snapshot, SnapshotSpec, Snapshots, Volume, VolumeBackend,
    VolumeSpec,
};
use crate::{
    ByteSize, ContextId, DiskKey, DiskRef, ErrorKind, Generation, InstanceId, JobId, OperationId, Result,
    SnapshotId, Timestamp, VolumeId,
};

/// More than a subject of [`full_backend_cases`] has room for.
pub const TOO_LARGE: ByteSize = ByteSize::mib(64);

/// A backend without volumes, to be put to the test.
pub struct BackendSubject {
    /// The backend.
    pub backend: Arc<dyn VolumeBackend>,
    /// The same volumes through another handle, as another process would have it.
    pub second: Arc<dyn VolumeBackend>,
    /// What it lives on.
    pub guard: Guard,
}

impl fmt::Debug for BackendSubject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BackendSubject").field("backend", &self.backend).finish_non_exhaustive()
    }
}

/// Cases over a backend that works.
#[must_use]
pub fn volume_backend_cases() -> Vec<Case<BackendSubject>> {
    let mut all = create::cases();
    all.extend(open::cases());
    all.extend(lifecycle::cases());
    all.extend(snapshots::cases());
    all.extend(revert::cases());
    all
}

/// Cases over a backend with room for 1 MiB, but not for [`TOO_LARGE`].
#[must_use]
pub fn full_backend_cases() -> Vec<Case<BackendSubject>> {
    use failing::{
        a_create_without_room_leaves_nothing, a_resize_without_room_changes_nothing,
        a_snapshot_without_room_leaves_nothing,
    };
    table![
        a_create_without_room_leaves_nothing,
        a_resize_without_room_changes_nothing,
        a_snapshot_without_room_leaves_nothing,
    ]
}

/// Cases over a backend whose volumes cannot be reached.
#[must_use]
pub fn unreachable_backend_cases() -> Vec<Case<BackendSubject>> {
    use failing::{
        l21_a_backend_that_cannot_be_asked_does_not_say_absent,
        l21_nothing_is_done_where_the_backend_cannot_be_asked,
    };
    table![
        l21_a_backend_that_cannot_be_asked_does_not_say_absent,
        l21_nothing_is_done_where_the_backend_cannot_be_asked,
    ]
}

/// The backend with comfort for tests.
struct Bench {
    backend: Arc<dyn VolumeBackend>,
    second: Arc<dyn VolumeBackend>,
    instance: InstanceId,
    _guard: Guard,
}

impl From<BackendSubject> for Bench {
    fn from(subject: BackendSubject) -> Self {
        let BackendSubject { backend, second, guard } = subject;
        Self { backend, second, instance: InstanceId::mint(), _guard: guard }
    }
}

impl Bench {
    /// A fresh intent: one MiB for `disk-2000`.
    fn spec(&self) -> VolumeSpec {
        VolumeSpec {
            operation: OperationId::mint(),
            tag: self.tag("disk-2000"),
            name: "web-disk-2000".to_owned(),
            capacity: ByteSize::mib(1),
            provisioning: Provisioning::Thin,
        }
    }

    fn tag(&self, key: &str) -> VolumeTag {
        let disk = DiskRef { context: ContextId::parse("ctx-1").unwrap(), key: DiskKey::parse(key).unwrap() };
        VolumeTag { instance: self.instance.clone(), disk, generation: Generation::FIRST }
    }

    /// Tags that prove nothing about a volume with `tag`: another deployment, disk, VM or generation.
    fn foreign(&self, tag: &VolumeTag) -> [VolumeTag; 5] {
        let mut others = [tag.clone(), tag.clone(), tag.clone(), tag.clone(), tag.clone()];
        others[0].instance = InstanceId::mint();
        others[1].disk.key = DiskKey::parse("disk-2001").unwrap();
        others[2].disk.context = ContextId::parse("ctx-2").unwrap();
        others[3].generation = tag.generation.next();
        others[4].generation = Generation(0);
        others
    }

    async fn created(&self) -> (Volume, VolumeTag) {
        let spec = self.spec();
        (self.backend.create(&spec).await.unwrap(), spec.tag)
    }

    async fn attached(&self) -> (Volume, VolumeTag) {
        let (volume, tag) = self.created().await;
        (self.backend.attach(&volume.id, &tag).await.unwrap(), tag)
    }

    /// A fresh snapshot of a volume, to be made for a job of its own.
    fn snapshot_of(&self, volume: &Volume, tag: &VolumeTag) -> SnapshotSpec {
        let job = JobId::mint(Timestamp::from_millis(1_700_000_000_000));
        SnapshotSpec { id: SnapshotId::mint(&job), volume: volume.id.clone(), tag: tag.clone(), job }
    }

    /// Other specs with the same id: of another volume, owner, disk, generation or job.
    fn mistaken(&self, spec: &SnapshotSpec) -> Vec<SnapshotSpec> {
        let job = JobId::mint(Timestamp::from_millis(0));
        let mut others =
            vec![SnapshotSpec { volume: unknown(), ..spec.clone() }, SnapshotSpec { job, ..spec.clone() }];
        others.extend(self.foreign(&spec.tag).map(|tag| SnapshotSpec { tag, ..spec.clone() }));
        others
    }

    /// Whether it makes snapshots; one that does not says so.
    async fn makes_snapshots(&self) -> bool {
        if self.backend.capabilities().snapshots != Snapshots::None {
            return true;
        }
        let (volume, tag) = self.created().await;
        let spec = self.snapshot_of(&volume, &tag);
        assert_eq!(kind(self.backend.snapshot(&spec).await), ErrorKind::Unsupported);
        assert_eq!(kind(self.backend.open_snapshot(&spec).await), ErrorKind::Unsupported);
        assert_eq!(kind(self.backend.revert(&volume.id, &tag, &spec).await), ErrorKind::Unsupported);
        self.backend.delete_snapshot(&spec).await.expect("an unknown one is deleted already");
        assert!(self.snapshots(&volume.id).await.is_empty());
        assert_eq!(self.get(&volume.id).await, Some(volume));
        false
    }

    async fn snapshots(&self, volume: &VolumeId) -> Vec<Snapshot> {
        self.second.snapshots(volume).try_collect().await.unwrap()
    }

    /// Fills the first MiB of a volume with what `seed` stands for.
    async fn fill(&self, volume: &Volume, tag: &VolumeTag, seed: u64) {
        let device = self.backend.open(&volume.id, tag, Access::ReadWrite).await.unwrap();
        device.write_at(0, sample(seed, 1 << 20), Durability::Durable).await.unwrap();
    }

    /// Whether the first MiB of a volume is what `seed` stands for.
    async fn holds(&self, volume: &Volume, tag: &VolumeTag, seed: u64) -> bool {
        let device = self.second.open(&volume.id, tag, Access::ReadOnly).await.unwrap();
        read(&*device, 0, 1 << 20).await == sample(seed, 1 << 20)
    }

    async fn snapshot_holds(&self, spec: &SnapshotSpec, seed: u64) -> bool {
        let device = self.second.open_snapshot(spec).await.unwrap();
        read(&*device, 0, 1 << 20).await == sample(seed, 1 << 20)
    }

    async fn get(&self, id: &VolumeId) -> Option<Volume> {
        self.backend.get(id).await.unwrap()
    }

    async fn list(&self) -> Vec<Volume> {
        self.backend.list(&self.instance).try_collect().await.unwrap()
    }
}

fn unknown() -> VolumeId {
    VolumeId::of_operation(&OperationId::mint())
}

fn kind<T: fmt::Debug>(result: Result<T>) -> ErrorKind {
    result.expect_err("this must be refused").kind()
}

async fn read(device: &dyn BlockDevice, offset: u64, length: usize) -> BytesMut {
    device.read_at(offset, BytesMut::zeroed(length)).await.unwrap()
}
