//! The configuration on disk. All calls block.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, fchown};
use std::path::{Path, PathBuf};

use oma_core::{Clock, SystemClock};
use rustix::fs::{FlockOperation, flock};
use rustix::io::retry_on_intr;

use super::document::Document;
use super::error::Failure;

/// The configuration while nobody else changes it through this module, in this process or another.
#[derive(Debug)]
pub(super) struct Locked {
    path: PathBuf,
    folder: PathBuf,
    _lock: File,
}

impl Locked {
    /// Waits for a change under way, which never takes long. A symbolic link is followed.
    pub(super) fn new(path: &Path) -> Result<Self, Failure> {
        let path = path.canonicalize().map_err(Failure::on(path))?;
        let folder = path.parent().unwrap_or(Path::new("/")).to_owned();
        // The folder: the file itself is replaced by each change. Opened anew, because a lock is the open file's.
        let lock = File::open(&folder).map_err(Failure::on(&folder))?;
        retry_on_intr(|| flock(&lock, FlockOperation::LockExclusive))
            .map_err(|error| Failure::on(&folder)(error.into()))?;
        Ok(Self { path, folder, _lock: lock })
    }

    pub(super) fn read(&self) -> Result<Document, Failure> {
        let text = fs::read_to_string(&self.path).map_err(Failure::on(&self.path))?;
        Document::parse(&self.path, text)
    }

    /// Replaces the configuration, durably, all of it or nothing, and keeps `backups` copies of it from before.
    ///
    /// Killed at any point, this leaves the old or the new one; at most a `.oma-new` lies beside it.
    pub(super) fn replace(&self, old: &Document, new: &Document, backups: usize) -> Result<(), Failure> {
        if old.text() == new.text() {
            return Ok(());
        }
        let now = SystemClock.now();
        let now = format!("{}-{:03}", now.compact(), now.as_millis().rem_euclid(1000));
        if backups > 0 {
            self.write(&self.beside(&format!(".backup-{now}")), old.text())?;
        }
        let temporary = self.beside(".oma-new");
        self.write(&temporary, new.text())?;
        // Somebody may edit it by hand: what was saved meanwhile is not overwritten.
        let there = fs::read_to_string(&self.path).map_err(Failure::on(&self.path))?;
        if there != old.text() {
            let _ = fs::remove_file(&temporary);
            return Err(Failure::Overtaken);
        }
        fs::rename(&temporary, &self.path).map_err(Failure::on(&self.path))?;
        sync(&self.folder)?;
        self.prune(backups)
    }

    /// Writes a file with the configuration's owner and mode: it may hold what not everybody may read.
    fn write(&self, path: &Path, text: &str) -> Result<(), Failure> {
        let like = fs::metadata(&self.path).map_err(Failure::on(&self.path))?;
        let written = || -> io::Result<()> {
            let mut file = File::create(path)?;
            file.set_permissions(like.permissions())?;
            let own = file.metadata()?;
            if (own.uid(), own.gid()) != (like.uid(), like.gid()) {
                fchown(&file, Some(like.uid()), Some(like.gid()))?;
            }
            file.write_all(text.as_bytes())?;
            file.sync_all()
        };
        written().map_err(Failure::on(path))
    }

    /// Removes the oldest backups.
    fn prune(&self, keep: usize) -> Result<(), Failure> {
        let prefix = self.beside(".backup-");
        let prefix = prefix.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.folder).map_err(Failure::on(&self.folder))? {
            let name = entry.map_err(Failure::on(&self.folder))?.file_name();
            // Only names that end in a time: an operator's own backups stay.
            let is_ours =
                |time: &str| time.len() >= 15 && time.bytes().all(|b| b.is_ascii_digit() || b == b'-');
            if name.to_str().and_then(|name| name.strip_prefix(prefix)).is_some_and(is_ours) {
                found.push(self.folder.join(name));
            }
        }
        found.sort();
        let surplus = found.len().saturating_sub(keep);
        found.iter().take(surplus).try_for_each(|path| fs::remove_file(path).map_err(Failure::on(path)))
    }

    fn beside(&self, suffix: &str) -> PathBuf {
        let mut name = OsString::from(&self.path);
        name.push(suffix);
        name.into()
    }
}

/// Makes the names in a folder durable.
pub(super) fn sync(folder: &Path) -> Result<(), Failure> {
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(Failure::on(folder))
}
