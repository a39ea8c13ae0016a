use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use oma_core::{Error, ErrorKind, Result};

use super::engine::Acceptor;
use super::{Session, TlsFailure, TlsFiles};

/// Whether clients of a listener must speak TLS.
#[derive(Clone, Debug, Default)]
pub enum TlsPolicy {
    /// They cannot.
    #[default]
    Off,
    /// They may. What they say before that is in plain, and a network in between can keep them from it.
    Optional(TlsServer),
    /// They must, before they may ask for anything.
    Required(TlsServer),
}

impl TlsPolicy {
    pub(crate) const fn server(&self) -> Option<&TlsServer> {
        match self {
            Self::Off => None,
            Self::Optional(server) | Self::Required(server) => Some(server),
        }
    }
}

/// Who the server is, to clients that speak TLS. A clone is another handle on the same.
#[derive(Clone)]
pub struct TlsServer(Arc<Inner>);

struct Inner {
    files: TlsFiles,
    current: RwLock<Arc<Acceptor>>,
    /// One after another: what was read earlier never takes the place of what was read later.
    reloading: tokio::sync::Mutex<()>,
}

impl TlsServer {
    /// Reads certificates and key.
    ///
    /// # Errors
    /// `NotFound`, `PermissionDenied` or `Unavailable` for a file that cannot be read; `Invalid` for one that cannot be
    /// used: not PEM, out of date, a key that does not belong to the certificate; `Unsupported` without the feature `tls`.
    pub async fn open(files: TlsFiles) -> Result<Self> {
        let named = files.clone();
        let loaded = read(&files, move || Acceptor::load(&named)).await?;
        let (current, reloading) = (RwLock::new(Arc::new(loaded)), tokio::sync::Mutex::default());
        Ok(Self(Arc::new(Inner { files, current, reloading })))
    }

    /// Reads the same files again: connections from now on see what is in them. Those that are made already go on as
    /// they are.
    ///
    /// # Errors
    /// As [`TlsServer::open`]. Who the server is then stays as it was, if that cannot be used, and so does who may come; the other of the
    /// two is as the files say.
    pub async fn reload(&self) -> Result<()> {
        let _turn = self.0.reloading.lock().await;
        let (files, current) = (self.0.files.clone(), self.current());
        let (fresh, told) = read(&self.0.files, move || current.reload(&files)).await?;
        *self.0.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(fresh);
        told.map_err(|failure| failed(&self.0.files, failure))?;
        tracing::info!(certificate = %self.0.files.certificate.display(), "read certificates again");
        Ok(())
    }

    fn current(&self) -> Arc<Acceptor> {
        self.0.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The files that are read.
    #[must_use]
    pub fn files(&self) -> &TlsFiles {
        &self.0.files
    }

    pub(crate) fn session(&self) -> Result<Session, TlsFailure> {
        self.current().session()
    }
}

/// Reads files, which may take long.
async fn read<T: Send + 'static>(
    files: &TlsFiles,
    reading: impl FnOnce() -> Result<T, TlsFailure> + Send + 'static,
) -> Result<T> {
    match tokio::task::spawn_blocking(reading).await {
        Ok(read) => read.map_err(|failure| failed(files, failure)),
        Err(lost) => {
            let named = files.certificate.display();
            Err(Error::new(ErrorKind::Internal, "read certificates", named).with_source(lost))
        }
    }
}

fn failed(files: &TlsFiles, failure: TlsFailure) -> Error {
    let (kind, retry) = failure.kind();
    Error::new(kind, "read certificates", files.certificate.display()).with_retry(retry).with_source(failure)
}

impl fmt::Debug for TlsServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsServer").field("files", &self.0.files).finish_non_exhaustive()
    }
}
