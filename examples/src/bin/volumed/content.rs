//! What open volumes hold, over NBD on a socket in the data directory: for other deployments that have them open, and for exports.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use oma_api::server::{BackendRoutes, ExportRoutes, Publisher};
use oma_core::engine::CancellationToken;
use oma_core::traits::{VolumeBackend, VolumeRegistry};
use oma_core::{InstanceId, Result};
use oma_examples::failure::io_error;
use oma_examples::{NbdAddress, output};
use oma_nbd::{Server, ServerConfig};
use tokio::net::UnixListener;

/// How long requests under way may take: one that hangs on a dead disk does not keep the daemon.
const CLOSING: Duration = Duration::from_secs(10);

/// The server, and what it serves.
#[derive(Debug)]
pub(crate) struct Content {
    publisher: Publisher,
    server: Server,
    path: PathBuf,
}

impl Content {
    /// Listens to nobody yet.
    pub(crate) fn new(path: PathBuf) -> Self {
        let server = Server::new(ServerConfig::default());
        let address = Arc::new(NbdAddress::Unix(path.clone()));
        Self { publisher: Publisher::new(Arc::new(server.clone()), address), server, path }
    }

    /// What the routes work with that have volumes opened.
    pub(crate) fn routes(
        &self,
        backend: Arc<dyn VolumeBackend>,
        registry: Arc<dyn VolumeRegistry>,
        instance: InstanceId,
    ) -> (BackendRoutes, ExportRoutes) {
        let publisher = self.publisher.clone();
        let others = BackendRoutes { backend: backend.clone(), instance: instance.clone(), publisher };
        let publisher = self.publisher.clone();
        (others, ExportRoutes { backend, registry, instance, publisher })
    }

    /// Begins to listen. The data directory is locked: a socket there was left by a killed process.
    pub(crate) fn listen(&self) -> Result<UnixListener> {
        let failed = |error| io_error("listen on", self.path.display(), error);
        match fs::remove_file(&self.path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(failed(error)),
            _ => {}
        }
        let listener = UnixListener::bind(&self.path).map_err(failed)?;
        fs::set_permissions(&self.path, fs::Permissions::from_mode(0o600)).map_err(failed)?;
        Ok(listener)
    }

    /// Serves until `stop`; then everything is withdrawn and closed, which ends the answers that last while a volume is open.
    pub(crate) async fn serve(&self, listener: UnixListener, stop: &CancellationToken) {
        let closed = CancellationToken::new();
        let close = async {
            stop.cancelled().await;
            if tokio::time::timeout(CLOSING, self.publisher.close()).await.is_err() {
                output::note("a volume is still busy; it is closed when this process has ended");
            }
            closed.cancel();
        };
        tokio::join!(self.server.serve_unix(listener, closed.clone()), close);
        // Somebody may have removed it: then nothing is left to do.
        let _ = fs::remove_file(&self.path);
    }
}
