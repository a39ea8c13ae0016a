//! What the kernel tells of the block device that a file or a block device stands on.

use std::fs::{Metadata, read_to_string};
use std::os::unix::fs::MetadataExt;

use rustix::fs::{major, minor};

use super::medium::Sort;

/// Properties of a block device's request queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Queue {
    /// Whether zeroes need not be written one by one. A file system always has a way.
    pub(super) can_zero: bool,
    /// Whether it is a spinning disk.
    pub(super) is_rotational: bool,
}

impl Queue {
    /// Of the device itself, or of the one that the file system is on; what is not told is false.
    pub(super) fn of(about: &Metadata, sort: Sort) -> Self {
        let device = match sort {
            Sort::Regular => about.dev(),
            Sort::BlockDevice => about.rdev(),
        };
        Self {
            can_zero: sort == Sort::Regular
                || told(device, "write_zeroes_max_bytes").is_some_and(|most| most > 0),
            is_rotational: told(device, "rotational") == Some(1),
        }
    }
}

/// A number of a device's queue. A partition has none of its own: its disk has.
fn told(device: u64, name: &str) -> Option<u64> {
    let folder = format!("/sys/dev/block/{}:{}", major(device), minor(device));
    let found = ["queue", "../queue"]
        .iter()
        .find_map(|queue| read_to_string(format!("{folder}/{queue}/{name}")).ok());
    found?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_system_in_memory_stands_on_no_disk() {
        let about = std::fs::metadata("/proc/self/status").unwrap();
        assert_eq!(Queue::of(&about, Sort::Regular), Queue { can_zero: true, is_rotational: false });
        assert_eq!(told(u64::MAX, "rotational"), None);
    }
}
