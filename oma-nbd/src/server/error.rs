//! Why a connection ended before its time. Nobody waits for the answer but the log.

use std::io;

use oma_core::{Error, ErrorKind, Retry};

use crate::protocol::Malformed;
use crate::tls::TlsFailure;

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
pub(super) enum Closed {
    #[error("the connection failed")]
    Io(#[from] io::Error),
    #[error(transparent)]
    Malformed(#[from] Malformed),
    #[error("the client went away in the middle of the handshake")]
    Vanished,
    #[error("the handshake took longer than allowed")]
    HandshakeTimeout,
    #[error("the client has flags {0:#x} that are not known")]
    ClientFlags(u32),
    #[error("the client sent more options than allowed")]
    TooManyOptions,
    #[error("option {option} has {length} bytes, which is more than anybody needs")]
    OptionTooLong { option: u32, length: u32 },
    #[error("the client asked for an export that is not served, by the option that cannot be refused")]
    UnknownExport,
    #[error("the client asked for an export before TLS, by the option that cannot be refused")]
    TlsDemanded,
    #[error("there is no TLS with the client")]
    Tls(#[source] TlsFailure),
    #[error("the client agreed on extended headers, then used the option that does not go with them")]
    ExportName,
    #[error("a payload of {0} bytes is larger than allowed")]
    PayloadTooLong(u64),
    #[error("the client neither read its replies nor finished its request for too long")]
    Stalled,
    #[error("the export was withdrawn or the server shut down")]
    Cut,
    #[error("the thread of the connection panicked; this is a bug")]
    Panicked,
    #[error("the file could not be sent")]
    File(#[source] io::Error),
    #[error("the file ends before the size of the export; the client was promised more")]
    Shrunk,
    #[error("there are as many connections as allowed")]
    TooManyConnections,
}

impl Closed {
    /// Why a part of a file could not be sent: the client is gone, or the file is the cause.
    pub(super) fn of_sending(error: io::Error) -> Self {
        use io::ErrorKind as Kind;
        let is_gone = matches!(
            error.kind(),
            Kind::BrokenPipe
                | Kind::ConnectionReset
                | Kind::ConnectionAborted
                | Kind::NotConnected
                | Kind::TimedOut
                | Kind::HostUnreachable
                | Kind::NetworkUnreachable
                | Kind::NetworkDown
        );
        // What TLS says has no number.
        if is_gone || error.raw_os_error().is_none() { Self::Io(error) } else { Self::File(error) }
    }
}

impl From<Closed> for Error {
    fn from(closed: Closed) -> Self {
        let (kind, retry) = match &closed {
            Closed::Io(_)
            | Closed::File(_)
            | Closed::Vanished
            | Closed::Stalled
            | Closed::HandshakeTimeout => (ErrorKind::Unavailable, Retry::Later),
            Closed::TooManyConnections => (ErrorKind::Busy, Retry::Later),
            Closed::Shrunk => (ErrorKind::Corrupt, Retry::Never),
            Closed::Panicked => (ErrorKind::Internal, Retry::Never),
            Closed::Cut => (ErrorKind::Cancelled, Retry::Later),
            Closed::Tls(failure) => failure.kind(),
            Closed::TlsDemanded => (ErrorKind::PermissionDenied, Retry::Never),
            Closed::UnknownExport => (ErrorKind::NotFound, Retry::Never),
            Closed::Malformed(_)
            | Closed::ClientFlags(_)
            | Closed::TooManyOptions
            | Closed::ExportName
            | Closed::OptionTooLong { .. }
            | Closed::PayloadTooLong(_) => (ErrorKind::Invalid, Retry::Never),
        };
        Self::new(kind, "serve", "NBD connection").with_retry(retry).with_source(closed)
    }
}

#[cfg(test)]
mod tests {
    use rustix::io::Errno;

    use super::*;

    #[test]
    fn a_client_that_hangs_up_is_not_the_fault_of_the_file() {
        for gone in [Errno::PIPE, Errno::CONNRESET, Errno::TIMEDOUT, Errno::HOSTUNREACH] {
            assert!(matches!(Closed::of_sending(gone.into()), Closed::Io(_)), "{gone:?}");
        }
        assert!(matches!(Closed::of_sending(io::ErrorKind::WriteZero.into()), Closed::Io(_)));
        for failed in [Errno::IO, Errno::INVAL, Errno::OVERFLOW, Errno::NOMEM] {
            assert!(matches!(Closed::of_sending(failed.into()), Closed::File(_)), "{failed:?}");
        }
    }
}
