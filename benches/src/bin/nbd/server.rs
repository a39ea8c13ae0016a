//! The servers: ours and its peers, each a process of its own on one file and one socket.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use clap::ValueEnum;
use oma_benches::family;
use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::{TcpStream, UnixStream};
use tokio::process::{Child, Command};
use tokio::time::{interval, timeout};

use crate::{Result, program};

/// How often a server that starts is asked whether it listens.
const TICK: Duration = Duration::from_millis(5);
/// Time for a server to start.
const START: Duration = Duration::from_secs(60);

/// Whose server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kind {
    /// Ours
    Oma,
    /// QEMU's
    QemuNbd,
    /// nbdkit with its plugin file
    Nbdkit,
    /// The reference implementation
    NbdServer,
}

/// How clients reach it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Transport {
    /// A unix socket.
    Unix,
    /// TCP on the loopback.
    Tcp,
    /// A unix socket with TLS.
    Tls,
}

/// What is served and how.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan<'a> {
    /// The disk; more only on ours.
    pub(crate) files: &'a [PathBuf],
    pub(crate) transport: Transport,
    /// Certificates, for TLS.
    pub(crate) certificates: Option<&'a Path>,
    /// Where sockets lie.
    pub(crate) folder: &'a Path,
}

/// A running server; it ends with this value.
#[derive(Debug)]
pub(crate) struct Server {
    pid: u32,
    /// nbd-server goes to the background: it is no child of ours.
    child: Option<Child>,
    uri: String,
    folder: tempfile::TempDir,
}

impl Plan<'_> {
    fn file(&self) -> &Path {
        &self.files[0]
    }
}

impl Kind {
    /// Why it cannot be measured here; nothing when it can.
    pub(crate) fn missing(self) -> Option<String> {
        let program = match self {
            Self::Oma => return None,
            Self::QemuNbd => "qemu-nbd",
            Self::Nbdkit => "nbdkit",
            Self::NbdServer => "nbd-server",
        };
        (!program::is_there(program)).then(|| format!("{program} is missing"))
    }

    pub(crate) async fn start(self, plan: Plan<'_>) -> Result<Server> {
        let folder = tempfile::Builder::new().prefix("server-").tempdir_in(plan.folder)?;
        let socket = folder.path().join("s");
        let mut port = if plan.transport == Transport::Tcp { free_port()? } else { 0 };
        let mut child = match self {
            Self::Oma => Some(ours(plan, &socket)?),
            Self::QemuNbd => Some(qemu_nbd(plan, &socket, port)?),
            Self::Nbdkit => Some(nbdkit(plan, &socket, port)?),
            Self::NbdServer => {
                nbd_server(plan, &socket, port, folder.path()).await?;
                None
            }
        };
        if let Some(out) = child.as_mut().and_then(|child| child.stdout.take()) {
            let line = timeout(START, BufReader::new(out).lines().next_line()).await??;
            port = line.ok_or("our server did not start")?.parse()?;
        }
        let listens = async {
            let mut tick = interval(TICK);
            loop {
                tick.tick().await;
                let there = match plan.transport {
                    Transport::Tcp => TcpStream::connect(("127.0.0.1", port)).await.map(drop),
                    Transport::Unix | Transport::Tls => UnixStream::connect(&socket).await.map(drop),
                };
                if there.is_ok() {
                    return;
                }
            }
        };
        timeout(START, listens).await.map_err(|_| format!("{self} does not listen"))?;
        let pid = match child.as_ref().and_then(Child::id) {
            Some(pid) => pid,
            None => std::fs::read_to_string(folder.path().join("pid"))?.trim().parse()?,
        };
        let socket = socket.display();
        let uri = match (plan.transport, plan.certificates) {
            (Transport::Tcp, _) => format!("nbd://127.0.0.1:{port}/disk"),
            (Transport::Tls, Some(dir)) => format!(
                "nbds+unix:///disk?socket={socket}&tls-certificates={}&tls-hostname=localhost",
                dir.display()
            ),
            (Transport::Unix | Transport::Tls, _) => format!("nbd+unix:///disk?socket={socket}"),
        };
        Ok(Server { pid, child, uri, folder })
    }
}

impl Server {
    /// The export.
    pub(crate) fn uri(&self) -> &str {
        &self.uri
    }

    fn terminate(&self) {
        if let Some(pid) = i32::try_from(self.pid).ok().and_then(Pid::from_raw) {
            // It may have ended by itself: then nothing is left to do.
            let _ = kill_process(pid, Signal::TERM);
        }
    }

    /// Ends it, and waits until it has let its file go.
    pub(crate) async fn stop(mut self) -> Result<()> {
        match self.child.take() {
            Some(mut child) => child.kill().await?,
            None => {
                self.terminate();
                let mut tick = interval(TICK);
                while Path::new(&format!("/proc/{}", self.pid)).exists() {
                    tick.tick().await;
                }
            }
        }
        self.pid = 0;
        Ok(())
    }

    /// Its socket, where it has one.
    pub(crate) fn socket(&self) -> PathBuf {
        self.folder.path().join("s")
    }

    /// Processor seconds up to now, of all its processes.
    pub(crate) fn cpu(&self) -> io::Result<f64> {
        let family = family(self.pid)?;
        let ended = family.first().map_or(0.0, |(_, times)| times.children);
        Ok(family.iter().map(|(_, times)| times.own).sum::<f64>() + ended)
    }

    /// KiB of memory of all its processes; what several share is counted once.
    pub(crate) fn memory(&self) -> io::Result<f64> {
        let mut sum = 0.0;
        for (process, _) in family(self.pid)? {
            // A process of a connection may have ended meanwhile.
            let Ok(text) = std::fs::read_to_string(format!("/proc/{process}/smaps_rollup")) else { continue };
            let line = text.lines().find_map(|line| line.strip_prefix("Pss:"));
            let kib = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<u32>().ok());
            sum += f64::from(kib.ok_or_else(|| io::Error::other("smaps_rollup tells no Pss"))?);
        }
        Ok(sum)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if self.child.is_none() {
            self.terminate();
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Oma => "oma",
            Self::QemuNbd => "qemu-nbd",
            Self::Nbdkit => "nbdkit file",
            Self::NbdServer => "nbd-server",
        })
    }
}

/// It tells its port when it listens.
fn ours(plan: Plan<'_>, socket: &Path) -> io::Result<Child> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("serve");
    if plan.transport != Transport::Tcp {
        command.arg("--socket").arg(socket);
    }
    if let Some(dir) = plan.certificates {
        command.arg("--tls").arg(dir);
    }
    command.args(plan.files).stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true).spawn()
}

fn qemu_nbd(plan: Plan<'_>, socket: &Path, port: u16) -> io::Result<Child> {
    let mut command = Command::new("qemu-nbd");
    command.args(["--persistent", "--shared", "0", "--format", "raw", "--export-name", "disk"]);
    match plan.transport {
        Transport::Tcp => command.args(["--bind", "127.0.0.1", "--port", &port.to_string()]),
        Transport::Unix | Transport::Tls => command.arg("--socket").arg(socket),
    };
    if let Some(dir) = plan.certificates {
        let object = format!("tls-creds-x509,id=tls,endpoint=server,verify-peer=no,dir={}", dir.display());
        command.args(["--object", &object, "--tls-creds", "tls"]);
    }
    spawn(command.arg(plan.file()))
}

fn nbdkit(plan: Plan<'_>, socket: &Path, port: u16) -> io::Result<Child> {
    let mut command = Command::new("nbdkit");
    command.args(["--foreground", "--exit-with-parent"]);
    match plan.transport {
        Transport::Tcp => command.args(["--ipaddr", "127.0.0.1", "--port", &port.to_string()]),
        Transport::Unix | Transport::Tls => command.arg("--unix").arg(socket),
    };
    if let Some(dir) = plan.certificates {
        command.arg("--tls=require").arg("--tls-certificates").arg(dir);
    }
    spawn(command.arg("file").arg(plan.file()))
}

/// nbd-server always goes to the background.
async fn nbd_server(plan: Plan<'_>, socket: &Path, port: u16, folder: &Path) -> Result<()> {
    // With a unix socket it listens there alone, and yet looks for a port.
    let mut text = match plan.transport {
        Transport::Tcp => format!("[generic]\nlistenaddr = 127.0.0.1\nport = {port}\n"),
        Transport::Unix | Transport::Tls => {
            format!("[generic]\nunixsock = {}\nport = {}\n", socket.display(), free_port()?)
        }
    };
    if let Some(dir) = plan.certificates {
        let dir = dir.display();
        text += &format!(
            "certfile = {dir}/server-cert.pem\nkeyfile = {dir}/server-key.pem\ncacertfile = {dir}/ca-cert.pem\nforce_tls = true\n"
        );
    }
    text +=
        &format!("[disk]\nexportname = {}\nflush = true\nfua = true\ntrim = true\n", plan.file().display());
    std::fs::write(folder.join("config"), text)?;
    let status = Command::new("nbd-server")
        .arg("-C")
        .arg(folder.join("config"))
        .arg("-p")
        .arg(folder.join("pid"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .await?;
    if status.success() { Ok(()) } else { Err(format!("nbd-server ended with {status}").into()) }
}

fn spawn(command: &mut Command) -> io::Result<Child> {
    command.stdin(Stdio::null()).kill_on_drop(true).spawn()
}

/// A port that was free just now.
fn free_port() -> io::Result<u16> {
    Ok(std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}
