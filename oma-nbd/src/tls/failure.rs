//! What can go wrong with TLS, each with what to do.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use oma_core::{ErrorKind, Retry};

/// Why there is no TLS session, or no more.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum TlsFailure {
    #[cfg_attr(feature = "tls", expect(dead_code, reason = "only a build without TLS says so"))]
    #[error("this program was built without TLS; build oma-nbd with the feature `tls`")]
    NotBuilt,
    #[error("the file {path} cannot be read; mend its path or its permissions")]
    Unreadable { path: PathBuf, source: Arc<io::Error> },
    #[error("the file {path} {problem}")]
    File { path: PathBuf, problem: &'static str },
    #[error(
        "the certificates that this machine trusts cannot be read; name a file of authorities instead: {0}"
    )]
    SystemTrust(String),
    #[error(
        "{name:?} is neither a host name nor an address; give the name that stands in the server's certificate"
    )]
    Name { name: String },
    #[error("the other side's certificate is not good: {0}")]
    Certificate(String),
    #[error(
        "the other side refused this side's certificate ({0}); show one that it trusts and that is not out of date"
    )]
    Refused(String),
    #[error("the other side speaks no TLS that is safe, or none at all: {0}")]
    Protocol(String),
    #[error("the TLS session broke: {0}")]
    Broken(String),
    #[error("the other side ended the connection during the TLS handshake; see what it says of it")]
    Ended,
    #[error("the connection failed")]
    Io(#[source] Arc<io::Error>),
}

impl TlsFailure {
    /// What a caller can do about it.
    pub(crate) fn kind(&self) -> (ErrorKind, Retry) {
        match self {
            Self::NotBuilt => (ErrorKind::Unsupported, Retry::Never),
            Self::Unreadable { source, .. } if source.kind() == io::ErrorKind::NotFound => {
                (ErrorKind::NotFound, Retry::Never)
            }
            Self::Unreadable { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
                (ErrorKind::PermissionDenied, Retry::Never)
            }
            Self::Unreadable { .. } | Self::Io(_) | Self::Ended => (ErrorKind::Unavailable, Retry::Later),
            Self::File { .. } | Self::SystemTrust(_) | Self::Name { .. } | Self::Protocol(_) => {
                (ErrorKind::Invalid, Retry::Never)
            }
            Self::Certificate(_) | Self::Refused(_) => (ErrorKind::PermissionDenied, Retry::Never),
            Self::Broken(_) => (ErrorKind::Corrupt, Retry::Never),
        }
    }
}

impl From<io::Error> for TlsFailure {
    fn from(error: io::Error) -> Self {
        use io::ErrorKind::{BrokenPipe, ConnectionReset, UnexpectedEof};
        match error.kind() {
            UnexpectedEof | ConnectionReset | BrokenPipe => Self::Ended,
            _ => Self::Io(Arc::new(error)),
        }
    }
}

/// A failure as the error of a read or write of the stream.
impl From<TlsFailure> for io::Error {
    fn from(failure: TlsFailure) -> Self {
        match failure {
            TlsFailure::Io(error) => Self::new(error.kind(), error),
            failure => Self::new(io::ErrorKind::InvalidData, failure),
        }
    }
}
