//! Volumes as loop devices: what [`FileBackend`] keeps as images, as block devices `/dev/loopN` of this machine.
//!
//! ```text
//!  VolumeBackend ─▶ FileBackend: records, images, snapshots ─▶ vol-4f0c….raw      locked by the device, which keeps it open
//!                        └─ attach, open ─▶ /dev/loop3  "oma:vol-4f0c…"            direct I/O; locked by who opens it
//! ```
//!
//! A volume is attached while the kernel has a device of its image, so after a restart of the machine none is; attach makes it
//! again. What is recorded is only that it should be. An attach that was killed before it was recorded left a device, which the next
//! one finds by asking the kernel. Devices that somebody else made are never touched; one of a volume's image stands in the way.
//!
//! A device leaves out what is no whole block at the end of its image. So capacities are whole blocks of 4096 bytes, rounded up, and a
//! volume that a [`FileBackend`] made with another size grows when it is attached (L13).
//!
//! The directory may be a `FileBackend`'s as well: while a volume is attached here, its image is busy there.

mod bound;
mod config;
mod control;
mod error;
mod loops;

use std::sync::Arc;

use async_trait::async_trait;
use futures_util::stream::BoxStream;
use oma_core::record::{ContentStamp, VolumeTag};
use oma_core::traits::{
    Access, BackendCapabilities, BlockDevice, Snapshot, SnapshotSpec, Volume, VolumeBackend, VolumeSpec,
};
use oma_core::{ByteSize, InstanceId, Result, VolumeId};

use crate::file::{FileBackend, FileConfig, FileError};
pub use config::LoopConfig;
use loops::Loops;

/// Volumes as loop devices over raw images in a directory, for one or many processes of one machine.
#[derive(Clone, Debug)]
pub struct LoopBackend {
    inner: FileBackend,
}

impl LoopBackend {
    /// Opens the directory as [`FileBackend::open`] does. Blocks shortly.
    ///
    /// # Errors
    /// `Unsupported` where the kernel has no loop devices; `PermissionDenied` without the right to administer the machine; those of
    /// [`FileBackend::open`].
    pub fn open(config: &LoopConfig) -> Result<Self> {
        let LoopConfig { directory, identity } = config.clone();
        let about = directory.display().to_string();
        let loops =
            Loops::new().map_err(|error| FileError::from(error).about("open volume directory", &about))?;
        Ok(Self { inner: FileBackend::through(&FileConfig { directory, identity }, Box::new(loops))? })
    }
}

#[deny(clippy::missing_trait_methods, reason = "every call goes on to the images")]
#[async_trait]
impl VolumeBackend for LoopBackend {
    fn capabilities(&self) -> BackendCapabilities {
        self.inner.capabilities()
    }

    async fn create(&self, spec: &VolumeSpec) -> Result<Volume> {
        self.inner.create(spec).await
    }

    async fn get(&self, id: &VolumeId) -> Result<Option<Volume>> {
        self.inner.get(id).await
    }

    fn list(&self, instance: &InstanceId) -> BoxStream<'_, Result<Volume>> {
        self.inner.list(instance)
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
