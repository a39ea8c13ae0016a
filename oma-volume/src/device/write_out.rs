//! Begins to write dirty pages, so that a flush at the end of a long copy does not find all of them, and lets go of written ones,
//! so that the copy does not push everything else out of the page cache, and wait for that.

use std::collections::VecDeque;
use std::fs::File;
use std::num::NonZeroU64;
use std::os::fd::AsRawFd;
use std::sync::{Mutex, PoisonError};

use oma_core::Extent;
use rustix::fs::{Advice, fadvise};

/// So many extents later a disk has written most of one.
const BEHIND: usize = 64;

/// Extents on their way to the medium, oldest first.
#[derive(Debug, Default)]
pub(super) struct WriteBehind {
    extents: Mutex<VecDeque<Extent>>,
}

impl WriteBehind {
    /// Starts writing the dirty pages of an extent: `sync_file_range(2)` with `SYNC_FILE_RANGE_WRITE`. Lets go of what was begun a
    /// while ago, and does not wait for what is not written by then. A hint: whether it could be followed is found by the flush.
    pub(super) fn begin(&self, file: &File, extent: Extent) {
        write_out(file, extent);
        let oldest = {
            let mut extents = self.extents.lock().unwrap_or_else(PoisonError::into_inner);
            extents.push_back(extent);
            if extents.len() > BEHIND { extents.pop_front() } else { None }
        };
        if let Some(oldest) = oldest {
            let_go(file, oldest);
        }
    }
}

fn write_out(file: &File, extent: Extent) {
    let (Ok(offset), Ok(length)) = (i64::try_from(extent.offset()), i64::try_from(extent.length())) else {
        return;
    };
    #[allow(unsafe_code, reason = "no library we use has this system call")]
    // SAFETY: the descriptor is open as long as `file` lives, and no memory is handed over.
    unsafe {
        libc::sync_file_range(file.as_raw_fd(), offset, length, libc::SYNC_FILE_RANGE_WRITE);
    }
}

/// Drops the pages of an extent that are on the medium.
pub(super) fn let_go(file: &File, extent: Extent) {
    // A hint: whether it could be followed is nobody's concern.
    let _ = fadvise(file, extent.offset(), NonZeroU64::new(extent.length()), Advice::DontNeed);
}
