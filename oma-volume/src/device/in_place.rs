//! Calls on the thread of whoever makes them, which has time to wait.

use std::os::fd::{AsFd, BorrowedFd};

use oma_core::traits::{BlockDevice, Durability, InPlace};
use oma_core::{Extent, Result};

use super::medium::{Home, Ready, Sort};
use super::share::share;
use super::write_out::let_go;
use super::{FileDevice, length};

impl InPlace for FileDevice {
    fn read(&self, offset: u64, buffer: &mut [u8]) -> Result<bool> {
        if self.info().check("read", offset, length(buffer))?.is_none() {
            return Ok(true);
        }
        match self.medium.read_ready(offset, buffer) {
            Ok(Ready::All) => Ok(true),
            Ok(Ready::Part(_)) => Ok(false),
            Err(error) => Err(error.at("read", &self.medium.path)),
        }
    }

    fn read_waiting(&self, offset: u64, buffer: &mut [u8]) -> Result<bool> {
        if self.medium.home == Home::Elsewhere {
            return self.read(offset, buffer);
        }
        if self.info().check("read", offset, length(buffer))?.is_some() {
            self.medium.read(offset, buffer).map_err(|error| error.at("read", &self.medium.path))?;
        }
        Ok(true)
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<()> {
        let Some(extent) = self.info().check_change("write", offset, length(data))? else { return Ok(()) };
        self.medium
            .write(extent, data, Durability::Cached)
            .map_err(|error| error.at("write", &self.medium.path))
    }

    fn write_out(&self, extent: Extent) {
        if self.medium.home != Home::Memory {
            self.medium.behind.begin(&self.medium.file, extent);
        }
    }

    fn let_go(&self, extent: Extent) {
        if self.medium.home != Home::Memory {
            let_go(&self.medium.file, extent);
        }
    }

    fn lend(&self, extent: Extent) -> Option<BorrowedFd<'_>> {
        let whole = self.medium.has_all(extent).ok()?;
        let ready = whole && (self.medium.home == Home::Memory || self.medium.is_cached(extent));
        ready.then(|| self.medium.file.as_fd())
    }

    fn file(&self) -> Option<BorrowedFd<'_>> {
        (self.medium.sort == Sort::Regular).then(|| self.medium.file.as_fd())
    }

    fn share(&self, extent: Extent, from: BorrowedFd<'_>) -> Result<bool> {
        self.info().check_change("share blocks", extent.offset(), extent.length())?;
        if self.medium.sort != Sort::Regular {
            return Ok(false);
        }
        let shared = self.medium.changing(extent, |file| Ok(share(from, file, extent)?));
        shared.map_err(|error| error.at("share blocks", &self.medium.path))
    }
}
