//! Volumes as raw images in a directory.
//!
//! ```text
//!  directory/
//!    vol-4f0c….raw     the image: sparse, exactly as large as the volume
//!    vol-4f0c….json    the ownership record: whose it is (instance, disk, generation), which operation made it
//!    snap-job-….raw    a snapshot: shares its blocks with the image where the file system can, else a sparse copy
//!    snap-job-….json   its ownership record: of which volume, for which job
//!    oma-volumes       the directory's id: see `FileConfig::identity`
//! ```
//!
//! A volume exists while its record says so; records are replaced whole. The id follows from the operation, so a create that
//! was interrupted anywhere is finished by the same create. Changes of records are made under a lock on the directory;
//! an open image is locked itself. Both locks hold for all processes and end with them.

mod clone;
mod config;
mod directory;
mod door;
mod error;
mod identity;
mod images;
mod record;
mod snapshots;

use std::sync::Arc;

use async_trait::async_trait;
use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream};
use oma_core::record::{ContentStamp, VolumeTag};
use oma_core::traits::{
    Access, BackendCapabilities, BlockDevice, Snapshot, SnapshotSpec, Snapshots, Volume, VolumeBackend,
    VolumeSpec,
};
use oma_core::{ByteSize, InstanceId, Result, VolumeId};

use self::clone::Caller;
use crate::device::blocking;
pub use config::FileConfig;
use directory::Directory;
pub(crate) use door::Door;
use door::Plain;
#[cfg(feature = "loopdev")]
pub(crate) use door::{DoorError, Held, Image, Places, identity};
pub(crate) use error::FileError;
use images::Images;

/// Volumes as raw images in a directory, for one or many processes.
#[derive(Clone, Debug)]
pub struct FileBackend {
    images: Arc<Images>,
    snapshots: Snapshots,
}

impl FileBackend {
    /// Opens the directory, made when it is not there, and removes what is left in it of snapshots whose maker was killed. Blocks
    /// shortly.
    ///
    /// # Errors
    /// `PermissionDenied`, `NoSpace`, `Unavailable` when the directory cannot be made or opened; `Unavailable` when it is not the one
    /// whose id is kept ([`FileConfig::identity`]).
    pub fn open(config: &FileConfig) -> Result<Self> {
        Self::through(config, Box::new(Plain))
    }

    /// The same volumes, reached in another way.
    pub(crate) fn through(config: &FileConfig, door: Box<dyn Door>) -> Result<Self> {
        let directory = Directory::open(config)
            .map_err(|error| error.about("open volume directory", &config.directory.display().to_string()))?;
        let images = Images::through(directory, door);
        if let Err(left) = images.sweep() {
            tracing::warn!(directory = %images.path().display(), %left, "what killed processes left of snapshots stays");
        }
        let snapshots = images.cost();
        Ok(Self { images: Arc::new(images), snapshots })
    }

    async fn run<T, F>(&self, operation: &'static str, resource: &str, call: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&Images) -> Result<T, FileError> + Send + 'static,
    {
        let images = self.images.clone();
        let path = images.path().to_owned();
        let answer = blocking(move || call(&images)).await.map_err(FileError::on(&path));
        answer.and_then(|answer| answer).map_err(|error| error.about(operation, resource))
    }
}

#[async_trait]
impl VolumeBackend for FileBackend {
    fn capabilities(&self) -> BackendCapabilities {
        let snapshots = self.snapshots;
        BackendCapabilities { zeroed_on_create: true, resize: true, content_stamp: true, snapshots }
    }

    async fn create(&self, spec: &VolumeSpec) -> Result<Volume> {
        let wanted = spec.clone();
        self.run("create volume", &spec.name, move |images| images.create(&wanted)).await
    }

    async fn get(&self, id: &VolumeId) -> Result<Option<Volume>> {
        let wanted = id.clone();
        self.run("find volume", id.as_str(), move |images| images.get(&wanted)).await
    }

    fn list(&self, instance: &InstanceId) -> BoxStream<'_, Result<Volume>> {
        let (wanted, about) = (instance.clone(), instance.to_string());
        let items = async move {
            let found = self.run("list volumes", &about, move |images| Ok(images.list(&wanted)));
            found.await.unwrap_or_else(|error| vec![Err(error)])
        };
        stream::once(items).flat_map(stream::iter).boxed()
    }

    async fn retag(&self, id: &VolumeId, tag: &VolumeTag) -> Result<()> {
        let (wanted, tag) = (id.clone(), tag.clone());
        self.run("retag volume", id.as_str(), move |images| images.retag(&wanted, &tag)).await
    }

    async fn attach(&self, id: &VolumeId, tag: &VolumeTag) -> Result<Volume> {
        let (wanted, tag) = (id.clone(), tag.clone());
        self.run("attach volume", id.as_str(), move |images| images.attach(&wanted, &tag)).await
    }

    async fn detach(&self, id: &VolumeId, tag: &VolumeTag) -> Result<Volume> {
        let (wanted, tag) = (id.clone(), tag.clone());
        self.run("detach volume", id.as_str(), move |images| images.detach(&wanted, &tag)).await
    }

    async fn open(&self, id: &VolumeId, tag: &VolumeTag, access: Access) -> Result<Arc<dyn BlockDevice>> {
        let (wanted, tag) = (id.clone(), tag.clone());
        let device = self.run("open volume", id.as_str(), move |images| images.open(&wanted, &tag, access));
        Ok(Arc::new(device.await?))
    }

    async fn resize(&self, id: &VolumeId, tag: &VolumeTag, capacity: ByteSize) -> Result<Volume> {
        let (wanted, tag) = (id.clone(), tag.clone());
        self.run("resize volume", id.as_str(), move |images| images.resize(&wanted, &tag, capacity)).await
    }

    async fn content_stamp(&self, id: &VolumeId) -> Result<Option<ContentStamp>> {
        let wanted = id.clone();
        self.run("stamp volume", id.as_str(), move |images| images.content_stamp(&wanted).map(Some)).await
    }

    async fn delete(&self, id: &VolumeId, tag: &VolumeTag) -> Result<()> {
        let (wanted, tag) = (id.clone(), tag.clone());
        self.run("delete volume", id.as_str(), move |images| images.delete(&wanted, &tag)).await
    }

    async fn snapshot(&self, spec: &SnapshotSpec) -> Result<Snapshot> {
        let (wanted, caller) = (spec.clone(), Caller::default());
        let waiting = caller.waiting();
        let call = move |images: &Images| images.snapshot(&wanted, &waiting);
        self.run("snapshot volume", spec.volume.as_str(), call).await
    }

    fn snapshots(&self, volume: &VolumeId) -> BoxStream<'_, Result<Snapshot>> {
        let (wanted, about) = (volume.clone(), volume.to_string());
        let items = async move {
            let found = self.run("list snapshots", &about, move |images| images.snapshots(&wanted));
            found.await.unwrap_or_else(|error| vec![Err(error)])
        };
        stream::once(items).flat_map(stream::iter).boxed()
    }

    async fn open_snapshot(&self, spec: &SnapshotSpec) -> Result<Arc<dyn BlockDevice>> {
        let wanted = spec.clone();
        let device = self.run("open snapshot", spec.id.as_str(), move |images| images.open_snapshot(&wanted));
        Ok(Arc::new(device.await?))
    }

    async fn revert(&self, id: &VolumeId, tag: &VolumeTag, snapshot: &SnapshotSpec) -> Result<Volume> {
        let (wanted, tag, to, caller) = (id.clone(), tag.clone(), snapshot.clone(), Caller::default());
        let waiting = caller.waiting();
        let call = move |images: &Images| images.revert(&wanted, &tag, &to, &waiting);
        self.run("revert volume", id.as_str(), call).await
    }

    async fn delete_snapshot(&self, spec: &SnapshotSpec) -> Result<()> {
        let wanted = spec.clone();
        self.run("delete snapshot", spec.id.as_str(), move |images| images.delete_snapshot(&wanted)).await
    }
}
