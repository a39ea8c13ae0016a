//! A volume daemon in this process: HTTP and NBD over real sockets.

use std::sync::Arc;

use oma_api::client::{RemoteBackend, RemoteConfig};
use oma_api::server::{
    Api, BackendRoutes, Door, ListenConfig, Principal, Publisher, Role, serve_tcp, serve_unix,
};
use oma_core::engine::CancellationToken;
use oma_core::record::VolumeTag;
use oma_core::traits::{Provisioning, VolumeBackend, VolumeSpec};
use oma_core::{ByteSize, DiskRef, Generation, InstanceId, OperationId, VolumeId};
use oma_examples::{NbdAddress, NbdOpener};
use oma_nbd::{Server, ServerConfig};
use tempfile::TempDir;
use tokio::net::{TcpListener, UnixListener};
use tokio::task::JoinSet;

/// How clients come.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Way {
    Tcp,
    Unix,
}

pub(crate) struct Daemon {
    address: String,
    publisher: Publisher,
    /// Ends with the daemon.
    _serving: JoinSet<()>,
    _folder: TempDir,
}

impl Daemon {
    pub(crate) async fn start(backend: Arc<dyn VolumeBackend>, way: Way) -> Self {
        let folder = TempDir::new().unwrap();
        let (server, mut serving) = (Server::new(ServerConfig::default()), JoinSet::new());
        let address = serve_nbd(&server, way, &folder, &mut serving).await;
        let publisher = Publisher::new(Arc::new(server), Arc::new(address));
        let routes = BackendRoutes { backend, instance: InstanceId::mint(), publisher: publisher.clone() };
        let api = Api::new("test").backend(routes);
        let address = serve_http(&api, way, &folder, &mut serving).await;
        Self { address, publisher, _serving: serving, _folder: folder }
    }

    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// A client of it.
    pub(crate) async fn remote(&self) -> RemoteBackend {
        connect(&self.address).await
    }

    /// As its program ends when it is told to.
    pub(crate) async fn stop(self) {
        self.publisher.close().await;
    }
}

pub(crate) async fn connect(address: &str) -> RemoteBackend {
    RemoteBackend::connect(&RemoteConfig::new(address), None, Arc::new(NbdOpener::default())).await.unwrap()
}

async fn serve_nbd(server: &Server, way: Way, folder: &TempDir, serving: &mut JoinSet<()>) -> NbdAddress {
    let (server, forever) = (server.clone(), CancellationToken::new());
    match way {
        Way::Tcp => {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let port = listener.local_addr().unwrap().port();
            serving.spawn(async move { server.serve_tcp(listener, forever).await });
            NbdAddress::Tcp { host: "127.0.0.1".to_owned(), port, tls: false }
        }
        Way::Unix => {
            let path = folder.path().join("nbd.sock");
            let listener = UnixListener::bind(&path).unwrap();
            serving.spawn(async move { server.serve_unix(listener, forever).await });
            NbdAddress::Unix(path)
        }
    }
}

async fn serve_http(api: &Api, way: Way, folder: &TempDir, serving: &mut JoinSet<()>) -> String {
    let door = Door::Open(Principal::new("test", Role::Operator));
    let (router, forever) = (api.router(door), CancellationToken::new());
    match way {
        Way::Tcp => {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = format!("http://{}", listener.local_addr().unwrap());
            serving.spawn(async move {
                serve_tcp(listener, router, None, ListenConfig::default(), &forever).await.unwrap();
            });
            address
        }
        Way::Unix => {
            let path = folder.path().join("http.sock");
            let listener = UnixListener::bind(&path).unwrap();
            serving.spawn(async move {
                serve_unix(listener, router, ListenConfig::default(), &forever).await.unwrap();
            });
            format!("unix:{}", path.display())
        }
    }
}

/// A volume that is attached, and its tag.
pub(crate) async fn attached(backend: &dyn VolumeBackend, capacity: ByteSize) -> (VolumeId, VolumeTag) {
    let disk = DiskRef { context: "ctx-1".parse().unwrap(), key: "disk-2000".parse().unwrap() };
    let tag = VolumeTag { instance: InstanceId::mint(), disk, generation: Generation::FIRST };
    let spec = VolumeSpec {
        operation: OperationId::mint(),
        tag: tag.clone(),
        name: "web".to_owned(),
        capacity,
        provisioning: Provisioning::Thin,
    };
    let volume = backend.create(&spec).await.unwrap();
    (backend.attach(&volume.id, &tag).await.unwrap().id, tag)
}
