//! What a directory of volumes is known by. A mount point without its file system looks like a directory whose volumes were all
//! deleted, and what is not there is not what could not be asked (L21).
//!
//! ```text
//!  directory/oma-volumes     its id, since its first volume: where it is missing, no volume is known to be deleted
//!  FileConfig::identity      the same id, kept elsewhere: a directory that has another one, or none, is not opened
//! ```

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use oma_core::InstanceId;

use super::error::FileError;

type Result<T, E = FileError> = std::result::Result<T, E>;

/// The file in the directory.
const NAME: &str = "oma-volumes";

/// The identity of a directory, in it and outside.
#[derive(Clone, Debug)]
pub(super) struct Identity {
    inside: PathBuf,
    outside: Option<PathBuf>,
}

impl Identity {
    pub(super) fn of(directory: &Path, outside: Option<PathBuf>) -> Self {
        Self { inside: directory.join(NAME), outside }
    }

    /// Whether a volume was ever made in the directory.
    pub(super) fn is_used(&self) -> Result<bool> {
        self.inside.try_exists().map_err(FileError::on(&self.inside))
    }

    /// Whether another directory in its place is noticed.
    pub(super) fn is_kept(&self) -> Result<bool> {
        Ok(self.is_used()? && (self.outside.is_none() || self.known()?.is_some()))
    }

    /// Refuses a directory that is not the one that is known; whether one is.
    pub(super) fn check(&self) -> Result<bool> {
        let (Some(outside), Some(known)) = (&self.outside, self.known()?) else { return Ok(false) };
        if read(&self.inside)?.as_ref() == Some(&known) {
            return Ok(true);
        }
        let directory = self.inside.parent().unwrap_or(&self.inside).to_owned();
        Err(FileError::OtherDirectory { directory, identity: outside.clone() })
    }

    /// Gives the directory an id, unless it has one, and keeps it outside: from now on there is something to lose.
    pub(super) fn keep(&self) -> Result<()> {
        let id = match read(&self.inside)? {
            Some(id) => id,
            None => {
                // Any id that is minted once.
                let id = InstanceId::mint().to_string();
                write(&self.inside, &id)?;
                id
            }
        };
        match &self.outside {
            Some(outside) if self.known()?.is_none() => write(outside, &id),
            _ => Ok(()),
        }
    }

    fn known(&self) -> Result<Option<String>> {
        self.outside.as_deref().map_or(Ok(None), read)
    }
}

fn read(path: &Path) -> Result<Option<String>> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text.trim().to_owned()).filter(|id| !id.is_empty())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(FileError::on(path)(error)),
    }
}

/// Durably, all of it or nothing.
fn write(path: &Path, id: &str) -> Result<()> {
    let new = path.with_extension("new");
    let replaced = || {
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
        writeln!(file, "{id}")?;
        file.sync_all()?;
        fs::rename(&new, path)?;
        path.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all())
    };
    replaced().map_err(FileError::on(path))
}
