use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use oma_core::{Error, ErrorKind, Retry};

use crate::protocol::{
    Malformed, NBD_EINVAL, NBD_EIO, NBD_ENOMEM, NBD_ENOSPC, NBD_ENOTSUP, NBD_EOVERFLOW, NBD_EPERM,
    NBD_ESHUTDOWN,
};
use crate::tls::TlsFailure;

/// What went wrong between this client and its server. One failure may end many requests, so it can be cloned.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum Failure {
    #[error("no server could be reached; start it, or mend the address in the URI")]
    Connect(#[source] Arc<io::Error>),
    #[error("the connection broke; the server or the way to it is gone")]
    Lost(#[source] Arc<io::Error>),
    #[error("the server closed the connection")]
    Closed,
    #[error(
        "the server closed the connection during the handshake; it may be full, or refuse this export or client"
    )]
    ClosedInHandshake,
    #[error(
        "something accepted the connection but did not finish the NBD handshake in {0:?}; is it an NBD server, and does it listen without TLS?"
    )]
    HandshakeTimeout(Duration),
    #[error(
        "the server gave no answer in {0:?}, so its connection was closed; see whether it hangs, or allow more time"
    )]
    RequestTimeout(Duration),
    #[error("what listens there is no NBD server: it began with {0:?}; mend the address in the URI")]
    NotNbd(String),
    #[error("the server speaks only the oldstyle protocol; use a server from after 2011")]
    Oldstyle,
    #[error(
        "the server demands TLS; write nbds:// (nbds+unix://) and name its authority with tls-certificates=DIRECTORY"
    )]
    TlsRequired,
    #[error(
        "the server does not offer TLS ({0}), and TLS was demanded, so nothing more was said; turn TLS on in the server"
    )]
    TlsNotOffered(String),
    #[error("there is no TLS with the server")]
    Tls(#[source] TlsFailure),
    #[error("the server has no export {name:?}; it {offer}")]
    UnknownExport { name: String, offer: Offer },
    #[error("the server refused {what}: {text}")]
    Refused { what: &'static str, text: String },
    #[error("the server is shutting down; try again when it is back")]
    ShuttingDown,
    #[error("the server broke the protocol, so its connection was closed")]
    Violation(#[source] Violation),
    #[error("the server answered {}{}", errno_name(*errno), suffix(message))]
    Server { errno: u32, message: String },
    #[error(
        "the export changed while the connection was away: it was {before}, it is {after}; start again from the beginning"
    )]
    Changed { before: String, after: String },
    #[error(
        "a connection was lost after writes that were not flushed; nothing is known of them, so write them again"
    )]
    WritesInDoubt,
    #[error("the server cannot {0}; use a server that can")]
    Cannot(&'static str),
    #[error(
        "the metadata context {0:?} is not there; ask for it when connecting, and see whether the export has it"
    )]
    NoContext(String),
}

/// The exports that a server offers, for readers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Offer {
    Untold,
    Names(Vec<String>),
}

impl fmt::Display for Offer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 8;
        match self {
            Self::Untold => f.write_str("does not tell which it has; ask whoever runs it"),
            Self::Names(names) if names.is_empty() => f.write_str("offers none"),
            Self::Names(names) => {
                let shown: Vec<_> = names.iter().take(SHOWN).map(|name| format!("{name:?}")).collect();
                write!(f, "offers {}", shown.join(", "))?;
                match names.len().checked_sub(SHOWN) {
                    Some(more) if more > 0 => write!(f, " and {more} more"),
                    _ => Ok(()),
                }
            }
        }
    }
}

/// How a server broke the protocol.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Violation {
    #[error(transparent)]
    Malformed(#[from] Malformed),
    #[error("a reply to no request, with the cookie {0:#x}")]
    UnknownCookie(u64),
    #[error("{what} of {length} bytes, where at most {limit} are possible")]
    TooLong { what: &'static str, length: u64, limit: u64 },
    #[error("a reply that does not fit its request: {0}")]
    Unfit(&'static str),
    #[error("data for {offset}+{length}, which was not asked for or came before")]
    Misplaced { offset: u64, length: u64 },
    #[error("the end of a read of which {missing} bytes never came")]
    Short { missing: u64 },
    #[error("block status that is impossible: {0}")]
    Status(&'static str),
    #[error("an answer to the option {found} while the option {asked} was asked")]
    OtherOption { asked: u32, found: u32 },
    #[error("an impossible answer in the handshake: {0}")]
    Handshake(&'static str),
}

impl From<Violation> for Failure {
    fn from(violation: Violation) -> Self {
        Self::Violation(violation)
    }
}

impl From<Malformed> for Failure {
    fn from(malformed: Malformed) -> Self {
        Self::Violation(malformed.into())
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::UnexpectedEof {
            return Self::Closed;
        }
        error.downcast::<TlsFailure>().map_or_else(|error| Self::Lost(Arc::new(error)), Self::Tls)
    }
}

impl Failure {
    /// The public error: the only place that decides kind and retry.
    ///
    /// `EIO` and `ENOMEM` are the server's storage or memory failing just now: `Unavailable`, later perhaps not. A
    /// violation is never mended by asking the same server again.
    pub(crate) fn at(self, operation: &'static str, resource: impl fmt::Display) -> Error {
        let (kind, retry) = match &self {
            Self::Connect(_)
            | Self::Lost(_)
            | Self::Closed
            | Self::ClosedInHandshake
            | Self::HandshakeTimeout(_)
            | Self::RequestTimeout(_)
            | Self::ShuttingDown => (ErrorKind::Unavailable, Retry::Later),
            Self::NotNbd(_) => (ErrorKind::Invalid, Retry::Never),
            Self::Oldstyle | Self::TlsRequired | Self::TlsNotOffered(_) | Self::Cannot(_) => {
                (ErrorKind::Unsupported, Retry::Never)
            }
            Self::UnknownExport { .. } | Self::NoContext(_) => (ErrorKind::NotFound, Retry::Never),
            Self::Refused { .. } => (ErrorKind::PermissionDenied, Retry::Never),
            Self::Tls(failure) => failure.kind(),
            Self::Violation(_) => (ErrorKind::Corrupt, Retry::Never),
            Self::Server { errno, .. } => of_errno(*errno),
            Self::Changed { .. } => (ErrorKind::Conflict, Retry::Never),
            // Never: a flush that is tried again would succeed and prove nothing.
            Self::WritesInDoubt => (ErrorKind::Unavailable, Retry::Never),
        };
        Error::new(kind, operation, resource).with_retry(retry).with_source(self)
    }
}

const fn of_errno(errno: u32) -> (ErrorKind, Retry) {
    match errno {
        NBD_EPERM => (ErrorKind::PermissionDenied, Retry::Never),
        NBD_ENOSPC => (ErrorKind::NoSpace, Retry::Never),
        NBD_ENOTSUP => (ErrorKind::Unsupported, Retry::Never),
        NBD_EINVAL | NBD_EOVERFLOW => (ErrorKind::Invalid, Retry::Never),
        // EIO, ENOMEM, ESHUTDOWN, and by the protocol every number that is not known counts as EINVAL; but a server
        // that sends one has trouble of its own, not with the request.
        _ => (ErrorKind::Unavailable, Retry::Later),
    }
}

fn errno_name(errno: u32) -> String {
    let name = match errno {
        NBD_EPERM => "EPERM (not permitted)",
        NBD_EIO => "EIO (its storage failed)",
        NBD_ENOMEM => "ENOMEM (it is out of memory)",
        NBD_EINVAL => "EINVAL (invalid request)",
        NBD_ENOSPC => "ENOSPC (no space left)",
        NBD_EOVERFLOW => "EOVERFLOW (too large)",
        NBD_ENOTSUP => "ENOTSUP (not supported)",
        NBD_ESHUTDOWN => "ESHUTDOWN (it is shutting down)",
        other => return format!("the error {other}"),
    };
    name.to_owned()
}

/// A text of the server: bounded by the protocol, shown without control characters.
fn suffix(message: &str) -> String {
    if message.is_empty() { String::new() } else { format!(": {}", message.escape_debug()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_of_the_server_are_told_apart() {
        for (errno, kind, retry) in [
            (NBD_EPERM, ErrorKind::PermissionDenied, Retry::Never),
            (NBD_EIO, ErrorKind::Unavailable, Retry::Later),
            (NBD_ENOMEM, ErrorKind::Unavailable, Retry::Later),
            (NBD_EINVAL, ErrorKind::Invalid, Retry::Never),
            (NBD_ENOSPC, ErrorKind::NoSpace, Retry::Never),
            (NBD_ENOTSUP, ErrorKind::Unsupported, Retry::Never),
            (NBD_ESHUTDOWN, ErrorKind::Unavailable, Retry::Later),
            (4711, ErrorKind::Unavailable, Retry::Later),
        ] {
            let error = Failure::Server { errno, message: String::new() }.at("read", "x");
            assert_eq!((error.kind(), error.retry()), (kind, retry), "{errno}");
        }
    }

    #[test]
    fn texts_of_the_server_cannot_forge_lines() {
        let error = Failure::Server { errno: NBD_EIO, message: "a\nb\x1b[2J".to_owned() }.at("read", "x");
        assert!(error.chain().ends_with(r"its storage failed): a\nb\u{1b}[2J"), "{}", error.chain());
    }

    #[test]
    fn a_long_offer_is_cut_short() {
        let names: Vec<_> = (0..10).map(|n| n.to_string()).collect();
        assert!(Offer::Names(names).to_string().ends_with("\"7\" and 2 more"));
        assert_eq!(Offer::Names(vec![]).to_string(), "offers none");
    }
}
