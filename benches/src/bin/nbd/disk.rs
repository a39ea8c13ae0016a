//! The disks that are served.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use oma_benches::{chill, data, is_in_memory, made};
use oma_core::ByteSize;
use tempfile::TempDir;

use crate::Result;

/// What a row is measured on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Medium {
    /// Data without holes, in the page cache.
    Full,
    /// Eight times the size, with half the size of data in 64 places.
    Sparse,
    /// Data without holes on a disk, thrown out of the page cache before each run.
    Cold,
}

/// Folders with the disks, which are made when they are needed first and go with this value.
#[derive(Debug)]
pub(crate) struct Disks {
    size: ByteSize,
    memory: TempDir,
    disk: TempDir,
}

impl Disks {
    pub(crate) fn new(size: ByteSize, dir: &Path, disk_dir: &Path) -> io::Result<Self> {
        if size < ByteSize::mib(64) || !size.bytes().is_multiple_of(64 << 20) {
            return Err(io::Error::other("--size must be a multiple of 64 MiB"));
        }
        let folder = |dir| tempfile::Builder::new().prefix("bench-nbd-").tempdir_in(dir);
        Ok(Self { size, memory: folder(dir)?, disk: folder(disk_dir)? })
    }

    /// A folder for sockets and configurations.
    pub(crate) fn folder(&self) -> &Path {
        self.memory.path()
    }

    /// Size of a disk.
    pub(crate) fn size(&self, medium: Medium) -> ByteSize {
        match medium {
            Medium::Full | Medium::Cold => self.size,
            Medium::Sparse => ByteSize::new(self.size.bytes() * 8),
        }
    }

    /// The file of a disk.
    pub(crate) fn file(&self, medium: Medium) -> io::Result<PathBuf> {
        let size = self.size.bytes();
        match medium {
            Medium::Full => made(self.memory.path().join("full.raw"), |file| data(file, 0, size)),
            Medium::Sparse => made(self.memory.path().join("sparse.raw"), |file| {
                file.set_len(size * 8)?;
                (0..64).try_for_each(|place| data(file, place * (size / 8), size / 128))
            }),
            Medium::Cold => made(self.disk.path().join("cold.raw"), |file| data(file, 0, size)),
        }
    }

    /// A file of the disk's size that copies are made from.
    pub(crate) fn source(&self) -> io::Result<PathBuf> {
        let size = self.size.bytes();
        made(self.memory.path().join("source.raw"), |file| data(file, 0, size))
    }

    /// Why the medium cannot be had here.
    pub(crate) fn missing(&self, medium: Medium) -> Result<Option<String>> {
        let in_memory = is_in_memory(self.disk.path())?;
        let reason = format!("{} lies in memory; name another --disk-dir", self.disk.path().display());
        Ok((medium == Medium::Cold && in_memory).then_some(reason))
    }

    /// Brings the medium to where each run begins.
    pub(crate) fn settle(&self, medium: Medium) -> io::Result<()> {
        if medium == Medium::Cold {
            chill(&File::open(self.file(medium)?)?)?;
        }
        Ok(())
    }
}
