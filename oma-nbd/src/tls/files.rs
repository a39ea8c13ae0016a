//! Which files say who one is and whom to trust. Only paths: what is in them is read when it is used.

use std::path::{Path, PathBuf};

/// Certificates of authorities, in a directory as libnbd, nbdkit and QEMU lay it out.
const AUTHORITIES: &str = "ca-cert.pem";
/// What they have revoked, as QEMU names it.
#[cfg(feature = "server")]
const REVOKED: &str = "ca-crl.pem";

/// Files with which a server says who it is.
#[cfg(feature = "server")]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// Its certificate, then those of the authorities between it and the one that clients trust, as PEM.
    pub certificate: PathBuf,
    /// The private key of the certificate, as PEM: PKCS#8, PKCS#1 or SEC1, not encrypted.
    pub key: PathBuf,
    /// Whether clients must say who they are.
    pub clients: ClientCertificates,
    /// Lists of certificates that authorities have revoked (RFC 5280, section 5), as PEM, one of each authority: of two the first one
    /// counts. While the file is not there, what was read of it counts, at first nothing. An authority without a list has revoked none; a list that is out of date
    /// counts.
    pub revoked: Option<PathBuf>,
}

/// Whether clients must say who they are by a certificate.
#[cfg(feature = "server")]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClientCertificates {
    /// They are not asked.
    NotAsked,
    /// One that shows a certificate must have it from an authority in this PEM file; one without is nobody.
    Optional(PathBuf),
    /// Each must show a certificate from an authority in this PEM file.
    Required(PathBuf),
}

#[cfg(feature = "server")]
impl TlsFiles {
    /// `server-cert.pem` and `server-key.pem` of a directory; clients are not asked for certificates.
    #[must_use]
    pub fn in_directory(directory: impl AsRef<Path>) -> Self {
        let file = |name| directory.as_ref().join(name);
        let (certificate, key) = (file("server-cert.pem"), file("server-key.pem"));
        Self { certificate, key, clients: ClientCertificates::NotAsked, revoked: None }
    }

    /// As [`TlsFiles::in_directory`]; each client must show a certificate from an authority in `ca-cert.pem` that is not on a list in
    /// `ca-crl.pem`.
    #[must_use]
    pub fn mutual_in_directory(directory: impl AsRef<Path>) -> Self {
        let file = |name| directory.as_ref().join(name);
        let (clients, revoked) = (ClientCertificates::Required(file(AUTHORITIES)), Some(file(REVOKED)));
        Self { clients, revoked, ..Self::in_directory(directory) }
    }
}

/// How a client knows that a server is the right one, and says who it is itself.
///
/// The files are read for each connection, so a renewed certificate needs no restart.
#[cfg(feature = "client")]
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsClientConfig {
    /// Who may have signed the server's certificate.
    pub trust: Trust,
    /// What the client shows when the server asks for a certificate.
    pub identity: Option<TlsIdentity>,
    /// The name that must stand in the server's certificate; without it the host of the URI, or `localhost` for a unix
    /// socket.
    pub server_name: Option<String>,
}

/// Authorities that are trusted.
#[cfg(feature = "client")]
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Trust {
    /// Those that this machine's operating system trusts.
    #[default]
    System,
    /// Those in a PEM file.
    Authorities(PathBuf),
}

/// A certificate and its key.
#[cfg(feature = "client")]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsIdentity {
    /// The certificate, then those of the authorities between it and the one that the server trusts, as PEM.
    pub certificate: PathBuf,
    /// The private key of the certificate, as PEM: PKCS#8, PKCS#1 or SEC1, not encrypted.
    pub key: PathBuf,
}

#[cfg(feature = "client")]
impl TlsClientConfig {
    /// Trusts `ca-cert.pem` of a directory, and shows `client-cert.pem` with `client-key.pem` if one of them is there.
    #[must_use]
    pub fn in_directory(directory: impl AsRef<Path>) -> Self {
        let file = |name| directory.as_ref().join(name);
        let identity = TlsIdentity { certificate: file("client-cert.pem"), key: file("client-key.pem") };
        // One without the other is a mistake, which is told when they are read.
        let shown = identity.certificate.exists() || identity.key.exists();
        Self {
            trust: Trust::Authorities(file(AUTHORITIES)),
            identity: shown.then_some(identity),
            server_name: None,
        }
    }
}
