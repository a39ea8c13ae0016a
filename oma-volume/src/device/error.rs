use std::io;
use std::path::Path;

use oma_core::{Error, ErrorKind, Retry};
use rustix::io::Errno;

/// Why a file or block device did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DeviceError {
    #[error("the file ended early at {end} of {capacity} bytes; was it truncated?")]
    EndedEarly { end: u64, capacity: u64 },
    #[error("it is empty; a disk has at least one byte")]
    Empty,
    #[error("it is a {0}, not a file or a block device; name the disk itself")]
    NotADisk(&'static str),
    #[error(
        "it is a {0} image, not a raw disk; serve it with `qemu-nbd --read-only --format {0}` and name the URI of that"
    )]
    NotRaw(&'static str),
    #[error("somebody else writes to it; wait for that to end, or stop it")]
    Written,
    #[error("somebody else has it open; wait for that to end, or stop it")]
    Open,
    #[error(
        "a program of QEMU has it open; end that, or replicate a machine that shall go on through its monitor"
    )]
    InQemu,
    #[error("its file system cannot lock files, so two writers could not be told apart; use another one")]
    NoLocks,
    #[error(
        "an earlier flush failed, so what was written before may be lost; open it again and write it again"
    )]
    FlushFailed,
    #[error(
        "the flush failed, and what was written before may be lost; look for errors of the disk in the kernel's log"
    )]
    Flush(#[source] io::Error),
    #[error("it cannot zero this faster than write it")]
    NotFast,
    #[error("there is no such file; check the path")]
    Missing(#[source] io::Error),
    #[error("no room is left on its file system; free some, then run again")]
    NoRoom(#[source] io::Error),
    #[error("the permission is missing; check owner and mode, and whether its file system is read-only")]
    Denied(#[source] io::Error),
    #[error("its medium failed; look for errors of the disk in the kernel's log")]
    Medium(#[source] io::Error),
    #[error("too many files are open or memory is short; raise the limits, or run less at once")]
    Exhausted(#[source] io::Error),
    #[error("it could not be reached")]
    Other(#[source] io::Error),
    #[error("the program is shutting down")]
    Shutdown,
    #[error("nobody waits for it any more")]
    GivenUp,
}

fn is_no_room(error: Errno) -> bool {
    matches!(error, Errno::NOSPC | Errno::DQUOT | Errno::FBIG)
}

impl From<io::Error> for DeviceError {
    fn from(error: io::Error) -> Self {
        match Errno::from_io_error(&error) {
            Some(Errno::NOENT | Errno::NOTDIR) => Self::Missing(error),
            Some(errno) if is_no_room(errno) => Self::NoRoom(error),
            Some(Errno::ACCESS | Errno::PERM | Errno::ROFS) => Self::Denied(error),
            Some(Errno::IO) => Self::Medium(error),
            Some(Errno::MFILE | Errno::NFILE | Errno::NOMEM) => Self::Exhausted(error),
            Some(Errno::ISDIR) => Self::NotADisk("folder"),
            Some(Errno::TXTBSY | Errno::BUSY) => Self::Open,
            _ => Self::Other(error),
        }
    }
}

impl From<Errno> for DeviceError {
    fn from(error: Errno) -> Self {
        io::Error::from(error).into()
    }
}

impl DeviceError {
    /// What a caller can act on, and whether trying again can help: decided here and nowhere else.
    ///
    /// A failed medium (`EIO`) is `Unavailable` and worth another try, because disks behind a network recover; after a
    /// failed flush it is not, because the kernel forgets the pages that it could not write.
    pub(crate) fn judgement(&self) -> (ErrorKind, Retry) {
        match self {
            Self::EndedEarly { .. } => (ErrorKind::Corrupt, Retry::Never),
            Self::Empty | Self::NotADisk(_) | Self::NotRaw(_) => (ErrorKind::Invalid, Retry::Never),
            Self::Written | Self::Open | Self::InQemu => (ErrorKind::Busy, Retry::Later),
            Self::NoLocks | Self::NotFast => (ErrorKind::Unsupported, Retry::Never),
            Self::Flush(cause) if Errno::from_io_error(cause).is_some_and(is_no_room) => {
                (ErrorKind::NoSpace, Retry::Never)
            }
            Self::FlushFailed | Self::Flush(_) => (ErrorKind::Unavailable, Retry::Never),
            Self::Missing(_) => (ErrorKind::NotFound, Retry::Never),
            Self::NoRoom(_) => (ErrorKind::NoSpace, Retry::Never),
            Self::Denied(_) => (ErrorKind::PermissionDenied, Retry::Never),
            Self::Medium(_) | Self::Exhausted(_) => (ErrorKind::Unavailable, Retry::Later),
            Self::Other(_) => (ErrorKind::Unavailable, Retry::Never),
            Self::Shutdown | Self::GivenUp => (ErrorKind::Cancelled, Retry::Never),
        }
    }

    pub(crate) fn at(self, operation: &'static str, path: &Path) -> Error {
        let (kind, retry) = self.judgement();
        Error::new(kind, operation, path.display()).with_retry(retry).with_source(self)
    }
}
