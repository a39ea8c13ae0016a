//! What open volumes hold, over NBD: for other deployments that have them open, and for exports. On a socket in the data directory, and
//! on a port with TLS where one is named.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::failure::io_error;
use crate::{NbdAddress, NbdAddresses, output};
use futures_util::future::BoxFuture;
use oma_api::server::{BackendRoutes, ExportAddress, ExportRoutes, Publisher};
use oma_core::engine::CancellationToken;
use oma_core::traits::{ExportServer, VolumeBackend, VolumeRegistry};
use oma_core::{InstanceId, Result};
use oma_nbd::{Server, ServerConfig, TlsPolicy};
use tokio::net::{TcpStream, UnixListener, UnixStream};

use super::NbdPort;

/// How long requests under way may take: one that hangs on a dead disk does not keep the daemon.
const CLOSING: Duration = Duration::from_secs(10);

/// What is under way still when all was withdrawn hangs: it is not waited for as long again.
const LEFT: Duration = Duration::from_secs(1);

/// The server, and what it serves.
#[derive(Debug)]
pub struct Content {
    publisher: Publisher,
    server: Server,
    path: PathBuf,
    port: Option<NbdPort>,
    address: Arc<dyn ExportAddress>,
}

impl Content {
    /// For clients on this machine, and for those that reach a port. Nobody is served yet.
    pub fn new(path: PathBuf, port: Option<NbdPort>) -> Self {
        let server = Server::new(ServerConfig { drain_timeout: LEFT, ..ServerConfig::default() });
        let near = NbdAddress::Unix(path.clone());
        let address: Arc<dyn ExportAddress> = match &port {
            None => Arc::new(near),
            Some(port) => Arc::new(NbdAddresses { near, far: port.address().clone() }),
        };
        let unlisted = Arc::new(server.unlisted());
        // A certificate is that of any agent: over a port, who knows the random name of a volume was told it by the routes.
        let operators = if port.is_some() { unlisted.clone() } else { Arc::new(server.clone()) };
        let publisher = Publisher::apart(operators, unlisted, address.clone());
        Self { publisher, server, path, port, address }
    }

    /// Serves what agents write, to whoever knows its name.
    pub fn pushed(&self) -> Arc<dyn ExportServer> {
        Arc::new(self.server.unlisted())
    }

    /// Where exports are, as clients are told.
    pub fn address_of_exports(&self) -> Arc<dyn ExportAddress> {
        self.address.clone()
    }

    /// What the routes work with that have volumes opened.
    pub fn routes(
        &self,
        backend: Arc<dyn VolumeBackend>,
        registry: Arc<dyn VolumeRegistry>,
        instance: InstanceId,
    ) -> (BackendRoutes, ExportRoutes) {
        let publisher = self.publisher.clone();
        let others = BackendRoutes { backend: backend.clone(), instance: instance.clone(), publisher };
        let publisher = self.publisher.clone();
        (others, ExportRoutes { backend, registry, instance, publisher, jobs: None })
    }

    /// The port, as operators are told of it.
    pub fn address(&self) -> Option<String> {
        self.port.as_ref().map(NbdPort::shown)
    }

    /// Begins to listen on the socket. The data directory is locked: a socket there was left by a killed process.
    pub fn listen(&self) -> Result<UnixListener> {
        let failed = |error| io_error("listen on", self.path.display(), error);
        match fs::remove_file(&self.path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(failed(error)),
            _ => {}
        }
        let listener = UnixListener::bind(&self.path).map_err(failed)?;
        fs::set_permissions(&self.path, fs::Permissions::from_mode(0o600)).map_err(failed)?;
        Ok(listener)
    }

    /// Whether clients are let in: one on the socket, and one on the port, where there is one.
    pub fn listens(&self) -> impl Fn() -> BoxFuture<'static, Result<()>> + Send + Sync + 'static {
        let (path, port) = (self.path.clone(), self.port.as_ref().map(|port| port.listener.local_addr()));
        let port = port.and_then(std::result::Result::ok).map(reachable);
        move || {
            let (path, port) = (path.clone(), port);
            Box::pin(async move {
                let failed = |error| io_error("connect to", path.display(), error);
                UnixStream::connect(&path).await.map_err(failed)?;
                let Some(port) = port else { return Ok(()) };
                TcpStream::connect(port).await.map(drop).map_err(|error| io_error("connect to", port, error))
            })
        }
    }

    /// Serves until `stop`; then everything is withdrawn and closed, which ends the answers that last while a volume is open.
    pub async fn serve(&mut self, listener: UnixListener, stop: &CancellationToken) {
        let closed = CancellationToken::new();
        let close = async {
            stop.cancelled().await;
            if tokio::time::timeout(CLOSING, self.publisher.close()).await.is_err() {
                output::note("a volume is still busy; it is closed when this process has ended");
            }
            closed.cancel();
        };
        let (server, port) = (&self.server, self.port.take());
        let far = async {
            if let Some(NbdPort { listener, tls, .. }) = port {
                server.with_tls(TlsPolicy::Required(tls)).serve_tcp(listener, closed.clone()).await;
            }
        };
        tokio::join!(server.serve_unix(listener, closed.clone()), far, close);
        // Somebody may have removed it: then nothing is left to do.
        let _ = fs::remove_file(&self.path);
    }
}

/// Where this machine reaches what it listens on.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        other => other,
    };
    SocketAddr::new(ip, address.port())
}
