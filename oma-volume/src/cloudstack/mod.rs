//! Volumes of a CloudStack zone on KVM, attached to the virtual machine that this program runs in.
//!
//! ```text
//!  CloudStackBackend
//!    volumes, create, attach, detach
//!                               what is true is asked of the cloud (listVolumes) and of this machine (serial), never remembered
//!    jobs                       each change under a job id of ours; a lost answer is resolved by asking for that job
//!    client                     signed, POST only, slower when told to; refusals by code
//!    transport                  HTTP/1.1 with TLS, verified
//! ```
//!
//! Nothing is kept here: a process that was killed at any point loses nothing, and the same call made again finishes what was begun.
//! Whose a volume is, its tags say. It is used when the cloud says that it is attached here and a disk of this machine has its
//! serial and its size; both are looked at again at each open.
//!
//! # What it cannot do
//! * **Snapshots.** CloudStack copies a snapshot to secondary storage, reads it only by making a new volume of it, and reverts only
//!   while no running machine has the volume. So [`capabilities`](VolumeBackend::capabilities) says
//!   [`Snapshots::None`].
//! * **Content stamps.** CloudStack does not tell whether somebody wrote to a volume.
//! * **Thick volumes.** The disk offering decides, whatever [`Provisioning`](oma_core::traits::Provisioning) is asked for.
//!
//! # What it was tried with
//! A fake CloudStack in `tests/cloudstack`, which was written from the server's source and documents, and no real one.

mod api;
mod attach;
mod client;
mod config;
mod create;
mod detach;
mod envelope;
mod error;
mod jobs;
mod kept;
mod keys;
mod marks;
mod pauses;
mod placed;
mod preflight;
mod refusal;
mod request;
#[cfg(test)]
mod script;
mod seen;
mod signature;
mod transport;
mod tries;
mod volumes;

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream};
use oma_core::record::{ContentStamp, VolumeTag};
use oma_core::traits::{
    Access, BackendCapabilities, BlockDevice, Snapshot, SnapshotSpec, Snapshots, Volume, VolumeBackend,
    VolumeSpec,
};
use oma_core::{ByteSize, Clock, InstanceId, Result, SystemClock, VolumeId};

use client::Client;
pub use config::{Account, CloudStackConfig};
use error::CloudError;
pub use keys::Keys;
use placed::Placed;
pub use preflight::{Check, Finding, Preflight, Verdict};
use transport::Http;
use volumes::Cloud;

/// Volumes of a CloudStack zone. Clones share their connections.
#[derive(Clone)]
pub struct CloudStackBackend {
    cloud: Arc<Cloud>,
}

impl fmt::Debug for CloudStackBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CloudStackBackend")
            .field("endpoint", &self.cloud.config.endpoint)
            .finish_non_exhaustive()
    }
}

impl CloudStackBackend {
    /// Takes the configuration and reads the file of authorities. It asks nobody yet: [`preflight`](Self::preflight) does.
    ///
    /// # Errors
    /// `Invalid` for an endpoint, an id or a file that cannot be used.
    pub fn new(config: CloudStackConfig, keys: Keys) -> Result<Self> {
        Self::with_clock(config, keys, Arc::new(SystemClock))
    }

    /// The same with another clock, by which requests expire.
    ///
    /// # Errors
    /// As [`CloudStackBackend::new`].
    pub fn with_clock(config: CloudStackConfig, keys: Keys, clock: Arc<dyn Clock>) -> Result<Self> {
        let invalid = |error: CloudError| error.about("set up CloudStack", "its configuration");
        config.check().map_err(invalid)?;
        let transport = Arc::new(Http::new(&config).map_err(invalid)?);
        let client = Client::new(transport, keys, clock, &config);
        Ok(Self { cloud: Arc::new(Cloud::new(client, config)) })
    }

    /// Asks the cloud whether everything that replication will need is there, and says what to do where it is not.
    ///
    /// # Errors
    /// `Unavailable` when the cloud cannot be asked, `PermissionDenied` when it does not let these keys in.
    pub async fn preflight(&self) -> Result<Preflight> {
        self.cloud
            .preflight()
            .await
            .map_err(|error| error.about("check CloudStack", &self.cloud.config.endpoint))
    }

    /// What every call on snapshots begins with: whether the cloud can be asked at all (L21).
    async fn look(&self, operation: &'static str, id: &VolumeId) -> Result<()> {
        self.cloud.look(id.as_str()).await.map(drop).map_err(|error| error.about(operation, id.as_str()))
    }

    async fn no_snapshots<T>(&self, operation: &'static str, id: &VolumeId) -> Result<T> {
        self.look(operation, id).await?;
        Err(CloudError::NoSnapshots.about(operation, id.as_str()))
    }
}

#[async_trait]
impl VolumeBackend for CloudStackBackend {
    fn capabilities(&self) -> BackendCapabilities {
        let zeroes = self.cloud.config.new_space_reads_as_zero;
        BackendCapabilities {
            zeroed_on_create: zeroes,
            resize: zeroes,
            content_stamp: false,
            snapshots: Snapshots::None,
        }
    }

    async fn create(&self, spec: &VolumeSpec) -> Result<Volume> {
        self.cloud.create(spec).await.map_err(|error| error.about("create volume", &spec.name))
    }

    async fn get(&self, id: &VolumeId) -> Result<Option<Volume>> {
        self.cloud.get(id).await.map_err(|error| error.about("find volume", id.as_str()))
    }

    fn list(&self, instance: &InstanceId) -> BoxStream<'_, Result<Volume>> {
        let instance = instance.clone();
        let about = |error: CloudError| error.about("list volumes", &self.cloud.config.endpoint);
        let found = async move {
            match self.cloud.list(&instance).await {
                Ok(found) => found.into_iter().map(Ok).collect(),
                Err(error) => vec![Err(about(error))],
            }
        };
        let described = async move |found: Result<Placed>| {
            let found = found?;
            self.cloud.describe(&found).await.map_err(|error| error.about("list volumes", &found.volume.id))
        };
        stream::once(found).flat_map(stream::iter).then(described).boxed()
    }

    async fn retag(&self, id: &VolumeId, tag: &VolumeTag) -> Result<()> {
        self.cloud.retag(id, tag).await.map_err(|error| error.about("retag volume", id.as_str()))
    }

    async fn attach(&self, id: &VolumeId, tag: &VolumeTag) -> Result<Volume> {
        self.cloud.attach(id, tag).await.map_err(|error| error.about("attach volume", id.as_str()))
    }

    async fn detach(&self, id: &VolumeId, tag: &VolumeTag) -> Result<Volume> {
        self.cloud.detach(id, tag).await.map_err(|error| error.about("detach volume", id.as_str()))
    }

    async fn open(&self, id: &VolumeId, tag: &VolumeTag, access: Access) -> Result<Arc<dyn BlockDevice>> {
        let device = self.cloud.open(id, tag, access).await;
        Ok(Arc::new(device.map_err(|error| error.about("open volume", id.as_str()))?))
    }

    async fn resize(&self, id: &VolumeId, tag: &VolumeTag, capacity: ByteSize) -> Result<Volume> {
        let resized = self.cloud.resize(id, tag, capacity).await;
        resized.map_err(|error| error.about("resize volume", id.as_str()))
    }

    async fn content_stamp(&self, id: &VolumeId) -> Result<Option<ContentStamp>> {
        let operation = "stamp volume";
        let about = |error: CloudError| error.about(operation, id.as_str());
        let found = self.cloud.look(id.as_str()).await.map_err(about)?;
        found.map(|_| None).ok_or_else(|| about(CloudError::Unknown))
    }

    async fn delete(&self, id: &VolumeId, tag: &VolumeTag) -> Result<()> {
        self.cloud.delete(id, tag).await.map_err(|error| error.about("delete volume", id.as_str()))
    }

    async fn snapshot(&self, spec: &SnapshotSpec) -> Result<Snapshot> {
        self.no_snapshots("snapshot volume", &spec.volume).await
    }

    fn snapshots(&self, volume: &VolumeId) -> BoxStream<'_, Result<Snapshot>> {
        let volume = volume.clone();
        let none = async move { self.look("list snapshots", &volume).await.err() };
        stream::once(none).filter_map(async |error| error.map(Err)).boxed()
    }

    async fn open_snapshot(&self, spec: &SnapshotSpec) -> Result<Arc<dyn BlockDevice>> {
        self.no_snapshots("open snapshot", &spec.volume).await
    }

    async fn revert(&self, id: &VolumeId, _: &VolumeTag, _: &SnapshotSpec) -> Result<Volume> {
        self.no_snapshots("revert volume", id).await
    }

    /// None was ever made.
    async fn delete_snapshot(&self, spec: &SnapshotSpec) -> Result<()> {
        self.look("delete snapshot", &spec.volume).await
    }
}
