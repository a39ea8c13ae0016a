//! Sockets and TLS.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::num::NonZeroU16;
use std::os::unix::net as unix;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::{Extension, Router};
use axum_server::tls_rustls::{RustlsAcceptor, RustlsConfig};
use axum_server::{Address, Handle, Server};
use hyper_util::rt::TokioTimer;
use oma_core::engine::CancellationToken;
use oma_core::{Error, ErrorKind, Result};
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde::Deserialize;
use tokio::net::{TcpListener, UnixListener};

use super::audit::Client;
use super::bounded::{At, Bounded};
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

/// How a door is listened at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ListenConfig {
    /// Connections that are served at once, let in or not. Who comes then waits until one of them ends; one on which no request comes
    /// is ended after half a minute.
    pub connections: NonZeroU16,
}

impl Default for ListenConfig {
    /// 512: half of the descriptors that a process may have open where nobody says more.
    fn default() -> Self {
        const USUAL: NonZeroU16 = NonZeroU16::new(512).expect("it is not zero");
        Self { connections: USUAL }
    }
}

/// Serves on a TCP port until `stop`, over TLS with an identity.
///
/// # Errors
/// What the system answers when it cannot listen any more.
pub async fn serve_tcp(
    listener: TcpListener,
    router: Router,
    tls: Option<&TlsIdentity>,
    config: ListenConfig,
    stop: &CancellationToken,
) -> io::Result<()> {
    notice_vanished(&listener)?;
    let server = bounded::<SocketAddr>(listener, config);
    let service = router.into_make_service_with_connect_info::<Client>();
    let handle = ending(stop);
    match tls {
        None => patient(server).handle(handle).serve(service).await,
        Some(tls) => {
            let server = server.acceptor(RustlsAcceptor::new(tls.config.clone()));
            patient(server).handle(handle).serve(service).await
        }
    }
}

/// Serves on a unix socket until `stop`; requests are known to come from this machine.
///
/// # Errors
/// As [`serve_tcp`].
pub async fn serve_unix(
    listener: UnixListener,
    router: Router,
    config: ListenConfig,
    stop: &CancellationToken,
) -> io::Result<()> {
    let server = bounded::<unix::SocketAddr>(listener, config);
    let router = router.layer(Extension(Origin::Socket));
    patient(server).handle(ending(stop)).serve(router.into_make_service()).await
}

fn bounded<A>(listener: A::Listener, config: ListenConfig) -> Server<At<A>>
where
    A: Address + Send + Sync,
    A::Listener: Send + Sync,
    A::Stream: Send,
{
    Server::from_listener(Bounded::new(listener, config))
}

/// With a limit to how long a request may take to tell its headers, the first one as well: asked which version of HTTP it speaks, a
/// client could be silent for ever.
fn patient<A: Address, C>(mut server: Server<A, C>) -> Server<A, C> {
    server.http_builder().http1().timer(TokioTimer::new()).header_read_timeout(HEADERS);
    server.http1_only()
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

#[cfg(test)]
mod tests;
