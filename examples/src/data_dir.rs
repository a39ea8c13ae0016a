//! The data directory: where the database and the volumes lie, and who may write there.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process;

use oma_core::{Error, ErrorKind, Result};

use crate::failure::io_error;

/// A data directory, which may not exist yet.
#[derive(Clone, Debug)]
pub struct DataDir {
    path: PathBuf,
}

/// The right to write into a data directory. The kernel takes it back when the process ends, however it ends.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

impl DataDir {
    /// The one at this path.
    ///
    /// # Errors
    /// When there is no current directory that a relative path could begin at.
    pub fn new(path: &Path) -> Result<Self> {
        let path = std::path::absolute(path).map_err(|error| io_error("find", path.display(), error))?;
        Ok(Self { path })
    }

    /// The directory itself.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where the volumes of the file backend lie.
    #[must_use]
    pub fn volumes(&self) -> PathBuf {
        self.path.join("volumes")
    }

    /// Which folder that is, so that another one in its place is refused.
    #[must_use]
    pub fn volumes_identity(&self) -> PathBuf {
        self.path.join("volumes.id")
    }

    /// The key that signs verification reports.
    pub fn signing_key(&self) -> PathBuf {
        self.path.join("report.key")
    }

    /// The tokens that the daemon knows.
    #[must_use]
    pub fn tokens(&self) -> PathBuf {
        self.path.join("tokens")
    }

    /// The socket of this name on which a daemon serves who may open this directory.
    #[must_use]
    pub fn socket(&self, name: &str) -> PathBuf {
        self.path.join(format!("{name}.sock"))
    }

    /// The authority of the daemon, and what it is certified by.
    #[must_use]
    pub fn tls(&self) -> PathBuf {
        self.path.join("tls")
    }

    /// The database, where it is this directory's own.
    #[must_use]
    pub fn database(&self) -> PathBuf {
        self.path.join("oma.db")
    }

    /// Where the daemon has volumes and records.
    #[must_use]
    pub fn placement(&self) -> PathBuf {
        self.path.join("daemon.json")
    }

    /// The token of the first admin, until somebody has taken it.
    #[must_use]
    pub fn first_token(&self) -> PathBuf {
        self.path.join("first-admin-token")
    }

    /// The id of the worker of this directory, where its database has workers of other directories as well.
    #[must_use]
    pub fn worker(&self) -> PathBuf {
        self.path.join("worker")
    }

    /// The URL of the database. Every character of the path counts as it is.
    pub fn database_url(&self) -> Result<String> {
        self.check_folder()?;
        let path = self.database();
        match path.to_str() {
            Some(path) => Ok(format!("sqlite://{path}")),
            None => Err(Error::new(ErrorKind::Invalid, "open", path.display())
                .because("the path is not valid UTF-8; name another data directory")),
        }
    }

    /// Refuses a path that is something else than a folder.
    fn check_folder(&self) -> Result<()> {
        match self.path.metadata() {
            Ok(about) if !about.is_dir() => {
                Err(Error::new(ErrorKind::Invalid, "open the data directory", self.path.display())
                    .because("it is no folder; name one with --data-dir"))
            }
            _ => Ok(()),
        }
    }

    /// Refuses a data directory in which nothing was replicated yet: its name may be a slip of the pen.
    pub fn check_used(&self) -> Result<()> {
        self.check_folder()?;
        if self.path.join("oma.db").exists() {
            return Ok(());
        }
        Err(Error::new(ErrorKind::NotFound, "open the data directory", self.path.display()).because(
            "nothing was replicated there yet; run a command that replicates first, or name another one with --data-dir",
        ))
    }

    /// Makes the directory when it is not there, readable by its owner only.
    ///
    /// # Errors
    /// What the system answers.
    pub fn make(&self) -> Result<()> {
        let made = DirBuilder::new().recursive(true).mode(0o700).create(&self.path);
        made.map_err(|error| io_error("make the data directory", self.path.display(), error))
    }

    /// Refuses a directory in which others could put files of their own, such as tokens.
    ///
    /// # Errors
    /// `PermissionDenied`; what the system answers.
    pub fn check_private(&self) -> Result<()> {
        let about = self.path.metadata().map_err(|error| io_error("look at", self.path.display(), error))?;
        if about.mode() & 0o022 == 0 {
            return Ok(());
        }
        Err(Error::new(ErrorKind::PermissionDenied, "use the data directory", self.path.display())
            .because("others may write into it; `chmod go-w` it, and look at what is there"))
    }

    /// As [`DataDir::lock`], for a daemon, who is asked by others: none of them has put anything there.
    ///
    /// # Errors
    /// As [`DataDir::lock`] and [`DataDir::check_private`].
    pub fn lock_for_daemon(&self) -> Result<Lock> {
        let lock = self.lock()?;
        self.check_private()?;
        Ok(lock)
    }

    /// Makes the directory when it is not there, and keeps other writers away.
    ///
    /// # Errors
    /// `Busy` when another process works in it; what the system answers.
    pub fn lock(&self) -> Result<Lock> {
        self.make()?;
        let path = self.path.join("oma.lock");
        let failed = |error: io::Error| io_error("lock the data directory", self.path.display(), error);
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(failed)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(self.in_use(&mut file)),
            Err(TryLockError::Error(error)) => return Err(failed(error)),
        }
        let record = |file: &mut File| {
            file.set_len(0)?;
            file.rewind()?;
            writeln!(file, "{}", process::id())
        };
        record(&mut file).map_err(failed)?;
        Ok(Lock { _file: file })
    }

    fn in_use(&self, file: &mut File) -> Error {
        let mut text = String::new();
        // The number is a courtesy: the other process may be about to write it.
        let _ = file.take(32).read_to_string(&mut text);
        let who = match text.trim().parse::<u32>() {
            Ok(pid) => format!("process {pid} works"),
            Err(_) => "another process works".to_owned(),
        };
        Error::new(ErrorKind::Busy, "lock the data directory", self.path.display())
            .because(format!("{who} in it; wait for it to end, or name another one with --data-dir"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_second_lock_is_busy_and_names_the_process() {
        let folder = tempfile::tempdir().unwrap();
        let data = DataDir::new(&folder.path().join("a/b")).unwrap();
        let lock = data.lock().unwrap();
        let error = data.lock().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Busy);
        assert!(error.chain().contains(&format!("process {}", process::id())), "{}", error.chain());
        drop(lock);
        assert!(data.lock().is_ok());
    }

    #[test]
    fn only_its_owner_may_look_into_it() {
        let folder = tempfile::tempdir().unwrap();
        let data = DataDir::new(&folder.path().join("data")).unwrap();
        let _lock = data.lock().unwrap();
        let mode = data.path.metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
    }
}
