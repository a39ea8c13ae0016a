//! Shares blocks between files in place of a copy (reflink).

use std::fs::File;
use std::os::fd::{AsRawFd, BorrowedFd};

use oma_core::Extent;
use rustix::io::{Errno, retry_on_intr};

/// Makes an extent of a file share the blocks of the same extent of another: `FICLONERANGE` of ioctl_ficlonerange(2). `false` when
/// these two files cannot, or not there: blocks are shared whole.
pub(super) fn share(from: BorrowedFd<'_>, to: &File, extent: Extent) -> Result<bool, Errno> {
    let range = libc::file_clone_range {
        src_fd: from.as_raw_fd().into(),
        src_offset: extent.offset(),
        src_length: extent.length(),
        dest_offset: extent.offset(),
    };
    let clone = || {
        #[allow(unsafe_code, reason = "rustix knows only the call for whole files")]
        // SAFETY: both descriptors are open as long as they are borrowed, and the kernel only reads the range, which outlives the call.
        let done = unsafe { libc::ioctl(to.as_raw_fd(), libc::FICLONERANGE, &raw const range) };
        if done == 0 { Ok(()) } else { Err(Errno::from_raw_os_error(last_error())) }
    };
    match retry_on_intr(clone) {
        Ok(()) => Ok(true),
        Err(error) if cannot_share(error) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Whether an error says that two files cannot share blocks, which can be copied all the same: the file system knows no such thing, they
/// are on two, the range fits no blocks, or a file is of a sort that must keep its own.
pub(crate) fn cannot_share(error: Errno) -> bool {
    use Errno as E;
    matches!(error, E::OPNOTSUPP | E::NOTTY | E::NOSYS | E::XDEV | E::INVAL | E::PERM | E::TXTBSY)
}

fn last_error() -> i32 {
    std::io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO)
}
