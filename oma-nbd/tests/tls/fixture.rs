//! A server with TLS in this process.

use std::sync::Arc;
use std::time::{Duration, Instant};

use oma_core::memory::MemoryDevice;
use oma_core::traits::{Access, BlockDevice, ExportSpec};
use oma_core::{ByteSize, Error, ErrorKind, ExportName, Fence, Result};
use oma_nbd::{
    Client, ClientConfig, ClientName, Clients, ConnectionStatistics, ExportOptions, Server, ServerConfig,
    TlsClientConfig, TlsPolicy, Uri,
};
use tempfile::TempDir;
use tokio::net::{TcpListener, UnixListener};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Size of the exports.
pub(crate) const SIZE: ByteSize = ByteSize::mib(8);

/// A server on a unix socket and a TCP port with the export `disk`.
pub(crate) struct Fixture {
    pub server: Server,
    pub device: MemoryDevice,
    pub folder: TempDir,
    pub port: u16,
    shutdown: CancellationToken,
    listeners: JoinSet<()>,
}

impl Fixture {
    pub(crate) async fn new(policy: TlsPolicy) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let device = MemoryDevice::new("disk", SIZE);
        let server = Server::new(ServerConfig::default()).with_tls(policy);
        let unix = UnixListener::bind(folder.path().join("socket")).unwrap();
        let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = tcp.local_addr().unwrap().port();
        let shutdown = CancellationToken::new();
        let mut listeners = JoinSet::new();
        let (other, token) = (server.clone(), shutdown.clone());
        listeners.spawn(async move { other.serve_unix(unix, token).await });
        let (other, token) = (server.clone(), shutdown.clone());
        listeners.spawn(async move { other.serve_tcp(tcp, token).await });
        let fixture = Self { server, device: device.clone(), folder, port, shutdown, listeners };
        fixture.publish("disk", device, Clients::Anybody).await;
        fixture
    }

    pub(crate) async fn publish(&self, name: &str, device: MemoryDevice, clients: Clients) {
        let spec = spec(name, device);
        let options = ExportOptions { clients, ..ExportOptions::default() };
        self.server.publish_to(spec, options).await.unwrap();
    }

    pub(crate) async fn publish_device(&self, name: &str, device: Arc<dyn BlockDevice>) {
        let spec = ExportSpec { device, ..spec(name, self.device.clone()) };
        self.server.publish_to(spec, ExportOptions::default()).await.unwrap();
    }

    pub(crate) fn unix(&self, export: &str) -> Uri {
        Uri::unix(self.folder.path().join("socket"), export).unwrap()
    }

    pub(crate) fn tcp(&self, export: &str) -> Uri {
        Uri::tcp("127.0.0.1", self.port, export).unwrap()
    }

    /// A connection to an export, once it is there.
    pub(crate) async fn served(&self, export: &str) -> ConnectionStatistics {
        self.when(export, |found| match found {
            // One that the client knows of may not be noted yet.
            [connection, ..] if !connection.client.is_empty() => Some(connection.clone()),
            _ => None,
        })
        .await
    }

    /// Waits until nobody has an export open.
    pub(crate) async fn left(&self, export: &str) {
        self.when(export, |found| found.is_empty().then_some(())).await;
    }

    async fn when<T>(&self, export: &str, look: impl Fn(&[ConnectionStatistics]) -> Option<T>) -> T {
        let (name, begun) = (ExportName::parse(export).unwrap(), Instant::now());
        let mut tick = tokio::time::interval(Duration::from_millis(1));
        loop {
            let found = self.server.report(&name).unwrap().connections;
            if let Some(found) = look(&found) {
                return found;
            }
            assert!(begun.elapsed() < Duration::from_secs(20), "{found:?}");
            tick.tick().await;
        }
    }

    /// What foreign programs call the export, with a folder of certificates.
    pub(crate) fn foreign(&self, export: &str, certificates: &std::path::Path) -> String {
        let (socket, certificates) = (self.folder.path().join("socket"), certificates.display());
        let socket = socket.display();
        format!(
            "nbds+unix:///{export}?socket={socket}&tls-certificates={certificates}&tls-hostname=localhost"
        )
    }

    /// Shuts down: every connection and listener must end by itself.
    pub(crate) async fn close(mut self) {
        self.shutdown.cancel();
        while let Some(ended) = self.listeners.join_next().await {
            ended.unwrap();
        }
    }
}

pub(crate) fn spec(name: &str, device: MemoryDevice) -> ExportSpec {
    let (name, description) = (ExportName::parse(name).unwrap(), format!("the export {name}"));
    ExportSpec { name, description, access: Access::ReadWrite, fence: Fence(1), device: Arc::new(device) }
}

pub(crate) fn named(names: &[&str]) -> Clients {
    Clients::named(names.iter().map(|name| ClientName::parse(name).unwrap()))
}

/// Short times, so that what hangs is found soon.
pub(crate) fn config(tls: TlsClientConfig) -> ClientConfig {
    ClientConfig {
        connect_timeout: Duration::from_secs(10),
        request_timeout: Duration::from_secs(10),
        tls: Some(tls),
        ..ClientConfig::default()
    }
}

pub(crate) async fn connect(uri: &Uri, tls: TlsClientConfig) -> Result<Client> {
    Client::connect(uri, config(tls)).await
}

#[track_caller]
pub(crate) fn assert_error(error: &Error, kind: ErrorKind, text: &str) {
    let chain = error.chain();
    assert_eq!(error.kind(), kind, "{chain}");
    assert!(chain.contains(text), "{chain}");
}
