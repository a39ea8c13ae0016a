//! New files.

use std::fs::{File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

use oma_core::traits::Access;
use oma_core::{ByteSize, Result};

use super::{DeviceError, FileDevice, blocking, lock};

impl FileDevice {
    /// Makes a file of this size, all of it a hole, and opens it for writing; `None` when there is something already. An empty file,
    /// as `mktemp` leaves it, is nothing.
    ///
    /// Of several that make the same file at once, one does.
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
    let mut options = OpenOptions::new();
    options.read(true).write(true);
    let file = match options.clone().create_new(true).open(&path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            let about = std::fs::metadata(&path)?;
            if !about.is_file() || about.len() > 0 {
                return Ok(None);
            }
            options.open(&path)?
        }
        made => made?,
    };
    lock(&file, Access::ReadWrite)?;
    // Another one may have made it between the look and the lock.
    if file.metadata()?.len() > 0 {
        return Ok(None);
    }
    file.set_len(capacity.bytes())?;
    // Its name is to survive a power cut as what is written to it does.
    sync_folder(&path)?;
    FileDevice::of(file, path, Access::ReadWrite).map(Some)
}

/// Makes the name of a file durable, or that it is gone.
pub(crate) fn sync_folder(path: &Path) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
}
