//! The image that everybody copies.

use std::io;
use std::path::{Path, PathBuf};

use oma_core::ByteSize;
use oma_examples::SampleDisk;

/// A raw image: half data, a quarter written zeroes, a quarter holes, in stripes of 1 MiB.
#[derive(Debug)]
pub(crate) struct Image {
    path: PathBuf,
    size: ByteSize,
}

impl Image {
    pub(crate) fn make(path: &Path, size: ByteSize) -> io::Result<Self> {
        SampleDisk::make(path, size, 1)?;
        Ok(Self { path: path.to_owned(), size })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) const fn size(&self) -> ByteSize {
        self.size
    }
}
