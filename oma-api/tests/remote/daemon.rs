//! A daemon in this process, over real sockets. Data goes through memory, control over HTTP.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{Method, Request, StatusCode};
use oma_api::client::{ExportOpener, RemoteBackend, RemoteConfig, Token};
use oma_api::server::{
    Api, BackendRoutes, Door, ExportAddress, ExportRoutes, Origin, Principal, Publisher, Role,
};
use oma_core::memory::{ManualClock, MemoryExportServer, MemoryStore};
use oma_core::record::VolumeTag;
use oma_core::traits::{Access, BlockDevice, Provisioning, VolumeBackend, VolumeSpec};
use oma_core::{
    ByteSize, DiskRef, ExportName, Generation, InstanceId, OperationId, Result, Timestamp, VolumeId,
};
use tempfile::TempDir;
use tokio::net::{TcpListener, UnixListener};
use tokio::task::JoinHandle;
use tower::ServiceExt;

/// How clients come.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Way {
    Tcp,
    Unix,
}

/// Exports of a server in this process.
#[derive(Clone, Debug)]
pub(crate) struct Memory(pub(crate) MemoryExportServer);

impl ExportAddress for Memory {
    fn uri(&self, name: &ExportName, _: Origin) -> Result<String> {
        Ok(format!("memory:{name}"))
    }
}

#[async_trait]
impl ExportOpener for Memory {
    async fn open(&self, uri: &str, access: Access) -> Result<Arc<dyn BlockDevice>> {
        let name = uri.strip_prefix("memory:").unwrap();
        let device = self.0.connect(&name.parse().unwrap())?;
        assert_eq!(device.info().access, access);
        Ok(device)
    }
}

pub(crate) struct Daemon {
    pub(crate) exports: Memory,
    pub(crate) instance: InstanceId,
    pub(crate) address: String,
    pub(crate) publisher: Publisher,
    api: Api,
    serving: JoinHandle<()>,
    _folder: TempDir,
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

/// Whoever comes is an operator.
pub(crate) fn open_door() -> Door {
    Door::Open(Principal::new("test", Role::Operator))
}

impl Daemon {
    pub(crate) async fn start(backend: Arc<dyn VolumeBackend>, way: Way) -> Self {
        Self::behind(backend, way, open_door()).await
    }

    pub(crate) async fn behind(backend: Arc<dyn VolumeBackend>, way: Way, door: Door) -> Self {
        Self::with(backend, way, door, |publisher| publisher).await
    }

    /// Sessions that are not renewed last so long.
    pub(crate) async fn leasing(backend: Arc<dyn VolumeBackend>, way: Way, lease: Duration) -> Self {
        Self::with(backend, way, open_door(), |publisher| publisher.with_lease(lease)).await
    }

    async fn with(
        backend: Arc<dyn VolumeBackend>,
        way: Way,
        door: Door,
        set: impl FnOnce(Publisher) -> Publisher,
    ) -> Self {
        let exports = Memory(MemoryExportServer::new());
        let publisher = set(Publisher::new(Arc::new(exports.0.clone()), Arc::new(exports.clone())));
        let instance = InstanceId::mint();
        let clock = Arc::new(ManualClock::new(Timestamp::from_millis(1_700_000_000_000)));
        let (backend, registry) = (backend, Arc::new(MemoryStore::new(clock)));
        let routes = BackendRoutes {
            backend: backend.clone(),
            instance: instance.clone(),
            publisher: publisher.clone(),
        };
        let operator = ExportRoutes {
            backend,
            registry,
            instance: instance.clone(),
            publisher: publisher.clone(),
            jobs: None,
        };
        let api = Api::new("test").backend(routes).exports(operator);
        let folder = TempDir::new().unwrap();
        let (address, serving) = serve(api.router(door), way, &folder).await;
        Self { exports, instance, address, publisher, api, serving, _folder: folder }
    }

    /// A client of it.
    pub(crate) async fn remote(&self) -> RemoteBackend {
        self.connect(&self.address, None).await.unwrap()
    }

    pub(crate) async fn connect(&self, address: &str, token: Option<Token>) -> Result<RemoteBackend> {
        let opener = Arc::new(self.exports.clone());
        RemoteBackend::connect(&RemoteConfig::new(address), token, opener).await
    }

    /// What somebody in this role is answered.
    pub(crate) async fn ask(&self, role: Role, method: Method, path: &str) -> (StatusCode, String) {
        let door = Door::Open(Principal::new("somebody", role));
        let request = Request::builder().method(method).uri(format!("/api/v1{path}"));
        let response = self.api.router(door).oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
        let status = response.status();
        let body = to_bytes(response.into_body(), 1 << 20).await.unwrap();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    /// As its program ends.
    pub(crate) async fn stop(mut self) {
        self.publisher.close().await;
        self.serving.abort();
        assert!((&mut self.serving).await.unwrap_err().is_cancelled());
    }
}

async fn serve(router: Router, way: Way, folder: &TempDir) -> (String, JoinHandle<()>) {
    match way {
        Way::Tcp => {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = format!("http://{}", listener.local_addr().unwrap());
            (address, tokio::spawn(async move { axum::serve(listener, router).await.unwrap() }))
        }
        Way::Unix => {
            let path = folder.path().join("daemon.sock");
            let listener = UnixListener::bind(&path).unwrap();
            let address = format!("unix:{}", path.display());
            (address, tokio::spawn(async move { axum::serve(listener, router).await.unwrap() }))
        }
    }
}

/// A tag of some deployment.
pub(crate) fn tag() -> VolumeTag {
    let disk = DiskRef { context: "ctx-1".parse().unwrap(), key: "disk-2000".parse().unwrap() };
    VolumeTag { instance: InstanceId::mint(), disk, generation: Generation::FIRST }
}

/// A volume of one MiB, to be made once.
pub(crate) fn spec(tag: &VolumeTag) -> VolumeSpec {
    VolumeSpec {
        operation: OperationId::mint(),
        tag: tag.clone(),
        name: "web".to_owned(),
        capacity: ByteSize::mib(1),
        provisioning: Provisioning::Thin,
    }
}

/// A volume that is attached.
pub(crate) async fn attached(backend: &dyn VolumeBackend, tag: &VolumeTag) -> VolumeId {
    let volume = backend.create(&spec(tag)).await.unwrap();
    backend.attach(&volume.id, tag).await.unwrap().id
}
