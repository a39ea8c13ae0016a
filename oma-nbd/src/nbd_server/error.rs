use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use oma_core::{Error, ErrorKind, Retry};

use super::process::Version;

/// Why nbd-server or its configuration did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    #[error("cannot use {path}")]
    Io { path: PathBuf, source: io::Error },
    #[error("the configuration {path} is not one that nbd-server reads: {reason}; mend it by hand")]
    Broken { path: PathBuf, reason: String },
    #[error("line {line} of {path}: {reason}; our sections are not edited by hand, put a backup in place")]
    Edited { path: PathBuf, line: usize, reason: &'static str },
    #[error("the name cannot stand in nbd-server's configuration: {0}")]
    Name(&'static str),
    #[error("the path {0:?} cannot stand in nbd-server's configuration")]
    Path(PathBuf),
    #[error("the configuration has a section of this name that is not ours")]
    Foreign,
    #[error("the section [{section}], which is not ours, serves the same device; take that out first")]
    Shared { section: String },
    #[error("no nbd-server runs with this configuration ({reason}); start it")]
    NoProcess { reason: String },
    #[error(
        "{pid_file} names process {pid}, which is {found}, not the nbd-server of this configuration; nobody was signalled"
    )]
    OtherProcess { pid_file: PathBuf, pid: i32, found: String },
    #[error(
        "nbd-server {version} damages its own memory when it reads its configuration again, and may then serve the wrong device; use 3.25 or newer"
    )]
    Unsound { version: Version },
    #[error("nbd-server does not serve it after {waited:?}; look for its message in the system's log")]
    NotTaken { waited: std::time::Duration, source: Error },
    #[error(
        "nbd-server serves something else under this name: {0}; it takes a changed section only when it is restarted"
    )]
    Stale(String),
    #[error("connections of it are there yet; nobody can open it any more, ask again")]
    Held,
    #[error("the export was withdrawn or replaced meanwhile")]
    Overtaken,
    #[error("the program is shutting down")]
    Shutdown,
    #[error(transparent)]
    Refused(#[from] Error),
}

impl Failure {
    /// Maps an error of the file system on a path.
    pub(super) fn on(path: &Path) -> impl FnOnce(io::Error) -> Self + use<> {
        let path = path.to_owned();
        move |source| Self::Io { path, source }
    }

    /// The public error: the only place that decides kind and retry.
    pub(super) fn at(self, operation: &'static str, resource: impl fmt::Display) -> Error {
        let (kind, retry) = match &self {
            Self::Refused(_) => match self {
                Self::Refused(error) => return error,
                _ => unreachable!("matched above"),
            },
            Self::Io { source, .. } => of_io(source),
            Self::Broken { .. } | Self::Edited { .. } => (ErrorKind::Corrupt, Retry::Never),
            Self::Name(_) | Self::Path(_) => (ErrorKind::Invalid, Retry::Never),
            Self::Unsound { .. } => (ErrorKind::Unsupported, Retry::Never),
            Self::Foreign => (ErrorKind::AlreadyExists, Retry::Never),
            Self::Shared { .. } | Self::Stale(_) => (ErrorKind::Conflict, Retry::Never),
            Self::NoProcess { .. } | Self::NotTaken { .. } | Self::Shutdown => {
                (ErrorKind::Unavailable, Retry::Later)
            }
            Self::OtherProcess { .. } => (ErrorKind::PermissionDenied, Retry::Never),
            Self::Held => (ErrorKind::Busy, Retry::Later),
            Self::Overtaken => (ErrorKind::Conflict, Retry::Later),
        };
        Error::new(kind, operation, resource).with_retry(retry).with_source(self)
    }
}

fn of_io(error: &io::Error) -> (ErrorKind, Retry) {
    match error.kind() {
        io::ErrorKind::NotFound => (ErrorKind::NotFound, Retry::Never),
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            (ErrorKind::PermissionDenied, Retry::Never)
        }
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => (ErrorKind::NoSpace, Retry::Never),
        _ => (ErrorKind::Unavailable, Retry::Later),
    }
}
