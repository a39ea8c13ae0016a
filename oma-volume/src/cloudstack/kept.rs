//! A disk that is about to be taken away, for nobody else meanwhile.

use std::fs::File;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;

use oma_core::traits::Access;
use oma_core::{ErrorKind, Result};
use rustix::fs::{Mode, OFlags, open};

use crate::device::{DeviceError, FileDevice, blocking, lock};

/// As long as it lives nobody of ours opens the disk.
#[derive(Debug)]
pub(super) struct Kept {
    _disk: Disk,
}

#[derive(Debug)]
#[expect(dead_code, reason = "what is open is locked")]
enum Disk {
    Usable(FileDevice),
    /// One that is read-only, has no byte or begins as an image does: nothing can be written to it, and it can be taken away.
    Unusable(File),
}

/// `None` when there is no such disk.
///
/// # Errors
/// `Busy` while somebody has it open.
pub(super) async fn keep(path: &Path) -> Result<Option<Kept>> {
    let disk = match FileDevice::open(path, Access::ReadWrite).await {
        Ok(device) => Disk::Usable(device),
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) if matches!(error.kind(), ErrorKind::PermissionDenied | ErrorKind::Invalid) => {
            let place = path.to_owned();
            let alone = blocking(move || alone(&place)).await;
            let alone = alone.and_then(|alone| alone);
            Disk::Unusable(alone.map_err(|error| error.at("close disk", path))?)
        }
        Err(error) => return Err(error),
    };
    Ok(Some(Kept { _disk: disk }))
}

/// To read, and locked as a writer locks.
fn alone(path: &Path) -> Result<File, DeviceError> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let mut file = File::from(open(path, flags, Mode::empty())?);
    if file.metadata()?.file_type().is_block_device() {
        file = File::from(open(path, flags | OFlags::EXCL, Mode::empty())?);
    }
    lock(&file, Access::ReadWrite)?;
    Ok(file)
}
