//! One file becomes another: by sharing its blocks where the file system can, else by copying its data. All calls block.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{SeekFrom as Find, ftruncate, ioctl_ficlone, seek};
use rustix::io::{Errno, retry_on_intr};

use crate::device::{DeviceError, cannot_share};

/// So much is copied between two looks for the caller.
const PIECE: u64 = 16 << 20;

/// Whoever waits for a copy. Dropped, it lets the copy end soon: it holds locks that the next one needs.
#[derive(Debug, Default)]
pub(super) struct Caller(Waiting);

/// Whether somebody still waits for a copy.
#[derive(Clone, Debug, Default)]
pub(super) struct Waiting {
    gone: Arc<AtomicBool>,
    /// Looks after which the caller is gone.
    #[cfg(test)]
    looks: Option<Arc<std::sync::atomic::AtomicU32>>,
}

impl Caller {
    pub(super) fn waiting(&self) -> Waiting {
        self.0.clone()
    }
}

impl Drop for Caller {
    fn drop(&mut self) {
        self.0.gone.store(true, Ordering::Relaxed);
    }
}

impl Waiting {
    /// For a caller who is gone after so many looks.
    #[cfg(test)]
    pub(super) fn for_looks(looks: u32) -> Self {
        Self { looks: Some(Arc::new(looks.into())), ..Self::default() }
    }

    pub(super) fn check(&self) -> Result<(), DeviceError> {
        #[cfg(test)]
        if let Some(looks) = &self.looks
            && looks.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_err()
        {
            return Err(DeviceError::GivenUp);
        }
        if self.gone.load(Ordering::Relaxed) { Err(DeviceError::GivenUp) } else { Ok(()) }
    }
}

/// Gives `to`, which is empty, the first `length` bytes of `from`, not yet durable. Holes stay holes.
pub(super) fn clone_into(from: &File, to: &File, length: u64, waiting: &Waiting) -> Result<(), DeviceError> {
    match retry_on_intr(|| ioctl_ficlone(to, from)) {
        Ok(()) => Ok(ftruncate(to, length)?),
        // The file system, or this pair of files, cannot share blocks.
        Err(error) if cannot_share(error) => copy_data(from, to, length, waiting),
        Err(error) => Err(error.into()),
    }
}

fn copy_data(from: &File, to: &File, length: u64, waiting: &Waiting) -> Result<(), DeviceError> {
    ftruncate(to, length)?;
    let mut at = 0;
    while at < length {
        let start = match seek(from, Find::Data(at)) {
            Ok(start) => start,
            // Nothing but a hole follows.
            Err(Errno::NXIO) => break,
            // The file system does not tell: all of it is data.
            Err(Errno::INVAL | Errno::OPNOTSUPP) => at,
            Err(error) => return Err(error.into()),
        };
        let end = match seek(from, Find::Hole(start)) {
            Ok(end) => end.min(length),
            Err(Errno::INVAL | Errno::OPNOTSUPP) => length,
            Err(error) => return Err(error.into()),
        };
        let mut next = start;
        while next < end {
            waiting.check()?;
            let piece = end.min(next + PIECE);
            copy_run(from, to, next, piece)?;
            next = piece;
        }
        at = end.max(start);
    }
    Ok(())
}

fn copy_run(mut from: &File, mut to: &File, start: u64, end: u64) -> Result<(), DeviceError> {
    from.seek(SeekFrom::Start(start))?;
    to.seek(SeekFrom::Start(start))?;
    // The kernel copies where it can.
    let copied = io::copy(&mut from.take(end - start), &mut to)?;
    if copied < end - start {
        return Err(DeviceError::EndedEarly { end: start + copied, capacity: end });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn a_copy_that_is_waited_for_has_the_data_at_its_place_and_holes_between() {
        let (mut from, to) = (tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap());
        from.set_len(40 << 20).unwrap();
        for (at, byte) in [(3_u64, 1_u8), (9 << 20, 2), ((40 << 20) - 100_000, 3)] {
            from.seek(SeekFrom::Start(at)).unwrap();
            from.write_all(&[byte; 70_000]).unwrap();
        }
        let length = (40 << 20) - 50_001;
        let gone = Caller::default().waiting();
        assert!(matches!(copy_data(&from, &to, length, &gone), Err(DeviceError::GivenUp)));
        assert_eq!(to.metadata().unwrap().blocks(), 0, "nobody waits for it");
        let caller = Caller::default();
        copy_data(&from, &to, length, &caller.waiting()).unwrap();
        let read = |mut file: &File| {
            let mut bytes = Vec::new();
            file.seek(SeekFrom::Start(0)).unwrap();
            file.read_to_end(&mut bytes).unwrap();
            bytes
        };
        let (source, copy) = (read(&from), read(&to));
        assert_eq!(copy.len(), usize::try_from(length).unwrap());
        assert!(source[..copy.len()] == copy);
        let allocated = to.metadata().unwrap().blocks() * 512;
        assert!(allocated < 4 << 20, "{allocated} bytes are allocated");
    }

    #[test]
    fn a_copy_of_more_than_one_piece_has_all_of_them() {
        let (mut from, to) = (tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap());
        let length = usize::try_from(2 * PIECE).unwrap() + 777;
        let data: Vec<u8> = (0..length).map(|at| u8::try_from(at % 253).unwrap() + 1).collect();
        from.write_all(&data).unwrap();
        let caller = Caller::default();
        copy_data(&from, &to, 2 * PIECE + 777, &caller.waiting()).unwrap();
        let (mut to, mut copy) = (to, Vec::new());
        to.seek(SeekFrom::Start(0)).unwrap();
        to.read_to_end(&mut copy).unwrap();
        assert!(copy == data);
    }

    #[test]
    fn a_source_that_is_shorter_than_it_was_said_to_be_is_an_error() {
        let (mut from, to) = (tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap());
        from.write_all(&[1; 5000]).unwrap();
        let error = copy_run(&from, &to, 0, 9000).unwrap_err();
        assert!(matches!(error, DeviceError::EndedEarly { end: 5000, capacity: 9000 }), "{error}");
    }
}
