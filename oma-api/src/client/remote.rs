use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use futures_util::stream::{self, BoxStream, StreamExt, TryStreamExt};
use oma_core::record::{ContentStamp, VolumeTag};
use oma_core::traits::{
    Access, BackendCapabilities, BlockDevice, Snapshot, SnapshotSpec, Volume, VolumeBackend, VolumeSpec,
};
use oma_core::{ByteSize, Error, ErrorKind, InstanceId, Result, VolumeId};
use reqwest::Method;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::config::{RemoteConfig, Token};
use super::device::RemoteDevice;
use super::error::Failure;
use super::http::{Http, read};
use super::lines::{Lines, entries};
use super::session::Session;
use crate::backend::{
    BackendSnapshot, BackendVolume, Capabilities, Create, Open, Proof, Resize, Revert, SnapshotMark, Stamp,
};

/// Opens what a volume daemon serves.
#[async_trait]
pub trait ExportOpener: fmt::Debug + Send + Sync + 'static {
    /// Opens the export at a URI that the daemon named. Dropped, the device is closed at once.
    ///
    /// # Errors
    /// `Unavailable` when it cannot be reached; `Invalid` when the URI is none.
    async fn open(&self, uri: &str, access: Access) -> Result<Arc<dyn BlockDevice>>;
}

/// Volumes of a volume daemon, reached over HTTP; their content over what the daemon serves them by. A clone is another handle on the
/// same daemon.
///
/// It keeps no records: whoever uses it records its intents, and gives tags of its own deployment. A call that is dropped, or whose
/// connection is lost, was done or not; the same call again tells which, as with every backend. What is due at once is waited for as long
/// as the configuration says; a change has no limit of time but the one for connecting: whoever calls gives up by dropping it, and the
/// daemon's call is dropped with it.
///
/// A device is open at the daemon for as long as the connection of its session stands. It ends with the last clone of the device, with
/// this process and with the daemon; then the lock is free. A device's path is the one on the daemon's machine, with the daemon's
/// address before it.
#[derive(Clone, Debug)]
pub struct RemoteBackend {
    http: Arc<Http>,
    opener: Arc<dyn ExportOpener>,
    capabilities: BackendCapabilities,
}

impl RemoteBackend {
    /// Asks a daemon what it can do; what it answers is taken to stay so.
    ///
    /// # Errors
    /// `Invalid` for a configuration that can never work; `Unavailable` when no daemon answers; `PermissionDenied` when it does not let
    /// the token in, or when its certificate is not trusted; `Unsupported` when it speaks another version.
    pub async fn connect(
        config: &RemoteConfig,
        token: Option<Token>,
        opener: Arc<dyn ExportOpener>,
    ) -> Result<Self> {
        let operation = "connect to volume daemon";
        let asked = config.clone();
        // It reads files.
        let made = tokio::task::spawn_blocking(move || Http::new(&asked, token)).await;
        let made = made.unwrap_or(Err(Failure::Tls));
        let http = made.map_err(|failure| failure.at(operation, shown(&config.address)))?;
        let asked = async { read::<Capabilities>(http.get(&["capabilities"], &[]).await?).await };
        let told = http.promptly(asked).await.map_err(|failure| failure.at(operation, http.name()))?;
        Ok(Self { http: Arc::new(http), opener, capabilities: told.into() })
    }

    async fn get_json<T: DeserializeOwned>(&self, path: &[&str]) -> Result<T, Failure> {
        self.http.promptly(async { read(self.http.get(path, &[]).await?).await }).await
    }

    async fn post<T: DeserializeOwned>(&self, path: &[&str], body: &impl Serialize) -> Result<T, Failure> {
        read(self.http.send_to(Method::POST, path, body).await?).await
    }

    /// Asks for a change that answers a volume.
    async fn change(
        &self,
        operation: &'static str,
        id: &VolumeId,
        verb: &str,
        body: &impl Serialize,
    ) -> Result<Volume> {
        let told = self.post(&["volumes", id.as_str(), verb], body).await;
        told.map(|volume| self.volume(volume)).map_err(|failure| failure.at(operation, id))
    }

    /// A volume as it is seen from here: its path is one of another machine.
    fn volume(&self, told: BackendVolume) -> Volume {
        let mut volume = Volume::from(told);
        volume.device_path = volume.device_path.map(|path| format!("{}:{path}", self.http.name()));
        volume
    }

    /// Opens what a session's answer says.
    async fn device(
        &self,
        path: &[&str],
        asked: &impl Serialize,
        operation: &'static str,
        identity: String,
        access: Access,
    ) -> Result<Arc<dyn BlockDevice>> {
        let told = async {
            let mut lines = Lines::new(self.http.send_to(Method::POST, path, asked).await?);
            let told: crate::backend::Session = lines.next().await?;
            Ok((told.uri.clone(), Session::new(lines.into_response(), self.http.clone(), told)))
        };
        let failed = |failure: Failure| failure.at(operation, &identity);
        let (uri, session) = self.http.promptly(told).await.map_err(failed)?;
        self.http.check_content(&uri).map_err(failed)?;
        let opened = self.opener.open(&uri, access).await;
        let inner = opened.map_err(|error| not_opened(error, operation, &identity))?;
        Ok(Arc::new(RemoteDevice::new(identity, inner, session)))
    }
}

/// The volume is there and open, but what it is served by cannot be reached: nothing that is answered there is said of the volume.
fn not_opened(error: Error, operation: &'static str, identity: &str) -> Error {
    let kind = match error.kind() {
        kind @ (ErrorKind::Invalid | ErrorKind::PermissionDenied | ErrorKind::Unsupported) => kind,
        _ => ErrorKind::Unavailable,
    };
    Error::new(kind, operation, identity).with_retry(error.retry()).with_source(error)
}

/// An address as an error may show it: without what stands before an `@` or after a `?`.
fn shown(address: &str) -> &str {
    let shown = address.rsplit('@').next().unwrap_or_default();
    shown.split(['?', '#']).next().unwrap_or_default()
}

#[async_trait]
impl VolumeBackend for RemoteBackend {
    fn capabilities(&self) -> BackendCapabilities {
        self.capabilities
    }

    async fn create(&self, spec: &VolumeSpec) -> Result<Volume> {
        let told = self.post(&["volumes"], &Create::from(spec.clone())).await;
        told.map(|told| self.volume(told)).map_err(|failure| failure.at("create volume", &spec.operation))
    }

    async fn get(&self, id: &VolumeId) -> Result<Option<Volume>> {
        let told: Result<Option<BackendVolume>, _> = self.get_json(&["volumes", id.as_str()]).await;
        let told = told.map_err(|failure| failure.at("find volume", id))?;
        Ok(told.map(|told| self.volume(told)))
    }

    fn list(&self, instance: &InstanceId) -> BoxStream<'_, Result<Volume>> {
        let instance = instance.clone();
        let (http, of) = (&self.http, instance.clone());
        let answer = async move { http.get(&["volumes"], &[("instance", instance.as_str())]).await };
        let limit = http.answer_limit();
        stream::once(http.promptly(answer))
            .map_ok(move |answer| entries::<BackendVolume>(answer, limit))
            .try_flatten()
            .map(move |entry| {
                entry.map(|told| self.volume(told)).map_err(|failure| failure.at("list volumes", &of))
            })
            .boxed()
    }

    async fn retag(&self, id: &VolumeId, tag: &VolumeTag) -> Result<()> {
        let proof = Proof { tag: tag.clone().into() };
        let answer = self.http.send_to(Method::PUT, &["volumes", id.as_str(), "tag"], &proof).await;
        answer.map(drop).map_err(|failure| failure.at("retag volume", id))
    }

    async fn attach(&self, id: &VolumeId, tag: &VolumeTag) -> Result<Volume> {
        self.change("attach volume", id, "attach", &Proof { tag: tag.clone().into() }).await
    }

    async fn detach(&self, id: &VolumeId, tag: &VolumeTag) -> Result<Volume> {
        self.change("detach volume", id, "detach", &Proof { tag: tag.clone().into() }).await
    }

    async fn open(&self, id: &VolumeId, tag: &VolumeTag, access: Access) -> Result<Arc<dyn BlockDevice>> {
        let asked = Open { tag: tag.clone().into(), access: access.into() };
        let identity = format!("{}:{id}", self.http.name());
        self.device(&["volumes", id.as_str(), "open"], &asked, "open volume", identity, access).await
    }

    async fn resize(&self, id: &VolumeId, tag: &VolumeTag, capacity: ByteSize) -> Result<Volume> {
        let asked = Resize { tag: tag.clone().into(), capacity_bytes: capacity };
        self.change("resize volume", id, "resize", &asked).await
    }

    async fn content_stamp(&self, id: &VolumeId) -> Result<Option<ContentStamp>> {
        let told: Result<Stamp, _> = self.get_json(&["volumes", id.as_str(), "stamp"]).await;
        let told = told.map_err(|failure| failure.at("stamp volume", id))?;
        Ok(told.stamp.map(ContentStamp))
    }

    async fn delete(&self, id: &VolumeId, tag: &VolumeTag) -> Result<()> {
        let proof = Proof { tag: tag.clone().into() };
        let answer = self.http.send_to(Method::POST, &["volumes", id.as_str(), "delete"], &proof).await;
        answer.map(drop).map_err(|failure| failure.at("delete volume", id))
    }

    async fn snapshot(&self, spec: &SnapshotSpec) -> Result<Snapshot> {
        let told = self.post::<BackendSnapshot>(&["snapshots"], &SnapshotMark::from(spec.clone())).await;
        told.map(Into::into).map_err(|failure| failure.at("snapshot volume", &spec.volume))
    }

    fn snapshots(&self, volume: &VolumeId) -> BoxStream<'_, Result<Snapshot>> {
        let (http, id, of) = (&self.http, volume.clone(), volume.clone());
        let answer = async move { http.get(&["volumes", id.as_str(), "snapshots"], &[]).await };
        let limit = http.answer_limit();
        stream::once(http.promptly(answer))
            .map_ok(move |answer| entries::<BackendSnapshot>(answer, limit))
            .try_flatten()
            .map(move |entry| entry.map(Into::into).map_err(|failure| failure.at("list snapshots", &of)))
            .boxed()
    }

    async fn open_snapshot(&self, spec: &SnapshotSpec) -> Result<Arc<dyn BlockDevice>> {
        let mark = SnapshotMark::from(spec.clone());
        let identity = format!("{}:{}", self.http.name(), spec.id);
        self.device(&["snapshots", "open"], &mark, "open snapshot", identity, Access::ReadOnly).await
    }

    async fn revert(&self, id: &VolumeId, tag: &VolumeTag, snapshot: &SnapshotSpec) -> Result<Volume> {
        let asked = Revert { tag: tag.clone().into(), snapshot: snapshot.clone().into() };
        self.change("revert volume", id, "revert", &asked).await
    }

    async fn delete_snapshot(&self, spec: &SnapshotSpec) -> Result<()> {
        let mark = SnapshotMark::from(spec.clone());
        let answer = self.http.send_to(Method::POST, &["snapshots", "delete"], &mark).await;
        answer.map(drop).map_err(|failure| failure.at("delete snapshot", &spec.id))
    }
}
