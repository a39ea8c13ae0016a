//! One file becomes another: by sharing its blocks where the file system can, else by copying its data. All calls block.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};

use rustix::fs::{SeekFrom as Find, ftruncate, ioctl_ficlone, seek};
use rustix::io::{Errno, retry_on_intr};

use crate::device::DeviceError;

/// Gives `to`, which is empty, the first `length` bytes of `from`, not yet durable. Holes stay holes.
pub(super) fn clone_into(from: &File, to: &File, length: u64) -> Result<(), DeviceError> {
    match retry_on_intr(|| ioctl_ficlone(to, from)) {
        Ok(()) => Ok(ftruncate(to, length)?),
        // The file system, or this pair of files, cannot share blocks.
        Err(Errno::OPNOTSUPP | Errno::NOTTY | Errno::NOSYS | Errno::INVAL | Errno::XDEV) => {
            copy_data(from, to, length)
        }
        Err(error) => Err(error.into()),
    }
}

fn copy_data(from: &File, to: &File, length: u64) -> Result<(), DeviceError> {
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
        if start < end {
            copy_run(from, to, start, end)?;
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
    fn a_copy_has_the_data_at_its_place_and_holes_between() {
        let (mut from, to) = (tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap());
        from.set_len(40 << 20).unwrap();
        for (at, byte) in [(3_u64, 1_u8), (9 << 20, 2), ((40 << 20) - 100_000, 3)] {
            from.seek(SeekFrom::Start(at)).unwrap();
            from.write_all(&[byte; 70_000]).unwrap();
        }
        let length = (40 << 20) - 50_001;
        copy_data(&from, &to, length).unwrap();
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
    fn a_source_that_is_shorter_than_it_was_said_to_be_is_an_error() {
        let (mut from, to) = (tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap());
        from.write_all(&[1; 5000]).unwrap();
        let error = copy_run(&from, &to, 0, 9000).unwrap_err();
        assert!(matches!(error, DeviceError::EndedEarly { end: 5000, capacity: 9000 }), "{error}");
    }
}
