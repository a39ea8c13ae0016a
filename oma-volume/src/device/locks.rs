//! Who else has a disk open.
//!
//! Our own programs are told apart by an advisory lock of the whole file (`flock`). QEMU's (machines, `qemu-nbd`, `qemu-img`) have
//! another one ("Disk image file locking" in the manual of its system emulator, the bytes in `block/file-posix.c`): each holds
//! a shared lock of one byte for every permission that it uses, one for every permission that it leaves to nobody else, and then
//! looks whether somebody holds what stands against its own. We do the same, so neither side opens what the other one writes.

use std::fs::File;

use libc::{F_RDLCK, F_UNLCK, F_WRLCK, SEEK_SET, c_int, off_t};
use nix::errno::Errno as LockErrno;
use nix::fcntl::{FcntlArg, fcntl};
use oma_core::traits::Access;
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use super::DeviceError;

/// The bytes of QEMU's permissions (`BLK_PERM_…`): of who uses one, and of who leaves it to nobody else.
mod qemu {
    pub(super) const READS: i64 = 100;
    pub(super) const WRITES: i64 = 101;
    pub(super) const RESIZES: i64 = 103;
    pub(super) const ALONE_READS: i64 = 200;
    pub(super) const ALONE_WRITES: i64 = 201;
    pub(super) const ALONE_RESIZES: i64 = 203;
}

/// Locks an open file: readers share, a writer is alone.
pub(crate) fn lock(file: &File, access: Access) -> Result<(), DeviceError> {
    lock_whole(file, access)?;
    lock_as_qemu(file, access).inspect_err(|_| unlock(file))
}

/// Gives up all locks of an open file.
pub(crate) fn unlock(file: &File) {
    // Where nobody can lock, nothing is to be unlocked.
    let _ = fcntl(file, FcntlArg::F_OFD_SETLK(&bytes(F_UNLCK, 0, 0)));
    let _ = flock(file, FlockOperation::Unlock);
}

fn lock_whole(file: &File, access: Access) -> Result<(), DeviceError> {
    let operation = match access {
        Access::ReadOnly => FlockOperation::NonBlockingLockShared,
        Access::ReadWrite => FlockOperation::NonBlockingLockExclusive,
    };
    match (flock(file, operation), access) {
        (Ok(()), _) => Ok(()),
        (Err(Errno::WOULDBLOCK), Access::ReadOnly) => Err(DeviceError::Written),
        (Err(Errno::WOULDBLOCK), Access::ReadWrite) => Err(DeviceError::Open),
        // Where nobody can lock, no writer of ours can be there.
        (Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::NOLCK | Errno::INVAL), Access::ReadOnly) => Ok(()),
        (Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::NOLCK | Errno::INVAL), Access::ReadWrite) => {
            Err(DeviceError::NoLocks)
        }
        (Err(error), _) => Err(error.into()),
    }
}

/// First takes, then looks: of two that do so at once, at least one sees the other.
fn lock_as_qemu(file: &File, access: Access) -> Result<(), DeviceError> {
    use qemu::{ALONE_READS, ALONE_RESIZES, ALONE_WRITES, READS, RESIZES, WRITES};
    let (held, against): (&[i64], &[i64]) = match access {
        Access::ReadOnly => (&[READS, ALONE_WRITES, ALONE_RESIZES], &[ALONE_READS, WRITES, RESIZES]),
        Access::ReadWrite => (
            &[READS, WRITES, RESIZES, ALONE_WRITES, ALONE_RESIZES],
            &[ALONE_READS, ALONE_WRITES, ALONE_RESIZES, WRITES, RESIZES],
        ),
    };
    for byte in held {
        match fcntl(file, FcntlArg::F_OFD_SETLK(&bytes(F_RDLCK, *byte, 1))) {
            Ok(_) => {}
            Err(LockErrno::EAGAIN | LockErrno::EACCES) => return Err(DeviceError::Open),
            // Where nobody can lock, no program of QEMU does.
            Err(LockErrno::EOPNOTSUPP | LockErrno::ENOSYS | LockErrno::ENOLCK | LockErrno::EINVAL) => {
                return Ok(());
            }
            Err(error) => return Err(std::io::Error::from(error).into()),
        }
    }
    for byte in against {
        let mut found = bytes(F_WRLCK, *byte, 1);
        fcntl(file, FcntlArg::F_OFD_GETLK(&mut found)).map_err(std::io::Error::from)?;
        // On NFS our own `flock` is seen here, as a lock of the whole file; QEMU's are of one byte.
        let is_whole = found.l_start == 0 && found.l_len == 0;
        if c_int::from(found.l_type) != F_UNLCK && !is_whole {
            return Err(DeviceError::InQemu);
        }
    }
    Ok(())
}

/// `length` bytes from `start` on; 0 is all of them.
fn bytes(sort: c_int, start: off_t, length: off_t) -> libc::flock {
    let [l_type, l_whence] = [sort, SEEK_SET].map(|number| number.try_into().expect("a small number"));
    libc::flock { l_type, l_whence, l_start: start, l_len: length, l_pid: 0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::FileDevice;
    use oma_core::{ByteSize, ErrorKind};
    use std::fs::OpenOptions;
    use std::path::Path;
    use tempfile::TempDir;

    fn open(path: &Path) -> File {
        OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path).unwrap()
    }

    /// What QEMU holds: these permissions used, those left to nobody else.
    fn held(path: &Path, locks: &[i64]) -> File {
        let file = open(path);
        for byte in locks {
            fcntl(&file, FcntlArg::F_OFD_SETLK(&bytes(F_RDLCK, *byte, 1))).unwrap();
        }
        file
    }

    fn try_both(path: &Path) -> [bool; 2] {
        [Access::ReadOnly, Access::ReadWrite].map(|access| match lock(&open(path), access) {
            Ok(()) => true,
            Err(DeviceError::InQemu) => false,
            Err(error) => panic!("{error}"),
        })
    }

    #[test]
    fn l06_programs_of_qemu_stand_against_what_they_would_not_stand_with() {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("disk");
        let cases: [(&[i64], [bool; 2]); 7] = [
            (&[], [true, true]),
            // `qemu-img info` looks: anybody may write meanwhile.
            (&[100], [true, true]),
            // `qemu-img convert` reads: nobody shall write.
            (&[100, 201], [true, false]),
            // A machine.
            (&[100, 101, 201], [false, false]),
            // What is in the middle of something.
            (&[200], [false, false]),
            // Who makes it larger or smaller, and who wants it to stay as large as it is.
            (&[103], [false, false]),
            (&[203], [true, false]),
        ];
        for (locks, allowed) in cases {
            let others = held(&path, locks);
            assert_eq!(try_both(&path), allowed, "{locks:?}");
            drop(others);
            assert_eq!(try_both(&path), [true, true], "{locks:?} is let go of");
        }
    }

    #[test]
    fn l06_programs_of_qemu_see_what_we_use_and_what_we_leave_to_nobody_else() {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("disk");
        for (access, expected) in
            [(Access::ReadOnly, &[100, 201, 203][..]), (Access::ReadWrite, &[100, 101, 103, 201, 203])]
        {
            let (ours, theirs) = (open(&path), open(&path));
            lock(&ours, access).unwrap();
            let is_held = |byte: &i64| {
                let mut found = bytes(F_WRLCK, *byte, 1);
                fcntl(&theirs, FcntlArg::F_OFD_GETLK(&mut found)).unwrap();
                c_int::from(found.l_type) != F_UNLCK
            };
            let held: Vec<i64> = (0..300).filter(is_held).collect();
            assert_eq!(held, expected, "{access:?}");
        }
    }

    #[tokio::test]
    async fn l06_an_empty_file_that_qemu_has_is_not_made_a_disk() {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("disk");
        let machine = held(&path, &[100, 101, 201]);
        let refused = FileDevice::make(&path, ByteSize::mib(1)).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Busy, "{}", refused.chain());
        assert_eq!(machine.metadata().unwrap().len(), 0);
        drop(machine);
        assert!(FileDevice::make(&path, ByteSize::mib(1)).await.unwrap().is_some());
    }

    #[test]
    fn a_lock_of_the_whole_file_is_not_of_qemu() {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("disk");
        let reader = open(&path);
        fcntl(&reader, FcntlArg::F_OFD_SETLK(&bytes(F_RDLCK, 0, 0))).unwrap();
        assert_eq!(try_both(&path), [true, true]);
        drop(reader);
    }

    #[test]
    fn a_lock_that_could_not_be_had_whole_leaves_nothing() {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("disk");
        let machine = held(&path, &[101]);
        let refused = open(&path);
        assert!(lock(&refused, Access::ReadOnly).is_err());
        drop(machine);
        lock(&open(&path), Access::ReadWrite).unwrap();
    }
}
