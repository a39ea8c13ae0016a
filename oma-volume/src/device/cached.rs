//! Whether an extent of a file is in the page cache.

use std::fs::File;
use std::os::fd::AsRawFd;

use oma_core::Extent;

/// Number of the system call, the same on every architecture since all new ones are.
const SYS_CACHESTAT: libc::c_long = 451;

/// `struct cachestat_range` of linux/mman.h.
#[repr(C)]
struct Range {
    offset: u64,
    length: u64,
}

/// `struct cachestat` of linux/mman.h, in pages.
#[repr(C)]
#[derive(Default)]
struct Counts {
    cached: u64,
    dirty: u64,
    writeback: u64,
    evicted: u64,
    recently_evicted: u64,
}

/// Whether all pages of an extent are in memory: `cachestat(2)`, since Linux 6.5. `None` where the kernel does not tell.
pub(super) fn is_cached(file: &File, extent: Extent) -> Option<bool> {
    let page = u64::try_from(rustix::param::page_size()).ok()?;
    let first = extent.offset() / page;
    let pages = extent.end().div_ceil(page) - first;
    let range = Range { offset: first * page, length: pages * page };
    let mut counts = Counts::default();
    #[allow(unsafe_code, reason = "no library we use has this system call")]
    // SAFETY: the descriptor is open as long as `file` lives; the kernel reads one `Range` and writes one `Counts`, both of
    // its layout and alive during the call.
    let answer =
        unsafe { libc::syscall(SYS_CACHESTAT, file.as_raw_fd(), &raw const range, &raw mut counts, 0) };
    (answer == 0).then_some(counts.cached >= pages)
}
