//! Begins to write dirty pages, so that a flush at the end of a long copy does not find all of them.

use std::fs::File;
use std::os::fd::AsRawFd;

use oma_core::Extent;

/// Starts writing the dirty pages of an extent: `sync_file_range(2)` with `SYNC_FILE_RANGE_WRITE`. A hint: whether it could be
/// followed is found by the flush.
pub(super) fn write_out(file: &File, extent: Extent) {
    let (Ok(offset), Ok(length)) = (i64::try_from(extent.offset()), i64::try_from(extent.length())) else {
        return;
    };
    #[allow(unsafe_code, reason = "no library we use has this system call")]
    // SAFETY: the descriptor is open as long as `file` lives, and no memory is handed over.
    unsafe {
        libc::sync_file_range(file.as_raw_fd(), offset, length, libc::SYNC_FILE_RANGE_WRITE);
    }
}
