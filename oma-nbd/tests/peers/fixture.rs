//! A server in this process, and programs that are run against it.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use oma_core::memory::MemoryDevice;
use oma_core::traits::{Access, BlockDevice, Durability, ExportSpec};
use oma_core::{ByteSize, ExportName, Fence};
use oma_nbd::{DirtyBitmap, MetaContext, Server, ServerConfig};
use tokio::net::{TcpListener, UnixListener};
use tokio::process::Command;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Size of the exports.
pub(crate) const SIZE: ByteSize = ByteSize::mib(64);

/// A server on a unix socket and a TCP port with the exports `disk` (with the bitmap `b0`) and `locked`, which is read-only.
pub(crate) struct Fixture {
    pub server: Server,
    pub device: MemoryDevice,
    pub bitmap: Arc<DirtyBitmap>,
    pub folder: tempfile::TempDir,
    pub port: u16,
    shutdown: CancellationToken,
    listeners: JoinSet<()>,
}

impl Fixture {
    pub(crate) async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let server = Server::new(ServerConfig::default());
        let device = MemoryDevice::new("disk", SIZE);
        let bitmap = DirtyBitmap::new("b0", Arc::new(device.clone()));
        let context: Arc<dyn MetaContext> = bitmap.clone();
        let spec = spec("disk", Access::ReadWrite, bitmap.clone());
        server.publish_with(spec, vec![context]).await.unwrap();
        let locked = MemoryDevice::new("locked", SIZE);
        locked.write_at(0, content(1 << 20), Durability::Cached).await.unwrap();
        server.publish_with(spec_of(locked), Vec::new()).await.unwrap();

        let shutdown = CancellationToken::new();
        let unix = UnixListener::bind(folder.path().join("socket")).unwrap();
        let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = tcp.local_addr().unwrap().port();
        let mut listeners = JoinSet::new();
        let (other, token) = (server.clone(), shutdown.clone());
        listeners.spawn(async move { other.serve_unix(unix, token).await });
        let (other, token) = (server.clone(), shutdown.clone());
        listeners.spawn(async move { other.serve_tcp(tcp, token).await });
        Self { server, device, bitmap, folder, port, shutdown, listeners }
    }

    /// The export `name` over the unix socket.
    pub(crate) fn unix(&self, name: &str) -> String {
        format!("nbd+unix:///{name}?socket={}", self.path("socket").display())
    }

    /// The export `name` over TCP.
    pub(crate) fn tcp(&self, name: &str) -> String {
        format!("nbd://127.0.0.1:{}/{name}", self.port)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes content that is not all zero to the device and to a file.
    pub(crate) async fn fill(&self) -> PathBuf {
        let (first, second) = (content(3 << 20), content(70_000));
        self.device.write_at(1 << 20, first, Durability::Cached).await.unwrap();
        self.device.write_at(40 << 20, second, Durability::Cached).await.unwrap();
        let file = self.path("image");
        std::fs::write(&file, self.device.bytes()).unwrap();
        file
    }

    /// Shuts down: every connection and listener must end by itself.
    pub(crate) async fn close(mut self) {
        self.shutdown.cancel();
        while let Some(ended) = self.listeners.join_next().await {
            ended.unwrap();
        }
    }
}

fn spec(name: &str, access: Access, device: Arc<dyn BlockDevice>) -> ExportSpec {
    let description = format!("the export {name}");
    ExportSpec { name: ExportName::parse(name).unwrap(), description, access, fence: Fence(1), device }
}

fn spec_of(device: MemoryDevice) -> ExportSpec {
    spec("locked", Access::ReadOnly, Arc::new(device))
}

/// Bytes none of whose blocks of 4 KiB is zero or like another.
pub(crate) fn content(length: u32) -> bytes::Bytes {
    let length = usize::try_from(length).unwrap();
    let block: Vec<u8> = (1..=251).cycle().take(4096).collect();
    let mut bytes = block.repeat(length.div_ceil(4096));
    bytes.truncate(length);
    for (number, block) in (1u32..).zip(bytes.chunks_exact_mut(4096)) {
        block[..4].copy_from_slice(&number.to_le_bytes());
    }
    bytes.into()
}

/// Runs a program; panics with all it said unless it ends well.
pub(crate) async fn run(program: &str, arguments: &[&str]) -> String {
    let (said, well) = outcome(program, arguments).await;
    assert!(well, "{program} {arguments:?} failed:\n{said}");
    said
}

/// Runs a program; what it said, and whether it ended well.
pub(crate) async fn outcome(program: &str, arguments: &[&str]) -> (String, bool) {
    let output = Command::new(program).args(arguments).kill_on_drop(true).output().await.unwrap();
    let mut said = String::from_utf8_lossy(&output.stdout).into_owned();
    write!(said, "{}", String::from_utf8_lossy(&output.stderr)).unwrap();
    (said, output.status.success())
}

pub(crate) fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}
