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
}

impl TlsServer {
    /// Reads certificates and key.
    ///
    /// # Errors
    /// `NotFound`, `PermissionDenied` or `Unavailable` for a file that cannot be read; `Invalid` for one that cannot be
    /// used: not PEM, out of date, a key that does not belong to the certificate; `Unsupported` without the feature `tls`.
    pub async fn open(files: TlsFiles) -> Result<Self> {
        let current = RwLock::new(Arc::new(load(&files).await?));
        Ok(Self(Arc::new(Inner { files, current })))
    }

    /// Reads the same files again: connections from now on see what is in them. Those that are made already go on as
    /// they are.
    ///
    /// # Errors
    /// As [`TlsServer::open`]; then what was in use stays in use.
    pub async fn reload(&self) -> Result<()> {
        let fresh = load(&self.0.files).await?;
        *self.0.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(fresh);
        tracing::info!(certificate = %self.0.files.certificate.display(), "read certificates again");
        Ok(())
    }

    /// The files that are read.
    #[must_use]
    pub fn files(&self) -> &TlsFiles {
        &self.0.files
    }

    pub(crate) fn session(&self) -> Result<Session, TlsFailure> {
        let current = self.0.current.read().unwrap_or_else(PoisonError::into_inner).clone();
        current.session()
    }
}

async fn load(files: &TlsFiles) -> Result<Acceptor> {
    let (named, files) = (files.certificate.display().to_string(), files.clone());
    let loaded = tokio::task::spawn_blocking(move || Acceptor::load(&files)).await;
    let loaded = loaded
        .map_err(|error| Error::new(ErrorKind::Internal, "read certificates", &named).with_source(error))?;
    loaded.map_err(|failure| {
        let (kind, retry) = failure.kind();
        Error::new(kind, "read certificates", &named).with_retry(retry).with_source(failure)
    })
}

impl fmt::Debug for TlsServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsServer").field("files", &self.0.files).finish_non_exhaustive()
    }
}
