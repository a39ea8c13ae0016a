//! The promises of devices and export servers, kept by this server and this client together.
#![allow(clippy::unwrap_used, reason = "a subject that cannot be made is a failed test")]

#[cfg(feature = "tls")]
mod pki;

use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use oma_core::conformance::{
    self, Connect, DEVICE_CAPACITY, DeviceSubject, ExportSubject, Guard, Trial, block_device_cases, cases,
    export_server_cases, read_only_device_cases, sample, trial,
};
use oma_core::memory::MemoryDevice;
use oma_core::traits::{Access, BlockDevice, Durability, ExportServer, ExportSpec};
use oma_core::{ByteSize, ExportName, Extent, ExtentSet, Fence, Result};
use oma_nbd::protocol::{OMA_EPOCH, OMA_STATE_DURABLE};
use oma_nbd::{Client, ClientConfig, MarkedExtents, Server, ServerConfig, Uri};
use tempfile::TempDir;
use tokio::net::{TcpListener, UnixListener};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

fn main() -> ExitCode {
    let mut trials = devices();
    trials.extend(cases("nbd_server", &export_server_cases(), exports));
    #[cfg(feature = "tls")]
    trials.extend(through_tls::trials());
    conformance::run(trials)
}

fn devices() -> Vec<Trial> {
    let fresh = || MemoryDevice::new("memory", DEVICE_CAPACITY);
    let mut trials = cases("over_unix", &block_device_cases(), move || over_unix(fresh(), Access::ReadWrite));
    trials.extend(cases("with_compact_headers", &block_device_cases(), move || async move {
        let compact = ClientConfig { extended_headers: false, ..ClientConfig::default() };
        through(serve(fresh(), Access::ReadWrite).await, compact).await
    }));
    trials.push(trial("x_oma_epoch_tells_a_client_what_is_durable_in_the_epoch", &[], epoch));
    trials.extend(cases("over_tcp", &block_device_cases(), move || over_tcp(fresh())));
    trials.extend(cases("read_only_over_unix", &read_only_device_cases(), move || async move {
        let device = fresh();
        let length = usize::try_from(DEVICE_CAPACITY.bytes()).unwrap();
        device.write_at(0, sample(0, length), Durability::Cached).await.unwrap();
        over_unix(device, Access::ReadOnly).await
    }));
    trials
}

async fn over_unix(device: MemoryDevice, access: Access) -> DeviceSubject {
    through(serve(device, access).await, ClientConfig::default()).await
}

async fn through(server: Server, config: ClientConfig) -> DeviceSubject {
    let (client, guard) = connect(server, config).await;
    DeviceSubject { device: Arc::new(client), guard }
}

/// A client of the server's `disk`, through a socket that lives as long as the guard.
async fn connect(server: Server, config: ClientConfig) -> (Client, Guard) {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("socket");
    let listener = UnixListener::bind(&socket).unwrap();
    let mut serving = JoinSet::new();
    serving.spawn(async move { server.serve_unix(listener, CancellationToken::new()).await });
    let client = Client::connect(&Uri::unix(&socket, "disk").unwrap(), config).await.unwrap();
    (client, Box::new((folder, serving)))
}

async fn epoch() {
    let (durable, server) = (MarkedExtents::epoch(), Server::new(ServerConfig::default()));
    let capacity = ByteSize::gib(1 << 20);
    let (name, device) =
        (ExportName::parse("disk").unwrap(), Arc::new(MemoryDevice::new("memory", capacity)));
    let (description, access, fence) = (String::new(), Access::ReadWrite, Fence(1));
    let spec = ExportSpec { name, description, access, fence, device };
    server.publish_with(spec, vec![durable.clone()]).await.unwrap();
    let config = ClientConfig { contexts: vec![OMA_EPOCH.to_owned()], ..ClientConfig::default() };
    let (client, _guard) = connect(server, config).await;
    let marked = [(0, 1 << 20), (1 << 33, 1 << 40)].map(|(at, length)| Extent::new(at, length).unwrap());
    marked.into_iter().for_each(|extent| durable.mark(extent));
    let whole = Extent::new(0, capacity.bytes()).unwrap();
    let told = client.marked_extents(OMA_EPOCH, OMA_STATE_DURABLE.into(), whole).await.unwrap();
    assert_eq!(told.iter().collect::<Vec<_>>(), marked);
    durable.replace(ExtentSet::new());
    assert!(client.marked_extents(OMA_EPOCH, OMA_STATE_DURABLE.into(), whole).await.unwrap().is_empty());
}

async fn over_tcp(device: MemoryDevice) -> DeviceSubject {
    over_tcp_from(serve(device, Access::ReadWrite).await, ClientConfig::default()).await
}

async fn over_tcp_from(server: Server, config: ClientConfig) -> DeviceSubject {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let uri = Uri::tcp("127.0.0.1", listener.local_addr().unwrap().port(), "disk").unwrap();
    let mut serving = JoinSet::new();
    serving.spawn(async move { server.serve_tcp(listener, CancellationToken::new()).await });
    let client = Client::connect(&uri, config).await.unwrap();
    DeviceSubject { device: Arc::new(client), guard: Box::new(serving) }
}

async fn serve(device: MemoryDevice, access: Access) -> Server {
    let server = Server::new(ServerConfig::default());
    let name = ExportName::parse("disk").unwrap();
    let device = Arc::new(device);
    let spec = ExportSpec { name, description: String::new(), access, fence: Fence(1), device };
    server.publish(spec).await.unwrap();
    server
}

/// Connections that exactly one client makes, each through a socket of its own: it cannot come back.
struct Doors {
    server: Server,
    folder: TempDir,
    opened: AtomicU64,
    serving: Mutex<JoinSet<()>>,
    config: ClientConfig,
}

impl Doors {
    async fn connect(&self, name: &ExportName) -> Result<Arc<dyn BlockDevice>> {
        let number = self.opened.fetch_add(1, Ordering::Relaxed);
        let socket = self.folder.path().join(number.to_string());
        let listener = UnixListener::bind(&socket).unwrap();
        let server = self.server.clone();
        self.serving.lock().unwrap().spawn(async move {
            let (stream, _) = listener.accept().await.unwrap();
            drop(listener);
            // How it ended is the client's to tell.
            let _ = server.serve_stream(stream, CancellationToken::new()).await;
        });
        let config = ClientConfig { connections: 1, ..self.config.clone() };
        let client = Client::connect(&Uri::unix(&socket, name.as_str())?, config).await?;
        Ok(Arc::new(client))
    }
}

async fn exports() -> ExportSubject {
    exports_of(Server::new(ServerConfig::default()), ClientConfig::default(), Box::new(())).await
}

async fn exports_of(server: Server, config: ClientConfig, more: Guard) -> ExportSubject {
    let doors = Arc::new(Doors {
        server: server.clone(),
        folder: tempfile::tempdir().unwrap(),
        opened: AtomicU64::new(0),
        serving: Mutex::default(),
        config,
    });
    let door = doors.clone();
    let connect: Connect = Arc::new(move |name| {
        let door = door.clone();
        Box::pin(async move { door.connect(&name).await })
    });
    ExportSubject { server: Arc::new(server), connect, guard: Box::new((doors, more)) }
}

#[cfg(feature = "tls")]
mod through_tls {
    use super::*;
    use crate::pki::Pki;

    /// All of it once more, with certificates on both sides.
    pub(super) fn trials() -> Vec<Trial> {
        let fresh = || MemoryDevice::new("memory", DEVICE_CAPACITY);
        let mut trials = cases("over_unix_through_tls", &block_device_cases(), move || async move {
            let (server, config, pki) = secure(serve(fresh(), Access::ReadWrite).await).await;
            keeping(through(server, config).await, pki)
        });
        trials.extend(cases("over_tcp_through_tls", &block_device_cases(), move || async move {
            let (server, config, pki) = secure(serve(fresh(), Access::ReadWrite).await).await;
            keeping(over_tcp_from(server, config).await, pki)
        }));
        trials.extend(cases("nbd_server_through_tls", &export_server_cases(), || async {
            let (server, config, pki) = secure(Server::new(ServerConfig::default())).await;
            exports_of(server, config, Box::new(pki)).await
        }));
        trials
    }

    async fn secure(server: Server) -> (Server, ClientConfig, Pki) {
        let pki = Pki::new();
        let config = ClientConfig { tls: Some(pki.client("client")), ..ClientConfig::default() };
        (server.with_tls(pki.mutual().await), config, pki)
    }

    fn keeping(subject: DeviceSubject, pki: Pki) -> DeviceSubject {
        DeviceSubject { guard: Box::new((subject.guard, pki)), ..subject }
    }
}
