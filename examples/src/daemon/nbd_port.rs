//! The TCP port that content is served on: with TLS, to clients that show a certificate. Tokens do not guard it.

use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt as _;
use std::time::Duration;

use crate::failure::io_error;
use crate::{NbdAddress, output};
use oma_core::{Error, ErrorKind, Result};
use oma_nbd::{TlsFiles, TlsServer, Uri, UriTls};
use tokio::net::TcpListener;
use tokio::time::MissedTickBehavior;

use super::NbdArgs;
use super::own::Own;

/// A port that is listened on, before anybody is served.
#[derive(Debug)]
pub struct NbdPort {
    pub(super) listener: TcpListener,
    pub(super) tls: TlsServer,
    address: NbdAddress,
    shown: String,
}

impl NbdPort {
    /// Begins to listen, where a port is asked for; `tls` is its identity.
    ///
    /// # Errors
    /// `Invalid` for an address that clients cannot be told; what the system answers.
    pub async fn open(args: &NbdArgs, tls: Option<TlsServer>) -> Result<Option<Self>> {
        let (Some(address), Some(tls)) = (args.address(), tls) else { return Ok(None) };
        let host = host(args, address)?;
        let failed = |error| io_error("listen on", address, error);
        // A host that is none is told before anybody is kept from the port.
        Uri::tcp(&host, address.port().max(1), "")?;
        let listener = TcpListener::bind(address).await.map_err(|error| match error.kind() {
            io::ErrorKind::AddrInUse => Error::new(ErrorKind::Busy, "serve NBD on", address).because(
                "somebody listens there already; end that, or name another address or `none` with --nbd-listen or listen of [nbd]",
            ),
            _ => failed(error),
        })?;
        let port = listener.local_addr().map_err(failed)?.port();
        let shown = Uri::tcp(&host, port, "")?.with_tls(UriTls::default())?.to_string();
        Ok(Some(Self { listener, tls, address: NbdAddress::Tcp { host, port, tls: true }, shown }))
    }

    /// As clients are told.
    pub const fn address(&self) -> &NbdAddress {
        &self.address
    }

    /// For operators.
    pub fn shown(&self) -> String {
        self.shown.clone()
    }
}

/// By which name clients reach an address.
fn host(args: &NbdArgs, address: SocketAddr) -> Result<String> {
    match &args.nbd_host {
        Some(host) => Ok(host.clone()),
        None if address.ip().is_unspecified() => Err(refused(
            address,
            "clients cannot be told this address; name the one by which they reach this machine with --nbd-host",
        )),
        None => Ok(address.ip().to_string()),
    }
}

/// The certificates, where the port is asked for: those that are named, or the own ones.
pub(super) async fn identity(args: &NbdArgs, own: Option<&Own>) -> Result<Option<TlsServer>> {
    match own {
        Some(own) if args.needs_own() => TlsServer::open(own.files()).await.map(Some),
        _ => named_identity(args).await,
    }
}

/// The certificates that are named, where the port is asked for.
///
/// # Errors
/// What the files answer.
pub async fn named_identity(args: &NbdArgs) -> Result<Option<TlsServer>> {
    match (args.address(), &args.nbd_tls_certificates) {
        (Some(_), Some(directory)) => {
            TlsServer::open(TlsFiles::mutual_in_directory(directory)).await.map(Some)
        }
        _ => Ok(None),
    }
}

fn refused(address: SocketAddr, reason: &'static str) -> Error {
    Error::new(ErrorKind::Invalid, "serve NBD on", address).because(reason)
}

/// Reads the certificates again whenever the list of those that were revoked has changed, until that is done, for ever. A list that is
/// taken away stays in use.
pub(super) async fn heed_revoked(tls: TlsServer, pause: Duration) {
    let Some(list) = tls.files().revoked.clone() else { return };
    let (mut looks, mut heeded, mut told) = (tokio::time::interval(pause), None, String::new());
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        looks.tick().await;
        let Ok(about) = tokio::fs::metadata(&list).await else { continue };
        // It is replaced, never written in place.
        let now = Some((about.ino(), about.mtime(), about.mtime_nsec(), about.len()));
        if now == heeded {
            continue;
        }
        match tls.reload().await {
            Ok(()) => {
                (heeded, told) = (now, String::new());
                output::note("the certificates of NBD were read again, with those that are revoked");
            }
            Err(error) if error.chain() == told => {}
            Err(error) => {
                told = error.chain();
                output::note(format!("{told}; what cannot be used of it stays as it was, and is read again"));
            }
        }
    }
}

/// Reads the certificates again.
pub async fn reload(tls: Option<TlsServer>) {
    let Some(tls) = tls else { return };
    match tls.reload().await {
        Ok(()) => output::note("the certificates of NBD were read again"),
        Err(error) => output::note(format!("{}; what cannot be used stays as it was", error.chain())),
    }
}
