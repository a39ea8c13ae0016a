//! This program once more, as a server of files in a process of its own.

use std::env;
use std::io::{Read, Write};
use std::path::Path;
use std::process::{ExitCode, Stdio};
use std::sync::Arc;
use std::time::Duration;

use oma_core::traits::{Access, ExportServer, ExportSpec};
use oma_core::{ByteSize, ExportName, Fence};
use oma_nbd::{Server, ServerConfig, Uri};
use oma_volume::device::FileDevice;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::process::{Child, Command};
use tokio_util::sync::CancellationToken;

use crate::raw::{Raw, SOON};

/// Set for a child of ours: the folder with the socket, and the folder with the images.
const SOCKETS: &str = "OMA_TEST_CHILD_SOCKETS";
const IMAGES: &str = "OMA_TEST_CHILD_IMAGES";
/// Set for one that shall have a single thread for everything that does not block.
const ONE_THREAD: &str = "OMA_TEST_CHILD_ONE_THREAD";

/// Size of the exports `disk` and `other`.
pub(crate) const SIZE: ByteSize = ByteSize::mib(64);
/// Payloads and buffers of one connection.
pub(crate) const ROOM: ByteSize = ByteSize::mib(4);

/// A server in a process of its own. Dropped, it is killed.
pub(crate) struct Process {
    pub(crate) folder: TempDir,
    child: Child,
}

/// How a child is started.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct How<'a> {
    /// A program and arguments before the shell: `strace …`.
    pub(crate) under: &'a [&'a str],
    /// What the shell does before it becomes the child; `$1` is the folder of the images.
    pub(crate) script: &'a str,
    pub(crate) one_thread: bool,
}

impl Process {
    pub(crate) async fn start(how: How<'_>) -> Self {
        Self::start_in(TempDir::new().unwrap(), how).await
    }

    /// Starts one over images that may be there already.
    pub(crate) async fn start_in(folder: TempDir, how: How<'_>) -> Self {
        let images = folder.path().join("images");
        std::fs::create_dir_all(&images).unwrap();
        let _ = std::fs::remove_file(folder.path().join("socket"));
        let all = [how.under, &["sh", "-c"]].concat();
        let mut command = Command::new(all[0]);
        command.args(&all[1..]).arg(format!("{}\nexec \"$0\"", how.script));
        command.arg(env::current_exe().unwrap()).arg(&images).kill_on_drop(true);
        command.env(SOCKETS, folder.path()).env(IMAGES, &images).stdin(Stdio::piped()).stdout(Stdio::piped());
        if how.one_thread {
            command.env(ONE_THREAD, "yes");
        }
        let mut child = command.spawn().unwrap();
        let mut line = String::new();
        let mut out = BufReader::new(child.stdout.as_mut().unwrap());
        tokio::time::timeout(5 * SOON, out.read_line(&mut line)).await.expect("the child starts").unwrap();
        assert_eq!(line, "ready\n");
        Self { folder, child }
    }

    pub(crate) fn uri(&self, name: &str) -> Uri {
        Uri::unix(self.folder.path().join("socket"), name).unwrap()
    }

    /// A connection without a word said.
    pub(crate) async fn socket(&self) -> Raw<UnixStream> {
        Raw::over(UnixStream::connect(self.folder.path().join("socket")).await.unwrap())
    }

    /// A connection to an export, with structured replies.
    pub(crate) async fn open(&self, name: &str) -> Raw<UnixStream> {
        let mut raw = self.socket().await;
        raw.greet().await;
        raw.with_structured(name, &[]).await
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id().expect("it runs")
    }

    /// Ends it as `kill -9` does; the folder with what it left.
    pub(crate) async fn kill(mut self) -> TempDir {
        self.child.kill().await.unwrap();
        self.folder
    }

    /// Asks it to end; it must, by itself and well.
    pub(crate) async fn stop(mut self) {
        drop(self.child.stdin.take());
        let ended = tokio::time::timeout(5 * SOON, self.child.wait()).await.expect("the child ends").unwrap();
        assert!(ended.success(), "{ended}");
    }
}

/// Runs as a child, when this is one.
pub(crate) fn child() -> Option<ExitCode> {
    let (sockets, images) = (env::var_os(SOCKETS)?, env::var_os(IMAGES)?);
    let mut builder = match env::var_os(ONE_THREAD) {
        Some(_) => tokio::runtime::Builder::new_current_thread(),
        None => tokio::runtime::Builder::new_multi_thread(),
    };
    builder.enable_all().build().unwrap().block_on(serve(Path::new(&sockets), Path::new(&images)));
    Some(ExitCode::SUCCESS)
}

async fn serve(sockets: &Path, images: &Path) {
    let payload = u32::try_from(ROOM.bytes()).unwrap();
    let server = Server::new(ServerConfig {
        max_buffered: ROOM,
        max_payload: payload,
        advertised_payload: payload,
        drain_timeout: Duration::from_secs(1),
        ..ServerConfig::default()
    });
    for name in ["disk", "other"] {
        let path = images.join(name);
        let file = std::fs::File::options().create(true).append(true).open(&path).unwrap();
        file.set_len(SIZE.bytes()).unwrap();
        drop(file);
        let device = Arc::new(FileDevice::open(&path, Access::ReadWrite).await.unwrap());
        let name = ExportName::parse(name).unwrap();
        let (description, access, fence) = (String::new(), Access::ReadWrite, Fence(1));
        server.publish(ExportSpec { name, description, access, fence, device }).await.unwrap();
    }
    let listener = UnixListener::bind(sockets.join("socket")).unwrap();
    let shutdown = CancellationToken::new();
    let token = shutdown.clone();
    std::thread::spawn(move || {
        let mut out = std::io::stdout();
        out.write_all(b"ready\n").and_then(|()| out.flush()).unwrap();
        // Until the parent ends it, or is gone itself.
        let _ = std::io::stdin().read(&mut [0]);
        token.cancel();
    });
    server.serve_unix(listener, shutdown).await;
}
