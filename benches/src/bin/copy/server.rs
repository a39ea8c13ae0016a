//! NBD servers that images are read from, or written to.

use std::io::{self, BufRead, BufReader};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// Time for a server to start.
const START: Duration = Duration::from_secs(30);

/// How clients reach a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Transport {
    /// A unix socket.
    Unix,
    /// TCP on the loopback.
    Tcp,
}

/// Whose server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Ours: `oma serve`.
    Oma,
    /// QEMU's.
    QemuNbd,
    /// nbdkit with its plugin file.
    Nbdkit,
}

/// A running server; it ends with this value.
#[derive(Debug)]
pub(crate) struct Server {
    child: Child,
    pub(crate) uri: String,
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself: then nothing is left to do.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A socket of its own in a folder.
fn socket(folder: &Path) -> io::Result<PathBuf> {
    let path = tempfile::Builder::new().prefix("s").tempfile_in(folder)?.into_temp_path();
    let socket = path.to_path_buf();
    path.close()?;
    Ok(socket)
}

/// A port that was free just now.
fn free_port() -> io::Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

impl Kind {
    /// Serves an image, for reading only.
    pub(crate) fn start(
        self,
        oma: &Path,
        image: &Path,
        transport: Transport,
        folder: &Path,
    ) -> io::Result<Server> {
        if self == Self::Oma {
            let mut command = Command::new(oma);
            command.arg("serve").arg(image).arg("--read-only");
            return ours(&mut command, transport, folder);
        }
        let (path, port) = (socket(folder)?, free_port()?);
        let mut command = match self {
            Self::QemuNbd => {
                let mut command = Command::new("qemu-nbd");
                command.args(["--read-only", "--persistent", "--shared", "0", "--format", "raw"]);
                match transport {
                    Transport::Unix => command.arg("--socket").arg(&path),
                    Transport::Tcp => command.args(["--bind", "127.0.0.1", "--port", &port.to_string()]),
                };
                command.arg(image);
                command
            }
            Self::Nbdkit | Self::Oma => {
                let mut command = nbdkit(transport, &path, port);
                command.args(["--readonly", "file"]).arg(image);
                command
            }
        };
        listening(&mut command, transport, &path, port)
    }
}

fn nbdkit(transport: Transport, path: &Path, port: u16) -> Command {
    let mut command = Command::new("nbdkit");
    command.arg("--foreground");
    match transport {
        Transport::Unix => command.arg("--unix").arg(path),
        Transport::Tcp => command.args(["--ipaddr", "127.0.0.1", "--port", &port.to_string()]),
    };
    command
}

/// nbdkit on a unix socket with these arguments.
pub(crate) fn nbdkit_with(arguments: &[&str], folder: &Path) -> io::Result<Server> {
    let path = socket(folder)?;
    listening(nbdkit(Transport::Unix, &path, 0).args(arguments), Transport::Unix, &path, 0)
}

/// nbdkit on TCP with TLS, of a file.
pub(crate) fn nbdkit_tls(file: &Path, certificates: &Path) -> io::Result<Server> {
    let (path, port) = (PathBuf::new(), free_port()?);
    let mut command = nbdkit(Transport::Tcp, &path, port);
    command.arg("--tls=require").arg("--tls-certificates").arg(certificates).arg("file").arg(file);
    let mut server = listening(&mut command, Transport::Tcp, &path, port)?;
    server.uri = format!("nbds://localhost:{port}/?tls-certificates={}", certificates.display());
    Ok(server)
}

/// Ours on TCP with TLS, of a file.
pub(crate) fn ours_tls(oma: &Path, file: &Path, certificates: &Path) -> io::Result<Server> {
    let mut command = Command::new(oma);
    command.arg("serve").arg(file).arg("--tls-certificates").arg(certificates);
    let mut server = ours(&mut command, Transport::Tcp, Path::new(""))?;
    server.uri += &format!("?tls-certificates={}&tls-hostname=localhost", certificates.display());
    Ok(server)
}

/// It prints its URI once clients can connect.
fn ours(command: &mut Command, transport: Transport, folder: &Path) -> io::Result<Server> {
    match transport {
        Transport::Unix => command.arg("--socket").arg(socket(folder)?),
        Transport::Tcp => command.args(["--listen", "127.0.0.1:0"]),
    };
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
    let mut uri = String::new();
    if let Some(out) = child.stdout.take() {
        BufReader::new(out).read_line(&mut uri)?;
    }
    Ok(Server { child, uri: uri.trim_end().to_owned() })
}

fn listening(command: &mut Command, transport: Transport, path: &Path, port: u16) -> io::Result<Server> {
    let child = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn()?;
    let uri = match transport {
        Transport::Unix => format!("nbd+unix:///?socket={}", path.display()),
        Transport::Tcp => format!("nbd://127.0.0.1:{port}/"),
    };
    let server = Server { child, uri };
    let begun = Instant::now();
    loop {
        let there = match transport {
            Transport::Tcp => TcpStream::connect(("127.0.0.1", port)).map(drop),
            Transport::Unix => UnixStream::connect(path).map(drop),
        };
        match there {
            Ok(()) => return Ok(server),
            Err(error) if begun.elapsed() > START => return Err(error),
            Err(_) => thread::park_timeout(Duration::from_millis(5)),
        }
    }
}
