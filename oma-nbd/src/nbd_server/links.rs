//! One link for each export. nbd-server opens it anew for each connection, so an export whose link is gone is closed,
//! although nbd-server itself never forgets one. All calls block.

use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use oma_core::ExportName;

use super::error::Failure;
use super::file::sync;
use super::record::link_name;

/// The folder of links.
#[derive(Debug)]
pub(super) struct Links(pub(super) PathBuf);

impl Links {
    /// Where an export's link lies.
    pub(super) fn path(&self, name: &ExportName) -> PathBuf {
        self.0.join(link_name(name))
    }

    /// Lets nbd-server open a device by an export's name. Idempotent.
    pub(super) fn open(&self, name: &ExportName, device: &Path) -> Result<(), Failure> {
        fs::create_dir_all(&self.0).map_err(Failure::on(&self.0))?;
        let path = self.path(name);
        if fs::read_link(&path).is_ok_and(|there| there == device) {
            return Ok(());
        }
        // A link is never changed: it is made anew beside and moved into place.
        let new = path.with_extension("new");
        remove(&new)?;
        symlink(device, &new).map_err(Failure::on(&new))?;
        fs::rename(&new, &path).map_err(Failure::on(&path))?;
        sync(&self.0)
    }

    /// Closes an export for everybody who has not opened it yet. Idempotent.
    pub(super) fn close(&self, name: &ExportName) -> Result<(), Failure> {
        if remove(&self.path(name))? { sync(&self.0) } else { Ok(()) }
    }
}

/// Whether it was there.
fn remove(path: &Path) -> Result<bool, Failure> {
    match fs::remove_file(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(Failure::on(path)(error)),
    }
}
