//! Flags that the daemons share, which are settings of a file as well.

use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU16;
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use oma_api::server::ListenConfig;
use serde::{Deserialize, Serialize};

use super::Listen;

/// An address, and who is let in there.
#[derive(Clone, Debug, Args, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DoorArgs {
    /// The address to serve on beside the socket in the data directory; without one only that
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub listen: Option<SocketAddr>,
    /// Let everybody in who reaches the address: only together with one of this machine, whose users all may change volumes then
    #[arg(long, requires = "listen", conflicts_with_all = ["tls_certificate", "tls"])]
    pub no_auth: bool,
    /// Serve HTTPS with a certificate of the daemon's own authority, which is made in tls/ of the data directory; done without being
    /// asked for where other machines reach the address and no other certificate is named
    #[arg(long, requires = "listen", conflicts_with = "tls_certificate")]
    pub tls: bool,
    /// A name or address by which clients reach this machine, which is to stand in that certificate; once for each
    #[arg(long = "tls-name", value_name = "HOST")]
    pub tls_names: Vec<String>,
    /// Serve HTTPS with this certificate, and those that lead to its authority (PEM); read again at SIGHUP
    #[arg(long, value_name = "FILE", requires = "tls_key", requires = "listen")]
    pub tls_certificate: Option<PathBuf>,
    /// The private key of the certificate (PEM)
    #[arg(long, value_name = "FILE", requires = "tls_certificate")]
    pub tls_key: Option<PathBuf>,
    /// Connections served at once on the address, and as many on the socket; who comes then waits until one of them ends
    #[arg(long, value_name = "N", default_value_t = ListenConfig::default().connections)]
    pub connections: NonZeroU16,
}

impl DoorArgs {
    /// Whether somebody needs a token there.
    #[must_use]
    pub const fn asks_for_tokens(&self) -> bool {
        self.listen.is_some() && !self.no_auth
    }

    /// Whether other machines reach it, here or on another port.
    #[must_use]
    pub fn is_far(&self, beside: Option<SocketAddr>) -> bool {
        self.listen.into_iter().chain(beside).any(|address| !address.ip().is_loopback())
    }

    /// Whether the daemon's own authority certifies it, here or on another port with the same clients.
    #[must_use]
    pub fn needs_own(&self, beside: Option<SocketAddr>) -> bool {
        let asked = self.tls || self.is_far(beside);
        asked && self.tls_certificate.is_none() && !self.no_auth
    }
}

impl Default for DoorArgs {
    fn default() -> Self {
        let ListenConfig { connections } = ListenConfig::default();
        Self {
            listen: None,
            no_auth: false,
            tls: false,
            tls_names: Vec::new(),
            tls_certificate: None,
            tls_key: None,
            connections,
        }
    }
}

/// A port for what volumes hold.
#[derive(Clone, Debug, Default, Args, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NbdArgs {
    /// The address to serve what volumes hold on, over NBD with TLS, to clients that show a certificate, or `none`; without one only a
    /// socket
    #[arg(long, value_name = "ADDRESS:PORT")]
    #[serde(rename = "listen")]
    pub nbd_listen: Option<Listen>,
    /// The directory with server-cert.pem, server-key.pem and, for the certificates of clients, ca-cert.pem, in place of tls/ of the data
    /// directory; read again at SIGHUP
    #[arg(long, value_name = "DIR", requires = "nbd_listen")]
    #[serde(rename = "tls_certificates")]
    pub nbd_tls_certificates: Option<PathBuf>,
    /// By which name or address clients reach it, which stands in its certificate; the address itself if it is not said
    #[arg(long, value_name = "HOST", requires = "nbd_listen")]
    #[serde(rename = "host")]
    pub nbd_host: Option<String>,
}

impl NbdArgs {
    /// Where it is listened.
    #[must_use]
    pub fn address(&self) -> Option<SocketAddr> {
        self.nbd_listen.and_then(Listen::address)
    }

    /// Whether it is there, and clients are told an address that is their own machine wherever they are.
    #[must_use]
    pub fn is_here_only(&self) -> bool {
        let is_here = |host: &String| {
            host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
        };
        let listens_here = self.address().is_some_and(|address| address.ip().is_loopback());
        self.nbd_host.as_ref().map_or(listens_here, is_here) && self.address().is_some()
    }

    /// Whether the daemon's own authority certifies it.
    #[must_use]
    pub fn needs_own(&self) -> bool {
        self.address().is_some() && self.nbd_tls_certificates.is_none()
    }
}

/// Where volumes live.
#[derive(Clone, Debug, Args)]
pub struct BackendArgs {
    /// Where volumes live
    #[arg(long, global = true, value_enum, default_value_t = Backend::File)]
    pub backend: Backend,
    /// The CloudStack zone, in JSON (docs/cloudstack.md)
    #[arg(long, global = true, value_name = "FILE", required_if_eq("backend", "cloudstack"))]
    pub cloudstack: Option<PathBuf>,
    /// The account's API key and secret key, on a line each, in a file that its owner alone may read
    #[arg(long, global = true, value_name = "FILE", required_if_eq("backend", "cloudstack"))]
    pub cloudstack_keys: Option<PathBuf>,
    /// The daemon on whose machine the volumes are, in JSON (docs/remote-volumes.md)
    #[arg(long, global = true, value_name = "FILE", required_if_eq("backend", "remote"))]
    pub remote: Option<PathBuf>,
    /// Its token, in a file that its owner alone may read; none for a socket of this machine
    #[arg(long, global = true, value_name = "FILE", requires = "remote")]
    pub remote_token: Option<PathBuf>,
    /// The directory with ca-cert.pem, client-cert.pem and client-key.pem, for what its volumes hold (docs/tls.md)
    #[arg(long, global = true, value_name = "DIR", requires = "remote")]
    pub remote_certificates: Option<PathBuf>,
}

/// A sort of place where volumes live.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Backend {
    /// Raw files in the data directory
    #[default]
    File,
    /// Loop devices over raw files in the data directory; needs root
    Loop,
    /// Volumes of a CloudStack zone, attached to the machine that this runs in
    Cloudstack,
    /// Volumes of a daemon, on this machine or another one
    Remote,
}

impl Backend {
    /// As it is named on the command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::Loop => "loop",
            Self::Cloudstack => "cloudstack",
            Self::Remote => "remote",
        }
    }

    /// Whether other machines could not reach what lies there.
    #[must_use]
    pub const fn is_of_this_machine(self) -> bool {
        matches!(self, Self::File | Self::Loop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exports_are_for_this_machine_only_unless_others_are_told_how_to_reach_it() {
        let is_here = |listen: Option<&str>, host: Option<&str>| {
            let nbd_listen = listen.map(|listen| listen.parse().unwrap());
            NbdArgs { nbd_listen, nbd_host: host.map(str::to_owned), ..NbdArgs::default() }.is_here_only()
        };
        assert!(is_here(Some("127.0.0.1:10809"), None) && is_here(Some("[::1]:10809"), Some("localhost")));
        assert!(is_here(Some("0.0.0.0:10809"), Some("127.0.0.1")));
        assert!(!is_here(Some("127.0.0.1:10809"), Some("oma.example")) && !is_here(Some("0.0.0.0:1"), None));
        assert!(!is_here(Some("none"), None) && !is_here(None, None));
        let far = |listen: &str, beside: Option<&str>| {
            let args = DoorArgs { listen: Some(listen.parse().unwrap()), ..DoorArgs::default() };
            args.is_far(beside.map(|address| address.parse().unwrap()))
        };
        assert!(far("0.0.0.0:1", None) && far("127.0.0.1:1", Some("192.0.2.7:1")));
        assert!(!far("127.0.0.1:1", Some("[::1]:2")));
    }
}
