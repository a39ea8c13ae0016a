//! Loop devices as the door to volumes. All calls block.
//!
//! A device is ours when its name in the kernel is `oma:` and the id of the volume, and its image is the volume's by device number and
//! inode. The kernel keeps the image open, with our locks on it, for as long as the device is there: whoever opens the image itself finds
//! it busy. Who reads and writes the device is told by locks of its node, as of any block device.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Seek, SeekFrom};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use oma_core::ByteSize;
use oma_core::traits::Access;
use rustix::fs::OFlags;
use rustix::io::Errno;

use super::bound::{Bound, all, mark, node};
use super::control::{self, Io};
use super::error::LoopError;
use crate::device::{FileDevice, lock};
use crate::file::{Door, FileError, Held, Image, Places, identity};

type Result<T, E = LoopError> = std::result::Result<T, E>;

/// A device leaves out what is no whole block of it at the end of its image: blocks are no larger than this.
const BLOCK: u64 = 4096;
/// So often another one gets the free device first before it is given up.
const RIVALS: usize = 64;

/// Loop devices of this machine.
#[derive(Debug)]
pub(super) struct Loops {
    control: File,
}

impl Loops {
    pub(super) fn new() -> Result<Self> {
        let control = File::options().read(true).write(true).open(control::PATH);
        Ok(Self { control: control.map_err(LoopError::of_control)? })
    }

    /// The device of an image. One that somebody else made of it stands in the way, also beside ours: two would write to one image.
    fn of(image: Image<'_>, file: &File) -> Result<Option<Bound>> {
        let wanted = identity(&file.metadata().map_err(LoopError::on(image.path))?);
        only(image, all()?.into_iter().filter(|bound| bound.status.image() == wanted).collect())
    }

    /// A device of ours is left when the image of its volume was taken away under it.
    fn clear_lost(image: Image<'_>) -> Result<()> {
        let gone = format!("{} (deleted)", image.path.display());
        for bound in all()?.into_iter().filter(|bound| bound.is_ours(image) && bound.backing == gone) {
            let device = bound.open(Access::ReadWrite)?;
            lock(&device, Access::ReadWrite).map_err(LoopError::on(&bound.path))?;
            bound.clear(device)?;
        }
        Ok(())
    }

    /// Makes a device of an image that nobody has open: this one if it is free, else another.
    fn make(&self, image: Image<'_>, file: &File, mut wanted: Option<PathBuf>) -> Result<()> {
        // Opened anew: the locks are those of this open file, which the kernel keeps, and end with the device.
        let own = format!("/proc/self/fd/{}", file.as_raw_fd());
        let file = File::options().read(true).write(true).open(own).map_err(LoopError::on(image.path))?;
        lock(&file, Access::ReadWrite).map_err(LoopError::on(image.path))?;
        for _ in 0..RIVALS {
            let path = match wanted.take() {
                Some(path) => path,
                None => control::free(&self.control).map(free_path).map_err(LoopError::of_control)?,
            };
            let device = match node(&path, OFlags::RDWR) {
                // It is about to go, and somebody still has it open.
                Err(Errno::NXIO) => continue,
                device => device.map_err(LoopError::on(&path))?,
            };
            match configure(&device, &file, image) {
                Ok(io) => return check_made(&path, &device, &file, io),
                Err(error) if Errno::from_io_error(&error) == Some(Errno::BUSY) => {}
                Err(error) => return Err(refused(&path, error)),
            }
        }
        Err(LoopError::Taken)
    }
}

/// Of all devices of an image ours, which is the only one.
fn only(image: Image<'_>, mut all: Vec<Bound>) -> Result<Option<Bound>> {
    if let Some(other) = all.iter().find(|bound| !bound.is_ours(image) || !bound.status.is_whole()) {
        return Err(LoopError::Foreign(other.path.clone()));
    }
    if all.len() > 1 {
        return Err(LoopError::Several(all.into_iter().map(|bound| bound.path).collect()));
    }
    Ok(all.pop())
}

/// While it is there, no other program of ours takes a free device.
fn alone() -> Result<File> {
    let control = File::options().read(true).write(true).open(control::PATH);
    let control = control.map_err(LoopError::of_control)?;
    control.lock().map_err(LoopError::of_control)?;
    Ok(control)
}

fn free_path(number: u32) -> PathBuf {
    PathBuf::from(format!("/dev/loop{number}"))
}

impl Door for Loops {
    fn fitting(&self, capacity: ByteSize) -> Option<ByteSize> {
        let bytes = capacity.bytes().checked_next_multiple_of(BLOCK)?;
        i64::try_from(bytes).is_ok().then(|| ByteSize::new(bytes))
    }

    fn shows_all(&self) -> bool {
        true
    }

    fn places(&self) -> Result<Places, FileError> {
        let ours = all()?.into_iter().filter(Bound::is_marked);
        let places: BTreeMap<_, _> = ours.map(|bound| (bound.status.image(), bound.path)).collect();
        Ok(Places::Devices(places))
    }

    fn hold(&self, image: Image<'_>, file: File, access: Access) -> Result<Held, FileError> {
        let Some(bound) = Self::of(image, &file)? else {
            lock(&file, access).map_err(LoopError::on(image.path))?;
            return Ok(Held { file, device: None });
        };
        let device = bound.open(access)?;
        lock(&device, access).map_err(LoopError::on(&bound.path))?;
        // What was written to the device is in its image.
        device.sync_data().map_err(LoopError::on(&bound.path))?;
        Ok(Held { file, device: Some(device) })
    }

    fn attach(&self, image: Image<'_>, file: &File) -> Result<(), FileError> {
        let Some(bound) = Self::of(image, file)? else {
            Self::clear_lost(image)?;
            let _alone = alone()?;
            return Ok(self.make(image, file, None)?);
        };
        let device = bound.keep()?;
        // Whoever made the image larger may have been killed before the device was.
        Ok(measure(&bound.path, &device, file)?)
    }

    fn detach(&self, image: Image<'_>, mut held: Held) -> Result<Held, FileError> {
        // Its lock goes with the device, a moment later where somebody else closed that last.
        if let (Some(bound), Some(device)) = (Self::of(image, &held.file)?, held.device.take()) {
            bound.clear(device)?;
        }
        Ok(held)
    }

    fn replace(
        &self,
        image: Image<'_>,
        mut held: Held,
        new: &File,
        place: &mut dyn FnMut() -> Result<(), FileError>,
    ) -> Result<(), FileError> {
        let (Some(bound), Some(device)) = (Self::of(image, &held.file)?, held.device.take()) else {
            return place();
        };
        // It goes on with the file that it was made of, under whatever name.
        let _alone = alone()?;
        let path = Some(bound.path.clone());
        bound.clear(device)?;
        if let Err(error) = place() {
            if let Err(left) = self.make(image, &held.file, path) {
                tracing::warn!(volume = %image.id, %left, "its device is gone; attach it again");
            }
            return Err(error);
        }
        Ok(self.make(image, new, path)?)
    }

    fn detach_lost(&self, image: Image<'_>) -> Result<(), FileError> {
        Ok(Self::clear_lost(image)?)
    }

    fn resized(&self, image: Image<'_>, held: &Held) -> Result<(), FileError> {
        match &held.device {
            Some(device) => Ok(measure(image.path, device, &held.file)?),
            None => Ok(()),
        }
    }

    fn open(
        &self,
        image: Image<'_>,
        file: File,
        access: Access,
        capacity: ByteSize,
    ) -> Result<Option<FileDevice>, FileError> {
        let Some(bound) = Self::of(image, &file)? else { return Ok(None) };
        let device = bound.open(access)?;
        let opened = FileDevice::of_image(device, bound.path.clone(), access, capacity, file);
        Ok(Some(opened.map_err(LoopError::on(&bound.path))?))
    }
}

/// Direct I/O first: without it everything is in memory twice.
fn configure(device: &File, file: &File, image: Image<'_>) -> std::io::Result<Io> {
    let mark = mark(image);
    match control::configure(device, file, &mark, Io::Direct) {
        Err(error) if Errno::from_io_error(&error) == Some(Errno::INVAL) => {
            control::configure(device, file, &mark, Io::Buffered)?;
        }
        configured => configured?,
    }
    // Where the file system has none, most kernels do without and say so only here.
    Ok(control::status(device)?.map_or(Io::Buffered, |status| status.io()))
}

fn refused(path: &Path, error: std::io::Error) -> LoopError {
    match Errno::from_io_error(&error) {
        Some(Errno::NOTTY | Errno::INVAL) => LoopError::TooOld(error),
        Some(Errno::ACCESS | Errno::PERM) => LoopError::Denied(error),
        _ => LoopError::on(path)(error),
    }
}

/// A device that is not as large as its image would be a volume without an end (L13).
fn check_made(path: &Path, device: &File, file: &File, io: Io) -> Result<()> {
    if io == Io::Buffered {
        tracing::warn!(device = %path.display(), "its image's file system has no direct I/O: it is cached twice");
    }
    check_size(path, device, file).inspect_err(|_| {
        if let Err(left) = control::clear(device) {
            tracing::warn!(device = %path.display(), %left, "a device of a wrong size was left behind");
        }
    })
}

/// Gives a device the size of its image.
fn measure(path: &Path, device: &File, file: &File) -> Result<()> {
    if check_size(path, device, file).is_ok() {
        return Ok(());
    }
    control::measure(device).map_err(LoopError::on(path))?;
    check_size(path, device, file)
}

fn check_size(path: &Path, mut device: &File, file: &File) -> Result<()> {
    let size = device.seek(SeekFrom::End(0)).map_err(LoopError::on(path))?;
    let image = file.metadata().map_err(LoopError::on(path))?.len();
    if size == image { Ok(()) } else { Err(LoopError::OtherSize { path: path.to_owned(), size, image }) }
}

#[cfg(test)]
mod tests {
    use oma_core::VolumeId;

    use super::*;
    use crate::loopdev::control::Status;

    /// The devices of one image, by number, name in the kernel and offset, as judged for the volume `vol-1`.
    fn judged(devices: &[(u32, &str, u64)]) -> Result<Option<PathBuf>, String> {
        let id = VolumeId::parse("vol-1").unwrap();
        let image = Image { id: &id, path: Path::new("/srv/vol-1.raw") };
        let bound = |&(number, mark, offset): &(u32, &str, u64)| Bound {
            path: free_path(number),
            status: Box::new(Status::made(mark, offset)),
            backing: "/srv/vol-1.raw".to_owned(),
        };
        let all = devices.iter().map(bound).collect();
        only(image, all).map(|bound| bound.map(|bound| bound.path)).map_err(|error| error.to_string())
    }

    #[test]
    fn a_device_of_somebody_else_stands_in_the_way_wherever_it_is_listed() {
        let ours = (3, "oma:vol-1", 0);
        assert_eq!(judged(&[]), Ok(None));
        assert_eq!(judged(&[ours]), Ok(Some(free_path(3))));
        for theirs in [(5, "/srv/vol-1.raw", 0), (5, "oma:vol-2", 0), (5, "oma:vol-1", 512)] {
            for all in [&[theirs][..], &[ours, theirs], &[theirs, ours]] {
                let refused = judged(all).unwrap_err();
                assert!(refused.contains("losetup --detach /dev/loop5"), "{all:?}: {refused}");
            }
        }
    }

    #[test]
    fn two_devices_of_ours_are_a_conflict_that_names_both() {
        let refused = judged(&[(3, "oma:vol-1", 0), (4, "oma:vol-1", 0)]).unwrap_err();
        assert!(refused.contains("/dev/loop3, /dev/loop4"), "{refused}");
        let error = FileError::from(LoopError::Several(vec![free_path(3)])).about("open volume", "vol-1");
        assert_eq!((error.kind(), error.retry()), (oma_core::ErrorKind::Conflict, oma_core::Retry::Never));
    }
}
