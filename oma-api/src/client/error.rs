use std::error::Error as StdError;
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use oma_core::{Error, ErrorKind, Retry};
use reqwest::StatusCode;

use crate::Problem;
use crate::backend::PROTOCOL;

/// What went wrong between this client and a volume daemon.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    #[error("the address of the daemon cannot be used: {0}")]
    Address(&'static str),
    #[error("the certificate authorities in {} cannot be used", path.display())]
    Authorities { path: PathBuf, source: io::Error },
    #[error("TLS cannot be set up")]
    Tls,
    #[error("the HTTP client cannot be set up")]
    SetUp(#[source] reqwest::Error),
    #[error("the daemon cannot be reached; see whether it runs, and whether the address is right")]
    Connect(#[source] reqwest::Error),
    #[error("the daemon cannot be reached; see whether it runs, and whether the address is right")]
    Unreachable(#[source] io::Error),
    #[error("what answers there does not begin TLS as a daemon does; see whether the address is right")]
    NoTls(#[source] io::Error),
    #[error(
        "the certificate that is shown there is not good even by the authority that is shown with it: it is of another host, or out of date; \
         see whether the address is right, and whether the daemon knows by what it is called (`--tls-name`)"
    )]
    Inconsistent(#[source] io::Error),
    #[error(
        "the daemon is not who this client trusts; it was checked with {checked}: see whether that and the address are right, and whom \
         `oma trust` finds there"
    )]
    Untrusted { checked: String, source: reqwest::Error },
    #[error("the connection to the daemon was lost; it has done what was asked for, or not")]
    Lost(#[source] reqwest::Error),
    #[error(
        "the daemon has not answered within {} s; it has done what was asked for, or not: see whether it hangs", .0.as_secs_f64()
    )]
    Late(Duration),
    #[error("the daemon lets this client in no further: {0}")]
    Denied(String),
    #[error(
        "what answered there, with {status} and {content}, is no daemon of OMA; see whether the address is right"
    )]
    Foreign { status: StatusCode, content: String },
    #[error(
        "the daemon speaks version {0} of the backend routes, this client {PROTOCOL}; run the same release of both"
    )]
    Version(String),
    #[error(
        "another daemon ({found}) answered than the one before ({known}); see where the address leads: what one knows of volumes says nothing of those of the other"
    )]
    OtherDaemon { known: String, found: String },
    #[error("the answer of the daemon cannot be read; run the same release of it and of this program")]
    Garbled(#[source] serde_json::Error),
    #[error("the answer of the daemon is longer than any can be")]
    TooLong,
    #[error("the answer of the daemon ended before it was whole")]
    CutShort,
    #[error(
        "the daemon serves what volumes hold on a socket of its own machine; run this program there, or a daemon that serves NBD over TLS"
    )]
    Elsewhere,
    #[error(
        "the daemon serves what volumes hold to its own machine only; have it serve others with `nbd.listen` and be called by a name that they \
         reach with `nbd.host` (`--nbd-listen`, `--nbd-host`), or run this program there and ask it by 127.0.0.1"
    )]
    ContentOnLoopback,
    #[error(
        "the daemon serves what volumes hold without TLS; have it serve with TLS, or allow_plain_http where the way is safe"
    )]
    PlainContent,
    #[error("an id of this form cannot be asked for")]
    NoSegment,
    #[error("{0}")]
    Refused(Box<Problem>),
}

impl Failure {
    /// A request that failed, without the URL: the resource is told anyway.
    pub(super) fn of_request(error: reqwest::Error) -> Self {
        let error = error.without_url();
        if error.is_connect() { Self::Connect(error) } else { Self::Lost(error) }
    }

    /// The same of a request that may be the first of a connection; `checked` says with what the other end was.
    pub(super) fn of_first(error: reqwest::Error, checked: &str) -> Self {
        match is_untrusted(&error) {
            true => Self::Untrusted { checked: checked.to_owned(), source: error.without_url() },
            false => Self::of_request(error),
        }
    }

    /// A handshake of TLS that failed, with somebody of whom nothing is known.
    pub(super) fn of_handshake(error: io::Error) -> Self {
        let tls = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
        match tls {
            Some(rustls::Error::InvalidCertificate(_)) => Self::Inconsistent(error),
            _ => Self::NoTls(error),
        }
    }

    /// The public error: the only place that decides kind and retry. What the daemon itself answered stays what it was.
    pub(super) fn at(self, operation: &'static str, resource: impl fmt::Display) -> Error {
        let (kind, retry) = match self {
            Self::Refused(problem) => return problem.into_error(),
            Self::Address(_) | Self::NoSegment => (ErrorKind::Invalid, Retry::Never),
            Self::Authorities { ref source, .. } => match source.kind() {
                io::ErrorKind::NotFound => (ErrorKind::NotFound, Retry::Never),
                io::ErrorKind::PermissionDenied => (ErrorKind::PermissionDenied, Retry::Never),
                io::ErrorKind::InvalidData => (ErrorKind::Invalid, Retry::Never),
                _ => (ErrorKind::Unavailable, Retry::Never),
            },
            Self::Tls | Self::SetUp(_) => (ErrorKind::Internal, Retry::Never),
            Self::Connect(_) | Self::Unreachable(_) | Self::NoTls(_) | Self::Lost(_) | Self::CutShort => {
                (ErrorKind::Unavailable, Retry::Later)
            }
            // It was waited for long enough.
            Self::Late(_) => (ErrorKind::Unavailable, Retry::Exhausted),
            Self::Denied(_) | Self::Untrusted { .. } | Self::Inconsistent(_) => {
                (ErrorKind::PermissionDenied, Retry::Never)
            }
            // A proxy in front of a daemon that is being started, say. Nothing is known of the volume, and what was asked for may be done.
            Self::Foreign { .. } | Self::Garbled(_) | Self::TooLong => (ErrorKind::Unavailable, Retry::Later),
            Self::OtherDaemon { .. } => (ErrorKind::Unavailable, Retry::Never),
            Self::Version(_) | Self::Elsewhere | Self::ContentOnLoopback | Self::PlainContent => {
                (ErrorKind::Unsupported, Retry::Never)
            }
        };
        Error::new(kind, operation, resource).with_retry(retry).with_source(self)
    }
}

/// Whether TLS found that the other end is not who it should be.
fn is_untrusted(error: &reqwest::Error) -> bool {
    let mut cause: Option<&(dyn StdError + 'static)> = error.source();
    while let Some(error) = cause {
        // An I/O error does not name what it wraps as its source.
        let inner = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        let tls = inner.and_then(|inner| inner.downcast_ref::<rustls::Error>());
        let tls = tls.or_else(|| error.downcast_ref::<rustls::Error>());
        if matches!(tls, Some(rustls::Error::InvalidCertificate(_))) {
            return true;
        }
        cause = inner.map_or_else(|| error.source(), |inner| Some(inner));
    }
    false
}
