//! New files.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use oma_core::traits::Access;
use oma_core::{ByteSize, Result};

use super::{DeviceError, FileDevice, blocking, lock};

impl FileDevice {
    /// Makes a file of this size, all of it a hole, and opens it for writing; `None` when there is something already. An empty file,
    /// as `mktemp` leaves it, is nothing.
    ///
    /// Of several that make the same file at once, one does. A file that could not be made as large is removed; one that was found
    /// stays.
    ///
    /// # Errors
    /// `Busy` while another one makes it; `NotFound` without its folder; `PermissionDenied`; `NoSpace`; `Invalid` for a size of zero.
    pub async fn make(path: impl Into<PathBuf>, capacity: ByteSize) -> Result<Option<Self>> {
        let path = path.into();
        let place = path.clone();
        let made = blocking(move || make(path, capacity)).await;
        made.and_then(|made| made).map_err(|error| error.at("make disk", &place))
    }
}

fn make(path: PathBuf, capacity: ByteSize) -> Result<Option<FileDevice>, DeviceError> {
    if capacity == ByteSize::ZERO {
        return Err(DeviceError::Empty);
    }
    let mut options = OpenOptions::new();
    options.read(true).write(true);
    let (file, is_new) = match options.clone().create_new(true).open(&path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            let about = std::fs::metadata(&path)?;
            if !about.is_file() || about.len() > 0 {
                return Ok(None);
            }
            (options.open(&path)?, false)
        }
        made => (made?, true),
    };
    lock(&file, Access::ReadWrite)?;
    // Between the look and the lock another one may have made it, or removed what it could not make.
    if !is_at(&file, &path)? {
        return Err(DeviceError::Open);
    }
    if file.metadata()?.len() > 0 {
        return Ok(None);
    }
    // Its name is to survive a power cut as what is written to it does.
    if let Err(error) = file.set_len(capacity.bytes()).and_then(|()| sync_folder(&path)) {
        // Locked, it is nobody else's yet.
        if is_new && is_at(&file, &path).unwrap_or(false) {
            // What went wrong first is what is told.
            drop(std::fs::remove_file(&path));
        }
        return Err(error.into());
    }
    FileDevice::of(file, path, Access::ReadWrite).map(Some)
}

/// Whether a path leads to an open file.
pub(crate) fn is_at(file: &File, path: &Path) -> io::Result<bool> {
    let about = file.metadata()?;
    match std::fs::metadata(path) {
        Ok(now) => Ok((now.dev(), now.ino()) == (about.dev(), about.ino())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Makes the name of a file durable, or that it is gone.
pub(crate) fn sync_folder(path: &Path) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
}
