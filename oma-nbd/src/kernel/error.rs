use std::fmt;
use std::io;
use std::path::PathBuf;

use oma_core::{Error, ErrorKind, Retry};

use super::message::Garbled;

/// Why the kernel did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    #[error("the kernel has no NBD client; load its module: modprobe nbd")]
    NoModule,
    #[error("the kernel refused")]
    Netlink(#[source] io::Error),
    #[error(transparent)]
    Garbled(#[from] Garbled),
    #[error("cannot use {path}")]
    Io { path: PathBuf, source: io::Error },
    #[error("a size of {0} bytes cannot be attached: it has no whole blocks of 512 bytes")]
    Size(u64),
    #[error("blocks of {0} bytes cannot be attached; at most those of a page")]
    BlockSize(u32),
    #[error("/dev/nbd{index} is not what was attached there ({found}); it was left alone")]
    Stranger { index: u32, found: String },
    #[error("the kernel's end of the export could not be made")]
    Handshake(#[source] io::Error),
    #[error("the program is shutting down")]
    Shutdown,
    #[error(transparent)]
    Refused(#[from] Error),
}

impl Failure {
    /// The public error: the only place that decides kind and retry.
    pub(super) fn at(self, operation: &'static str, resource: impl fmt::Display) -> Error {
        let (kind, retry) = match &self {
            Self::NoModule => (ErrorKind::Unsupported, Retry::Never),
            Self::Netlink(source) | Self::Io { source, .. } => match source.kind() {
                io::ErrorKind::PermissionDenied => (ErrorKind::PermissionDenied, Retry::Never),
                io::ErrorKind::ResourceBusy => (ErrorKind::Busy, Retry::Later),
                _ => (ErrorKind::Unavailable, Retry::Later),
            },
            Self::Garbled(_) => (ErrorKind::Corrupt, Retry::Never),
            Self::Size(_) | Self::BlockSize(_) => (ErrorKind::Invalid, Retry::Never),
            Self::Stranger { .. } => (ErrorKind::Conflict, Retry::Never),
            Self::Handshake(_) | Self::Shutdown => (ErrorKind::Unavailable, Retry::Later),
            Self::Refused(_) => match self {
                Self::Refused(error) => return error,
                _ => unreachable!("matched above"),
            },
        };
        Error::new(kind, operation, resource).with_retry(retry).with_source(self)
    }
}
