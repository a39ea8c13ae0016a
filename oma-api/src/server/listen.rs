//! Sockets and TLS.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::{Extension, Router};
use axum_server::tls_rustls::RustlsConfig;
use axum_server::{Address, Handle, Server};
use hyper_util::rt::TokioTimer;
use oma_core::engine::CancellationToken;
use oma_core::{Error, ErrorKind, Result};
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::{TcpListener, UnixListener};

use super::origin::Origin;
use super::vanished::notice_vanished;

/// How long answers that are under way may take once no more is to be served.
const ENDING: Duration = Duration::from_secs(5);

/// How long a client may take to send the headers of a request.
const HEADERS: Duration = Duration::from_secs(30);

/// A certificate and its key, read from files, for HTTPS.
#[derive(Clone)]
pub struct TlsIdentity {
    certificate: PathBuf,
    key: PathBuf,
    config: RustlsConfig,
}

impl fmt::Debug for TlsIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsIdentity").field("certificate", &self.certificate).finish_non_exhaustive()
    }
}

impl TlsIdentity {
    /// Reads a chain of certificates, the server's first, and its private key, both PEM.
    ///
    /// # Errors
    /// `NotFound` for a missing file, `Invalid` for one that is none or whose two parts do not belong together.
    pub fn open(certificate: PathBuf, key: PathBuf) -> Result<Self> {
        let config = RustlsConfig::from_config(Arc::new(read(&certificate, &key)?));
        Ok(Self { certificate, key, config })
    }

    /// Reads both files again; connections from now on get the new ones.
    ///
    /// # Errors
    /// As [`TlsIdentity::open`]; those from before stay in use.
    pub fn reload(&self) -> Result<()> {
        self.config.reload_from_config(Arc::new(read(&self.certificate, &self.key)?));
        Ok(())
    }
}

fn read(certificate: &Path, key: &Path) -> Result<ServerConfig> {
    let failed = |path: &Path, error: rustls::pki_types::pem::Error| {
        let kind = match &error {
            rustls::pki_types::pem::Error::Io(error) if error.kind() == io::ErrorKind::NotFound => {
                ErrorKind::NotFound
            }
            _ => ErrorKind::Invalid,
        };
        Error::new(kind, "read certificate or key", path.display()).with_source(error)
    };
    let chain = CertificateDer::pem_file_iter(certificate)
        .and_then(Iterator::collect::<std::result::Result<Vec<_>, _>>);
    let chain = chain.map_err(|error| failed(certificate, error))?;
    let secret = PrivateKeyDer::from_pem_file(key).map_err(|error| failed(key, error))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let invalid = |error: rustls::Error| {
        Error::new(ErrorKind::Invalid, "use certificate", certificate.display()).with_source(error)
    };
    let builder = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let mut config =
        builder.map_err(invalid)?.with_no_client_auth().with_single_cert(chain, secret).map_err(invalid)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

/// Serves on a TCP port until `stop`, over TLS with an identity.
///
/// # Errors
/// What the system answers when it cannot listen any more.
pub async fn serve_tcp(
    listener: TcpListener,
    router: Router,
    tls: Option<&TlsIdentity>,
    stop: &CancellationToken,
) -> io::Result<()> {
    notice_vanished(&listener)?;
    let listener = listener.into_std()?;
    let service = router.into_make_service();
    let handle = ending(stop);
    match tls {
        None => patient(axum_server::from_tcp(listener)?).handle(handle).serve(service).await,
        Some(tls) => {
            let server = axum_server::from_tcp_rustls(listener, tls.config.clone())?;
            patient(server).handle(handle).serve(service).await
        }
    }
}

/// Serves on a unix socket until `stop`; requests are known to come from this machine.
///
/// # Errors
/// As [`serve_tcp`].
pub async fn serve_unix(listener: UnixListener, router: Router, stop: &CancellationToken) -> io::Result<()> {
    let server = axum_server::from_unix(listener.into_std()?)?;
    let router = router.layer(Extension(Origin::Socket));
    patient(server).handle(ending(stop)).serve(router.into_make_service()).await
}

/// With a limit to how long a request may take to tell its headers.
fn patient<A: Address, C>(mut server: Server<A, C>) -> Server<A, C> {
    server.http_builder().http1().timer(TokioTimer::new()).header_read_timeout(HEADERS);
    server
}

/// Ends a server soon after `stop`.
fn ending<A: Address + Send + Sync + 'static>(stop: &CancellationToken) -> Handle<A> {
    let (handle, stop) = (Handle::new(), stop.clone());
    let ended = handle.clone();
    tokio::spawn(async move {
        stop.cancelled().await;
        ended.graceful_shutdown(Some(ENDING));
    });
    handle
}
