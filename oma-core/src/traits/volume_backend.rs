use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use futures_util::stream::BoxStream;
use serde::{Deserialize, Serialize};

use crate::record::{ContentStamp, VolumeTag};
use crate::traits::{Access, BlockDevice};
use crate::{ByteSize, InstanceId, JobId, OperationId, Result, SnapshotId, VolumeId};

/// What a backend can do beyond what every one can.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BackendCapabilities {
    /// A new volume reads as zero everywhere.
    pub zeroed_on_create: bool,
    /// Volumes can grow; otherwise [`VolumeBackend::resize`] answers `Unsupported`.
    pub resize: bool,
    /// It can tell whether somebody wrote to a volume; otherwise stamps are `None`.
    pub content_stamp: bool,
    /// What a snapshot costs.
    pub snapshots: Snapshots,
}

/// What it costs a backend to freeze the content of a volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Snapshots {
    /// It cannot: [`VolumeBackend::snapshot`] answers `Unsupported`.
    None,
    /// Time and space of a copy.
    ByCopy,
    /// Next to nothing: blocks are shared until one of both is written.
    Instant,
}

/// Whether space is allocated when a volume is made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Provisioning {
    /// As it is written.
    #[default]
    Thin,
    /// All at once.
    Thick,
}

/// A volume to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VolumeSpec {
    /// The intent it belongs to: the idempotency key.
    pub operation: OperationId,
    /// Its mark of ownership.
    pub tag: VolumeTag,
    /// A name for readers.
    pub name: String,
    /// Its size; a backend may round up.
    pub capacity: ByteSize,
    /// When space is allocated.
    pub provisioning: Provisioning,
}

/// A volume as the backend describes it now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Volume {
    /// Its id, given by the backend.
    pub id: VolumeId,
    /// Its name.
    pub name: String,
    /// Its size, at least what was asked for.
    pub capacity: ByteSize,
    /// Its mark of ownership; `None` when it bears none of ours.
    pub tag: Option<VolumeTag>,
    /// Its local device or file, while attached.
    pub device_path: Option<String>,
}

/// A snapshot of a volume: what it is made with, and what names it ever after. Only the whole value proves whose it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SnapshotSpec {
    /// Minted by the caller: the idempotency key.
    pub id: SnapshotId,
    /// The volume.
    pub volume: VolumeId,
    /// The volume's mark of ownership when the snapshot is made.
    pub tag: VolumeTag,
    /// The job that it is made for (L20).
    pub job: JobId,
}

impl SnapshotSpec {
    /// A name for readers, with the job's id (L20).
    #[must_use]
    pub fn name(&self) -> String {
        format!("{}@{}", self.tag.disk.key, self.job)
    }
}

/// A snapshot as the backend describes it now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// What it was made with.
    pub spec: SnapshotSpec,
    /// Its name.
    pub name: String,
    /// The size of the volume when it was made.
    pub capacity: ByteSize,
}

/// Where volumes live. Nothing changes a volume without proof of ownership at the moment of the call (L02): the tag given
/// must be the tag the backend finds on it, else [`ErrorKind::PermissionDenied`](crate::ErrorKind::PermissionDenied) and
/// nothing is done. An unknown volume is [`ErrorKind::NotFound`](crate::ErrorKind::NotFound).
#[async_trait]
pub trait VolumeBackend: fmt::Debug + Send + Sync + 'static {
    /// What it can do.
    fn capabilities(&self) -> BackendCapabilities;

    /// Makes a volume, durably, and answers it. Idempotent by operation: again answers the volume made before.
    ///
    /// # Errors
    /// `AlreadyExists` when the operation made a volume with another tag or a smaller one; `Invalid` for a size of zero or
    /// beyond what it can do; `NoSpace`, and nothing is left behind.
    async fn create(&self, spec: &VolumeSpec) -> Result<Volume>;

    /// The volume as it is now; `None` when the backend knows for sure that there is none (L21).
    async fn get(&self, id: &VolumeId) -> Result<Option<Volume>>;

    /// All volumes that bear this deployment's tag, in any order.
    fn list(&self, instance: &InstanceId) -> BoxStream<'_, Result<Volume>>;

    /// Marks a volume of the same instance and disk with a generation that is at least the one it has. Idempotent.
    ///
    /// # Errors
    /// `PermissionDenied` for another instance or disk, and for a smaller generation.
    async fn retag(&self, id: &VolumeId, tag: &VolumeTag) -> Result<()>;

    /// Makes it visible as a local device or file, proven to be this volume (L05). Idempotent.
    async fn attach(&self, id: &VolumeId, tag: &VolumeTag) -> Result<Volume>;

    /// Takes the local device away. Idempotent.
    ///
    /// # Errors
    /// `Busy` while it is open.
    async fn detach(&self, id: &VolumeId, tag: &VolumeTag) -> Result<Volume>;

    /// Opens an attached volume; for writing at most once at a time, in this process and in all others (L06). The lock
    /// ends with the last clone of the device and with the process. A device that loses it sooner, as with the connection to
    /// the machine that holds it, fails for ever: none of its flushes succeeds any more.
    ///
    /// # Errors
    /// `Conflict` when it is not attached; `Busy` while somebody writes to it, or, for writing, while somebody has it open.
    async fn open(&self, id: &VolumeId, tag: &VolumeTag, access: Access) -> Result<Arc<dyn BlockDevice>>;

    /// Makes a volume larger; the new part reads as zero. A size that it has already, or less, changes nothing.
    ///
    /// # Errors
    /// `Unsupported`; `Busy` while it is open; `NoSpace`.
    async fn resize(&self, id: &VolumeId, tag: &VolumeTag, capacity: ByteSize) -> Result<Volume>;

    /// What its content looks like from outside now; `None` when the backend cannot tell. Two equal stamps: nobody wrote
    /// in between. Every write changes the stamp, at the latest when it is flushed.
    async fn content_stamp(&self, id: &VolumeId) -> Result<Option<ContentStamp>>;

    /// Destroys a volume; its snapshots stay. Idempotent: an unknown one is `Ok`.
    ///
    /// # Errors
    /// `Busy` while it is open.
    async fn delete(&self, id: &VolumeId, tag: &VolumeTag) -> Result<()>;

    /// Freezes what a volume holds now, durably, and answers it. The volume need not be attached. Idempotent by id: again
    /// answers the snapshot made before, whatever the volume holds meanwhile. A call that is given up ends soon, for whoever is
    /// next needs the volume; it may have made the snapshot, or may yet.
    ///
    /// # Errors
    /// `Unsupported`; `Busy` while somebody writes to the volume; `AlreadyExists` when the id names a snapshot that was made
    /// with another volume, tag or job; `NoSpace`, and nothing is left behind.
    async fn snapshot(&self, spec: &SnapshotSpec) -> Result<Snapshot>;

    /// The snapshots of a volume that bear marks of ours, also when the volume is gone, in any order.
    fn snapshots(&self, volume: &VolumeId) -> BoxStream<'_, Result<Snapshot>>;

    /// Opens a snapshot for reading; the volume may be written meanwhile.
    ///
    /// # Errors
    /// `Unsupported`; `NotFound`; `PermissionDenied` when the snapshot of this id was made with something else.
    async fn open_snapshot(&self, spec: &SnapshotSpec) -> Result<Arc<dyn BlockDevice>>;

    /// Gives a volume the content of a snapshot of it, durably and at once: after a crash it has the content of before or
    /// that of the snapshot. Size and tag stay; what the snapshot does not reach reads as zero; the stamp changes. Idempotent.
    ///
    /// # Errors
    /// `Unsupported`; `Busy` while the volume is open; `NotFound` also for an unknown snapshot; `Invalid` for one of another
    /// volume; `PermissionDenied` also when the snapshot was made with something else; `NoSpace`, and nothing changed.
    async fn revert(&self, id: &VolumeId, tag: &VolumeTag, snapshot: &SnapshotSpec) -> Result<Volume>;

    /// Destroys a snapshot. Idempotent: an unknown one is `Ok`.
    ///
    /// # Errors
    /// `PermissionDenied` when the snapshot of this id was made with another volume, tag or job (L20); `Busy` while it is
    /// open or being made.
    async fn delete_snapshot(&self, spec: &SnapshotSpec) -> Result<()>;
}
