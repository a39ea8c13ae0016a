use std::path::{Path, PathBuf};

use oma_core::record::VolumeTag;
use oma_core::traits::SnapshotSpec;
use oma_core::{Error, ErrorKind, OperationId, Retry, VolumeId};

use super::door::DoorError;
use crate::device::DeviceError;

/// Why the file backend did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FileError {
    #[error("there is no such volume in {}", .0.display())]
    Unknown(PathBuf),
    #[error("it bears the tag {found}, not {given}")]
    Tag { found: Box<VolumeTag>, given: Box<VolumeTag> },
    #[error("it bears the tag {found}, which {given} does not follow")]
    Retag { found: Box<VolumeTag>, given: Box<VolumeTag> },
    #[error("the operation {0} made this volume with another tag or a smaller size")]
    MadeOtherwise(OperationId),
    #[error("there is no such snapshot in {}", .0.display())]
    UnknownSnapshot(PathBuf),
    #[error("it is of volume {} and was made for {}, as {}", .0.volume, .0.job, .0.tag)]
    SnapshotMarks(Box<SnapshotSpec>),
    #[error("the id was given to another snapshot; mint a new one")]
    SnapshotOtherwise,
    #[error("the snapshot is of volume {0}")]
    OtherVolume(VolumeId),
    #[error("a volume has at least one byte")]
    NoBytes,
    #[error("no file on the file system of {} can have {capacity} bytes", .path.display())]
    TooLarge { path: PathBuf, capacity: u64 },
    #[error("the file system of {} cannot allocate space in advance; make the volume thin", .0.display())]
    NotThick(PathBuf),
    #[error("{} stands in the way and has no ownership record; move it away", .0.display())]
    Foreign(PathBuf),
    #[error("it is not attached; attach it first")]
    NotAttached,
    #[error("the ownership record {} cannot be read; repair it, or move it and its image away", .path.display())]
    Record { path: PathBuf, source: serde_json::Error },
    #[error("the ownership record {} is that of the volume {id}; give it its name back", .path.display())]
    Misnamed { path: PathBuf, id: String },
    #[error("the image {} is gone; {}", .0.display(), after_loss(.0))]
    ImageGone(PathBuf),
    #[error("the image {} is a symbolic link or no regular file; put the image itself there", .0.display())]
    NotAnImage(PathBuf),
    #[error("the image {} has {size} bytes, its ownership record says {capacity}: {}", .path.display(), after_cut(.path, *size, *capacity))]
    Truncated { path: PathBuf, size: u64, capacity: u64 },
    #[error("the directory {} is not there, or was replaced; is its file system mounted?", .0.display())]
    Directory(PathBuf),
    #[error(
        "no volume was ever made in {}: mount its file system; if this is the right one, make an empty file `oma-volumes` in it", .0.display()
    )]
    NeverUsed(PathBuf),
    #[error(
        "{} is not the directory that {} knows; mount its file system. If volumes are to be in this one from now on, remove {} and begin anew", .directory.display(), .identity.display(), .identity.display()
    )]
    OtherDirectory { directory: PathBuf, identity: PathBuf },
    #[error("{}", .path.display())]
    File { path: PathBuf, source: DeviceError },
    #[error(transparent)]
    #[cfg_attr(
        not(feature = "loopdev"),
        allow(dead_code, reason = "the door to the images themselves has no errors of its own")
    )]
    Door(DoorError),
}

/// What helps when an image is gone.
fn after_loss(image: &Path) -> String {
    if is_snapshot(image) {
        return "restore it, or delete its recovery point".to_owned();
    }
    let record = image.with_extension("json");
    format!(
        "restore it, as from the image of a recovery point beside it, or remove {} as well: the next run makes a new volume and fills \
         it, and what recovery points of this one hold is lost when they are swept",
        record.display()
    )
}

/// What helps when an image was truncated, or made longer.
fn after_cut(image: &Path, size: u64, capacity: u64) -> String {
    if size > capacity {
        return format!(
            "it was made longer; cut that off with `truncate -c -s {capacity} {}`",
            quoted(image)
        );
    }
    if is_snapshot(image) {
        return "it was truncated, and what it held is lost; delete its recovery point".to_owned();
    }
    format!(
        "it was truncated; make it long again with `truncate -c -s {capacity} {}`: the next run compares all of it",
        quoted(image)
    )
}

/// A path as a shell takes it, whatever is in it.
fn quoted(path: &Path) -> String {
    format!("'{}'", path.display().to_string().replace('\'', r"'\''"))
}

fn is_snapshot(image: &Path) -> bool {
    image.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"snap-"))
}

impl FileError {
    /// Any failure on a file of the backend.
    pub(crate) fn on<E: Into<DeviceError>>(path: &Path) -> impl FnOnce(E) -> Self + '_ {
        move |error| Self::File { path: path.to_owned(), source: error.into() }
    }

    /// Whether the file system is full.
    pub(super) fn is_no_room(&self) -> bool {
        matches!(self, Self::File { source, .. } if source.judgement().0 == ErrorKind::NoSpace)
    }

    /// The public error: the only place that says what a caller can act on.
    pub(crate) fn about(self, operation: &'static str, resource: &str) -> Error {
        let kind = match &self {
            Self::Unknown(_) | Self::UnknownSnapshot(_) => ErrorKind::NotFound,
            Self::Tag { .. } | Self::Retag { .. } | Self::SnapshotMarks(_) => ErrorKind::PermissionDenied,
            Self::MadeOtherwise(_) | Self::SnapshotOtherwise => ErrorKind::AlreadyExists,
            Self::NoBytes | Self::TooLarge { .. } | Self::OtherVolume(_) => ErrorKind::Invalid,
            Self::NotThick(_) => ErrorKind::Unsupported,
            Self::Foreign(_) | Self::NotAttached => ErrorKind::Conflict,
            Self::Record { .. } | Self::Misnamed { .. } | Self::ImageGone(_) => ErrorKind::Corrupt,
            Self::NotAnImage(_) | Self::Truncated { .. } => ErrorKind::Corrupt,
            Self::Directory(_) | Self::NeverUsed(_) | Self::OtherDirectory { .. } => ErrorKind::Unavailable,
            Self::Door(DoorError { kind, retry, .. }) => {
                return Error::new(*kind, operation, resource).with_retry(*retry).with_source(self);
            }
            Self::File { source, .. } => {
                let (kind, retry) = source.judgement();
                // A file of ours that is missing is not an absent volume (L21).
                let kind = if kind == ErrorKind::NotFound { ErrorKind::Unavailable } else { kind };
                return Error::new(kind, operation, resource).with_retry(retry).with_source(self);
            }
        };
        let retry = if kind == ErrorKind::Unavailable { Retry::Later } else { Retry::Never };
        Error::new(kind, operation, resource).with_retry(retry).with_source(self)
    }
}
