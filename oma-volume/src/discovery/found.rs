use std::fmt;
use std::fs::Metadata;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use oma_core::ByteSize;
use rustix::fs::{major, minor};

use super::Serial;

/// A whole disk of this machine, found by its serial. What it says was so when it was found:
/// [`DeviceTree::open`](super::DeviceTree::open) looks again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundDevice {
    /// Its node, below the root of the tree: `/dev/vdb`.
    pub path: PathBuf,
    /// The kernel's name for it: `vdb`.
    pub name: String,
    /// Its size.
    pub size: ByteSize,
    /// The serial that it was found by.
    pub serial: Serial,
    /// What it is attached by.
    pub bus: Bus,
    pub(super) node: Node,
    /// The kernel's count of disks (`diskseq`, Linux 5.15): another disk has another one, also under the same name.
    pub(super) sequence: Option<u64>,
}

/// What a disk is attached by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Bus {
    /// virtio-blk: `vdX`.
    Virtio,
    /// A SCSI disk, on virtio-scsi for one: `sdX`.
    Scsi,
    /// An ATA disk, which the kernel shows as `sdX` too.
    Ata,
    /// Another one.
    Other,
}

/// Who a device node is, however it is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Node {
    Block(Number),
    /// A regular file that stands for one in a tree that is not the machine's own.
    File {
        device: u64,
        inode: u64,
    },
}

/// The number of a device: major and minor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Number(pub(super) u32, pub(super) u32);

/// Somebody, a cloud for one, names another node for a disk than it has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathDifference {
    /// What was told.
    pub told: PathBuf,
    /// What it is.
    pub found: PathBuf,
    /// The serial that proves it.
    pub serial: Serial,
}

impl FoundDevice {
    /// Compares what a cloud says about the path with the disk that was found: `None` when it is right. The disk is the truth, for
    /// what a cloud says is what it asked for when it attached the disk; the machine names its disks itself.
    #[must_use]
    pub fn difference(&self, told: &str) -> Option<PathDifference> {
        let told = Path::new(told.trim());
        if told == self.path || told.strip_prefix("/dev").unwrap_or(told) == Path::new(&self.name) {
            return None;
        }
        let (told, found, serial) = (told.to_owned(), self.path.clone(), self.serial.clone());
        Some(PathDifference { told, found, serial })
    }
}

impl fmt::Display for PathDifference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (told, found) = (self.told.display(), self.found.display());
        write!(f, "told to be {told}, the disk with the serial {} is {found}", self.serial)
    }
}

impl Node {
    /// What an open file or a path leads to; `None` for what is neither a block device nor a regular file.
    pub(super) fn of(about: &Metadata) -> Option<Self> {
        if about.file_type().is_block_device() {
            return Some(Self::Block(Number::from(about.rdev())));
        }
        about.is_file().then(|| Self::File { device: about.dev(), inode: about.ino() })
    }
}

impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Block(number) => write!(f, "the block device {number}"),
            Self::File { device, inode } => write!(f, "the file {inode} of {}", Number::from(*device)),
        }
    }
}

impl From<u64> for Number {
    fn from(device: u64) -> Self {
        Self(major(device), minor(device))
    }
}

impl Number {
    /// `254:16`
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (first, second) = text.trim().split_once(':')?;
        Some(Self(first.parse().ok()?, second.parse().ok()?))
    }
}

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.0, self.1)
    }
}
