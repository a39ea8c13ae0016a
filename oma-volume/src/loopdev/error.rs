use std::path::{Path, PathBuf};

use oma_core::{ErrorKind, Retry};
use rustix::io::Errno;

use crate::device::DeviceError;
use crate::file::{DoorError, FileError};

/// Why no loop device was made of an image, or none was taken away.
#[derive(Debug, thiserror::Error)]
pub(super) enum LoopError {
    #[error("this kernel has no loop devices; load them with `modprobe loop`")]
    NoLoops(#[source] std::io::Error),
    #[error("loop devices take the right to administer the machine; run this as root, or with CAP_SYS_ADMIN")]
    Denied(#[source] std::io::Error),
    #[error("this kernel cannot make a loop device in one step; Linux 5.8 can")]
    TooOld(#[source] std::io::Error),
    #[error(
        "{device} is made of its image already, and not by OMA; look whose it is, then `losetup --detach {device}`", device = .0.display()
    )]
    Foreign(PathBuf),
    #[error(
        "{} are made of one image, and what is written to one is not seen by the others; end who uses them, then `losetup --detach` all of them and attach the volume again", listed(.0)
    )]
    Several(Vec<PathBuf>),
    #[error("somebody has {} open; wait for that to end, unmount it, or stop who it is", .0.display())]
    InUse(PathBuf),
    #[error("every loop device that was free was taken before it was ours; try again")]
    Taken,
    #[error("{} has {size} bytes, its image {image}", .path.display())]
    OtherSize { path: PathBuf, size: u64, image: u64 },
    #[error("{} was taken away while it was opened; attach the volume again", .0.display())]
    Gone(PathBuf),
    #[error("{}", .path.display())]
    File { path: PathBuf, source: DeviceError },
}

fn listed(paths: &[PathBuf]) -> String {
    paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ")
}

impl LoopError {
    /// Any failure on a device or an image.
    pub(super) fn on<E: Into<DeviceError>>(path: &Path) -> impl FnOnce(E) -> Self + '_ {
        move |error| Self::File { path: path.to_owned(), source: error.into() }
    }

    /// A failure on `/dev/loop-control`.
    pub(super) fn of_control(error: std::io::Error) -> Self {
        match Errno::from_io_error(&error) {
            Some(Errno::NOENT | Errno::NODEV | Errno::NXIO) => Self::NoLoops(error),
            Some(Errno::ACCESS | Errno::PERM) => Self::Denied(error),
            _ => Self::on(Path::new(super::control::PATH))(error),
        }
    }
}

impl From<LoopError> for FileError {
    /// The only place that says what a caller can act on.
    fn from(error: LoopError) -> Self {
        let (kind, retry) = match &error {
            LoopError::NoLoops(_) | LoopError::TooOld(_) => (ErrorKind::Unsupported, Retry::Never),
            LoopError::Denied(_) => (ErrorKind::PermissionDenied, Retry::Never),
            LoopError::Foreign(_) | LoopError::Several(_) => (ErrorKind::Conflict, Retry::Never),
            LoopError::Gone(_) => (ErrorKind::Conflict, Retry::Later),
            LoopError::InUse(_) | LoopError::Taken => (ErrorKind::Busy, Retry::Later),
            LoopError::OtherSize { .. } => (ErrorKind::Corrupt, Retry::Never),
            LoopError::File { source, .. } => match source.judgement() {
                // A device or an image of ours that is missing is not an absent volume (L21).
                (ErrorKind::NotFound, _) => (ErrorKind::Unavailable, Retry::Later),
                judgement => judgement,
            },
        };
        Self::Door(DoorError { kind, retry, cause: error.into() })
    }
}
