//! How a command ends when it does not end well.

use std::fmt::Display;
use std::io;

use oma_core::{Error, ErrorKind};

/// A failed command. The sentence is printed by `main`; the JSON too, unless the command has printed its report.
#[derive(Debug)]
pub struct Failed {
    /// What happened.
    pub error: Error,
    /// Whether the command has printed its report already.
    pub reported: bool,
}

impl Failed {
    /// A failure whose report stands on standard output already.
    pub const fn reported(error: Error) -> Self {
        Self { error, reported: true }
    }
}

impl From<Error> for Failed {
    fn from(error: Error) -> Self {
        Self { error, reported: false }
    }
}

/// What to do about an error of the system.
#[derive(Debug, thiserror::Error)]
#[error("{advice}")]
struct Advised {
    advice: &'static str,
    source: io::Error,
}

/// The error of reading a file that must be there.
pub fn read_error(operation: &'static str, resource: impl Display, error: io::Error) -> Error {
    let (kind, advice) = match error.kind() {
        io::ErrorKind::NotFound => (ErrorKind::NotFound, "there is no such file; name another one"),
        io::ErrorKind::IsADirectory => (ErrorKind::Invalid, "it is a folder; name a file"),
        io::ErrorKind::InvalidData => (ErrorKind::Invalid, "it is no text; name another file"),
        _ => return io_error(operation, resource, error),
    };
    Error::new(kind, operation, resource).with_source(Advised { advice, source: error })
}

/// The error of a call to the system that this program made itself.
pub fn io_error(operation: &'static str, resource: impl Display, error: io::Error) -> Error {
    let (kind, advice) = match error.kind() {
        io::ErrorKind::NotFound => {
            (ErrorKind::NotFound, "a folder on the way to it is missing; make it, or name another path")
        }
        io::ErrorKind::PermissionDenied => {
            (ErrorKind::PermissionDenied, "run as its owner, or name another path")
        }
        io::ErrorKind::ReadOnlyFilesystem => {
            (ErrorKind::PermissionDenied, "its file system is read-only; name another path")
        }
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
            (ErrorKind::NoSpace, "make room, or name another path")
        }
        io::ErrorKind::AddrInUse => {
            (ErrorKind::Busy, "somebody listens there already; end that, or name another address")
        }
        io::ErrorKind::AddrNotAvailable => {
            (ErrorKind::Invalid, "this machine has no such address; name one that it has")
        }
        io::ErrorKind::AlreadyExists
        | io::ErrorKind::NotADirectory
        | io::ErrorKind::IsADirectory
        | io::ErrorKind::InvalidInput
        | io::ErrorKind::InvalidFilename => {
            (ErrorKind::Invalid, "something else has this name, or it is none; name another path")
        }
        _ => (ErrorKind::Unavailable, "the system refused; run the same command again when that has passed"),
    };
    Error::new(kind, operation, resource).with_source(Advised { advice, source: error })
}
