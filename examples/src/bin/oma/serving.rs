//! An NBD server with one export, on one socket, until it is stopped.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use oma_core::engine::CancellationToken;
use oma_core::{ExportName, Result};
use oma_nbd::{Server, Uri};
use tokio::net::{TcpListener, UnixListener, UnixStream};
use tokio::task::JoinHandle;

use oma_examples::failure::io_error;

/// A listening server. Dropped, it is cut off; [`Serving::stop`] lets requests in flight finish first.
#[derive(Debug)]
pub(crate) struct Serving {
    uri: Uri,
    socket: Option<PathBuf>,
    shutdown: CancellationToken,
    task: JoinHandle<()>,
}

impl Serving {
    /// Listens on a unix socket; takes the place of one that a killed process left behind.
    pub(crate) async fn unix(server: &Server, socket: &Path, export: &ExportName) -> Result<Self> {
        let failed = |error| io_error("listen on", socket.display(), error);
        let path = std::path::absolute(socket).map_err(failed)?;
        let uri = Uri::unix(&path, export.as_str())?;
        if is_left_behind(&path).await {
            fs::remove_file(&path).map_err(failed)?;
        }
        let listener = UnixListener::bind(&path).map_err(failed)?;
        let (server, shutdown) = (server.clone(), CancellationToken::new());
        let token = shutdown.clone();
        let task = tokio::spawn(async move { server.serve_unix(listener, token).await });
        Ok(Self { uri, socket: Some(path), shutdown, task })
    }

    /// Listens on a TCP port; port 0 takes a free one.
    pub(crate) async fn tcp(server: &Server, address: SocketAddr, export: &ExportName) -> Result<Self> {
        let failed = |error| io_error("listen on", address, error);
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let uri = Uri::tcp(&address.ip().to_string(), address.port(), export.as_str())?;
        let (server, shutdown) = (server.clone(), CancellationToken::new());
        let token = shutdown.clone();
        let task = tokio::spawn(async move { server.serve_tcp(listener, token).await });
        Ok(Self { uri, socket: None, shutdown, task })
    }

    /// How clients reach the export.
    pub(crate) const fn uri(&self) -> &Uri {
        &self.uri
    }

    /// Answers what is in flight, disconnects clients and removes the socket.
    pub(crate) async fn stop(mut self) {
        self.shutdown.cancel();
        // It drains for a bounded time and ends; a panic in it was reported by the runtime.
        let _ = (&mut self.task).await;
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.task.abort();
        if let Some(socket) = &self.socket {
            // Somebody may have removed it: then nothing is left to do.
            let _ = fs::remove_file(socket);
        }
    }
}

/// Whether a socket is there that nobody listens on.
async fn is_left_behind(path: &Path) -> bool {
    let is_socket = fs::symlink_metadata(path).is_ok_and(|about| about.file_type().is_socket());
    let limit = Duration::from_secs(1);
    is_socket
        && matches!(
            tokio::time::timeout(limit, UnixStream::connect(path)).await,
            Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused
        )
}
