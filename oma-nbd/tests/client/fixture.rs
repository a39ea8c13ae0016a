//! Foreign servers, each in a folder of its own.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use oma_core::conformance::Requirement;
use oma_core::{ErrorKind, Result};
use oma_nbd::{Client, ClientConfig, Uri};
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, kill_process_group, waitid};
use tokio::process::{Child, Command};

/// How often a server that is starting is asked whether it listens.
const TICK: Duration = Duration::from_millis(2);

pub(crate) const NBDKIT: Requirement = Requirement::Program("nbdkit");
pub(crate) const QEMU_NBD: Requirement = Requirement::Program("qemu-nbd");
pub(crate) const QEMU_IMG: Requirement = Requirement::Program("qemu-img");
pub(crate) const QEMU_IO: Requirement = Requirement::Program("qemu-io");
pub(crate) const NBD_SERVER: Requirement = Requirement::Program("nbd-server");

/// A folder with images and a socket, and the server that listens there; it is killed when this is dropped.
#[derive(Debug)]
pub(crate) struct Peer {
    folder: tempfile::TempDir,
    server: Option<Child>,
    /// A server that goes to the background whatever one asks.
    daemon: Option<Pid>,
}

impl Peer {
    /// A folder without a server.
    pub(crate) fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap(), server: None, daemon: None }
    }

    pub(crate) async fn nbdkit(arguments: &[&str]) -> Self {
        let mut peer = Self::new();
        peer.start_nbdkit(arguments).await;
        peer
    }

    pub(crate) async fn start_nbdkit(&mut self, arguments: &[&str]) {
        let socket = self.path("socket");
        self.start("nbdkit", &[&["--foreground", "--unix", text(&socket)], arguments].concat()).await;
    }

    /// Starts qemu-nbd with an export of the default name.
    pub(crate) async fn start_qemu_nbd(&mut self, arguments: &[&str]) {
        let socket = self.path("socket");
        let own = ["--persistent", "--shared=8", "--socket", text(&socket)];
        self.start("qemu-nbd", &[&own, arguments].concat()).await;
    }

    /// Starts nbd-server with this configuration.
    pub(crate) async fn start_nbd_server(&mut self, general: &str, exports: &str) {
        let (socket, config, pid) = (self.path("socket"), self.path("config"), self.path("pid"));
        let (socket, port) = (socket.display(), free_port());
        let own = format!("[generic]\nunixsock = {socket}\nlistenaddr = 127.0.0.1\nport = {port}\n");
        std::fs::write(&config, format!("{own}{general}\n{exports}")).unwrap();
        self.kill().await;
        // In the background it writes its id first and listens then.
        run("timeout", &["20", "nbd-server", "-C", text(&config), "-p", text(&pid)]).await;
        let mut tick = tokio::time::interval(TICK);
        while self.daemon.is_none() {
            tick.tick().await;
            let written = std::fs::read_to_string(&pid).ok().filter(|text| text.ends_with('\n'));
            self.daemon = written.map(|text| Pid::from_raw(text.trim().parse().unwrap()).unwrap());
        }
        while tokio::net::UnixStream::connect(self.path("socket")).await.is_err() {
            tick.tick().await;
        }
    }

    async fn start(&mut self, program: &str, arguments: &[&str]) {
        self.kill().await;
        let said = std::fs::File::create(self.path("said")).unwrap();
        let mut command = Command::new(program);
        command.args(arguments).kill_on_drop(true).stdin(Stdio::null());
        command.stdout(said.try_clone().unwrap()).stderr(said);
        self.server = Some(command.spawn().unwrap());
        let started = tokio::time::timeout(Duration::from_secs(20), self.listens()).await;
        started.unwrap_or_else(|_| panic!("{program} {arguments:?} does not listen: {}", self.said()));
    }

    /// Waits until the socket takes connections.
    async fn listens(&mut self) {
        let mut tick = tokio::time::interval(TICK);
        while tokio::net::UnixStream::connect(self.path("socket")).await.is_err() {
            let ended = self.server.as_mut().unwrap().try_wait().unwrap();
            assert!(ended.is_none(), "it ended: {}", self.said());
            tick.tick().await;
        }
    }

    fn said(&self) -> String {
        std::fs::read_to_string(self.path("said")).unwrap()
    }

    /// Ends the server at once.
    pub(crate) async fn kill(&mut self) {
        if let Some(mut server) = self.server.take() {
            server.kill().await.unwrap();
        }
        self.kill_daemon();
        for left in ["socket", "pid"] {
            let _ = std::fs::remove_file(self.path(left));
        }
    }

    /// Stops the server from running, so that it answers nothing.
    pub(crate) fn freeze(&self) {
        let pid = self.server.as_ref().and_then(Child::id).unwrap();
        let pid = Pid::from_raw(pid.try_into().unwrap()).unwrap();
        kill_process(pid, Signal::STOP).unwrap();
        // The signal is only on its way: another thread of the server may still answer.
        waitid(WaitId::Pid(pid), WaitIdOptions::STOPPED).unwrap();
    }

    fn kill_daemon(&mut self) {
        if let Some(pid) = self.daemon.take() {
            // Also what it has for each connection, which may hang. It may have ended by itself.
            let _ = kill_process_group(pid, Signal::KILL);
        }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn uri(&self, export: &str) -> Uri {
        Uri::unix(self.path("socket"), export).unwrap()
    }

    pub(crate) async fn connect(&self) -> Client {
        Client::connect(&self.uri(""), config()).await.unwrap()
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.kill_daemon();
    }
}

/// Short times, so that what hangs is found soon.
pub(crate) fn config() -> ClientConfig {
    ClientConfig {
        connect_timeout: Duration::from_secs(5),
        request_timeout: Duration::from_secs(10),
        ..ClientConfig::default()
    }
}

/// Opens an export, more than once if need be: nbd-server 3.24 leaves one client in a hundred without a greeting.
pub(crate) async fn connect_patiently(uri: &Uri, config: ClientConfig) -> Result<Client> {
    let hasty = ClientConfig { connect_timeout: Duration::from_secs(3), ..config };
    let mut client = Client::connect(uri, hasty.clone()).await;
    for _ in 0..4 {
        match &client {
            Err(error) if error.kind() == ErrorKind::Unavailable => {
                client = Client::connect(uri, hasty.clone()).await;
            }
            _ => break,
        }
    }
    client
}

/// A port that was free just now; nbd-server insists on one besides its socket.
fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Runs a program to its end; panics with what it said unless it ends well.
pub(crate) async fn run(program: &str, arguments: &[&str]) {
    // Output goes to a file: what goes to the background would keep a pipe open.
    let said = tempfile::NamedTempFile::new().unwrap();
    let mut command = Command::new(program);
    command.args(arguments).kill_on_drop(true).stdin(Stdio::null());
    command.stdout(said.reopen().unwrap()).stderr(said.reopen().unwrap());
    let status = command.status().await.unwrap();
    let said = std::fs::read_to_string(said.path()).unwrap();
    assert!(status.success(), "{program} {arguments:?} failed:\n{said}");
}

pub(crate) fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}
