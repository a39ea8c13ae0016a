//! How volumes are reached: as their images, or through devices that the kernel makes of them. All calls block.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use oma_core::traits::Access;
use oma_core::{ByteSize, ErrorKind, Retry, VolumeId};

use super::error::FileError;
use crate::device::{FileDevice, lock, unlock};

type Result<T, E = FileError> = std::result::Result<T, E>;

/// A way to volumes. Images and records are the same behind each.
pub(crate) trait Door: fmt::Debug + Send + Sync + 'static {
    /// The size of a volume that is to have this much at least; `None` when there is no such size.
    fn fitting(&self, capacity: ByteSize) -> Option<ByteSize>;

    /// Whether others reach all of an image, also what is beyond the size in its record.
    fn shows_all(&self) -> bool;

    /// Where attached volumes are.
    fn places(&self) -> Result<Places>;

    /// Keeps an image from others: readers share, a writer is alone. It ends with what is answered.
    fn hold(&self, image: Image<'_>, file: File, access: Access) -> Result<Held>;

    /// Makes an image of a fitting size reachable. Idempotent.
    fn attach(&self, image: Image<'_>, file: &File) -> Result<()>;

    /// Ends that, of an image that is held for writing. What is answered holds it on, but where the device did; the directory's lock
    /// keeps all others of ours away. Idempotent.
    fn detach(&self, image: Image<'_>, held: Held) -> Result<Held>;

    /// Puts another file in the place of an image that is held for writing, which `place` does; it is reachable as it was.
    fn replace(
        &self,
        image: Image<'_>,
        held: Held,
        new: &File,
        place: &mut dyn FnMut() -> Result<()>,
    ) -> Result<()>;

    /// Takes away what an image whose file is gone was reachable by. Idempotent.
    fn detach_lost(&self, image: Image<'_>) -> Result<()>;

    /// Tells that an image which is held for writing has another size.
    fn resized(&self, image: Image<'_>, held: &Held) -> Result<()>;

    /// Opens it; `None` when it is not attached.
    fn open(
        &self,
        image: Image<'_>,
        file: File,
        access: Access,
        capacity: ByteSize,
    ) -> Result<Option<FileDevice>>;
}

/// The image of a volume.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(not(feature = "loopdev"), allow(dead_code, reason = "only other doors look at it"))]
pub(crate) struct Image<'a> {
    pub(crate) id: &'a VolumeId,
    pub(crate) path: &'a Path,
}

/// An image that is kept from others, by a lock of itself or of the device that is made of it.
#[derive(Debug)]
#[cfg_attr(not(feature = "loopdev"), allow(dead_code, reason = "only other doors look at it"))]
pub(crate) struct Held {
    pub(crate) file: File,
    pub(crate) device: Option<File>,
}

impl Drop for Held {
    /// Closing alone is not enough: a program that is just being started has a copy of every open file.
    fn drop(&mut self) {
        unlock(&self.file);
        self.device.iter().for_each(unlock);
    }
}

/// Where attached volumes are.
#[derive(Debug)]
#[cfg_attr(not(feature = "loopdev"), allow(dead_code, reason = "only other doors make it"))]
pub(crate) enum Places {
    /// Where their images are.
    Images,
    /// At devices, by device number and inode of their image.
    Devices(BTreeMap<(u64, u64), PathBuf>),
}

impl Places {
    /// Where the volume with this image is, if it is anywhere.
    pub(super) fn of(&self, image: &Path) -> Option<String> {
        let place = match self {
            Self::Images => image,
            Self::Devices(all) => all.get(&identity(&fs::metadata(image).ok()?))?,
        };
        Some(place.display().to_string())
    }
}

/// Who a file is, however it is called.
pub(crate) fn identity(about: &fs::Metadata) -> (u64, u64) {
    (about.dev(), about.ino())
}

/// Why a door does not open.
#[derive(Debug)]
pub(crate) struct DoorError {
    pub(crate) kind: ErrorKind,
    pub(crate) retry: Retry,
    pub(crate) cause: Box<dyn std::error::Error + Send + Sync>,
}

impl fmt::Display for DoorError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.cause.fmt(f)
    }
}

impl std::error::Error for DoorError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.cause.source()
    }
}

/// The images themselves.
#[derive(Debug)]
pub(super) struct Plain;

impl Door for Plain {
    fn fitting(&self, capacity: ByteSize) -> Option<ByteSize> {
        Some(capacity)
    }

    fn shows_all(&self) -> bool {
        false
    }

    fn places(&self) -> Result<Places> {
        Ok(Places::Images)
    }

    fn hold(&self, image: Image<'_>, file: File, access: Access) -> Result<Held> {
        lock(&file, access).map_err(FileError::on(image.path))?;
        Ok(Held { file, device: None })
    }

    fn attach(&self, _image: Image<'_>, _file: &File) -> Result<()> {
        Ok(())
    }

    fn detach(&self, _image: Image<'_>, held: Held) -> Result<Held> {
        Ok(held)
    }

    fn replace(
        &self,
        _image: Image<'_>,
        _held: Held,
        _new: &File,
        place: &mut dyn FnMut() -> Result<()>,
    ) -> Result<()> {
        place()
    }

    fn detach_lost(&self, _image: Image<'_>) -> Result<()> {
        Ok(())
    }

    fn resized(&self, _image: Image<'_>, _held: &Held) -> Result<()> {
        Ok(())
    }

    fn open(
        &self,
        image: Image<'_>,
        file: File,
        access: Access,
        capacity: ByteSize,
    ) -> Result<Option<FileDevice>> {
        let opened = FileDevice::within(file, image.path.to_owned(), access, capacity);
        opened.map(Some).map_err(FileError::on(image.path))
    }
}
