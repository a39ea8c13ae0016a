//! The journal of one copy in a file: lines that are only added, each durable before the copy goes on.

mod text;

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use oma_core::record::{CopyBasis, CopyEntry};
use oma_core::traits::{Access, CopyJournal};
use oma_core::{ByteSize, Error, ErrorKind, Extent, ExtentSet, Result};

use self::text::{Chain, JournalError, MAGIC, Parsed, parse};
use crate::device::{DeviceError, blocking, is_at, lock, sync_folder};

/// A longer journal is written anew when a run begins, with what it says in few lines.
const LONG: usize = 1024;

/// The journal of one copy in a file. It is locked as long as it is open: one copy goes on with it at a time.
#[derive(Clone, Debug)]
pub struct FileJournal(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    path: PathBuf,
    state: Mutex<Option<Open>>,
}

/// A journal that is there.
#[derive(Debug)]
struct Open {
    file: File,
    parsed: Parsed,
}

impl FileJournal {
    /// Opens the journal in a file, or the place where it will be.
    ///
    /// # Errors
    /// `Invalid` for a file that is something else; `Busy` while another copy has it open; `Corrupt` when it was damaged;
    /// `PermissionDenied`.
    pub async fn open(path: impl Into<PathBuf>) -> Result<Self> {
        let path = path.into();
        let place = path.clone();
        let opened = blocking(move || open(&place)).await.map_err(|error| error.at("open journal", &path))?;
        let state = opened.map_err(|error| error.at("open journal", &path))?;
        Ok(Self(Arc::new(Inner { path, state: Mutex::new(state) })))
    }

    async fn run<T: Send + 'static>(
        &self,
        operation: &'static str,
        call: impl FnOnce(&Path, &mut Option<Open>) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T> {
        let inner = Arc::clone(&self.0);
        let done = blocking(move || call(&inner.path, &mut inner.state())).await;
        done.map_err(Failure::from).and_then(|done| done).map_err(|error| error.at(operation, &self.0.path))
    }
}

impl Inner {
    fn state(&self) -> MutexGuard<'_, Option<Open>> {
        // What was written is noted after it was: a panic in between only has it written once more.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl CopyJournal for FileJournal {
    async fn load(&self) -> Result<Option<CopyEntry>> {
        Ok(self.0.state().as_ref().map(|open| open.parsed.entry.clone()))
    }

    async fn begin(&self, basis: &CopyBasis, unrecorded: ByteSize) -> Result<()> {
        let basis = basis.clone();
        self.run("begin journal", move |path, state| match state {
            None => {
                let entry = CopyEntry { basis, finished: ExtentSet::new(), unrecorded };
                *state = Some(make(path, &entry)?);
                Ok(())
            }
            Some(open) => {
                if let Some(difference) = open.parsed.entry.basis.difference(&basis) {
                    return Err(Failure::OfAnother(difference));
                }
                if is_free(path)? {
                    // Somebody removed it: this run's journal is to be found where the next one looks.
                    let new = make(path, &open.parsed.entry)?;
                    // It may have been moved: two of one copy are one too many.
                    std::mem::replace(open, new).file.set_len(0)?;
                } else if open.parsed.lines > LONG && is_at(&open.file, path)? {
                    *open = replace(path, &open.parsed.entry)?;
                }
                open.append(|chain| chain.run(unrecorded))?;
                open.parsed.entry.unrecorded += unrecorded;
                Ok(())
            }
        })
        .await
    }

    async fn record(&self, finished: Extent) -> Result<()> {
        self.run("write journal", move |_, state| {
            let open = state.as_mut().ok_or(Failure::NotBegun)?;
            open.append(|chain| chain.finished(&[finished].into_iter().collect()))?;
            open.parsed.entry.finished.insert(finished);
            Ok(())
        })
        .await
    }

    async fn forget(&self) -> Result<()> {
        self.run("write journal", |path, state| {
            let open = state.as_mut().ok_or(Failure::NotBegun)?;
            if !is_at(&open.file, path)? {
                // Wherever it was moved to, nobody shall go on with it.
                open.file.set_len(0)?;
                open.file.sync_all()?;
                return Err(Failure::Replaced);
            }
            let mut entry = open.parsed.entry.clone();
            entry.forget();
            *open = replace(path, &entry)?;
            Ok(())
        })
        .await
    }

    async fn end(&self) -> Result<()> {
        self.run("remove journal", |path, state| {
            if let Some(open) = state {
                // What came into its place is somebody else's.
                if is_at(&open.file, path)? {
                    fs::remove_file(path)?;
                    sync_folder(path)?;
                } else {
                    // Wherever it was moved to, no later copy shall go on with it.
                    open.file.set_len(0)?;
                    open.file.sync_all()?;
                }
                *state = None;
            }
            Ok(())
        })
        .await
    }
}

impl Open {
    /// Adds a line behind the last whole one, durably. One that could not be written whole is written over by the next.
    fn append(&mut self, line: impl FnOnce(&mut Chain) -> String) -> Result<(), Failure> {
        let mut chain = self.parsed.chain.clone();
        let line = line(&mut chain);
        let end = self.parsed.length + u64::try_from(line.len()).unwrap_or(u64::MAX);
        self.file.set_len(self.parsed.length)?;
        self.file.write_all_at(line.as_bytes(), self.parsed.length)?;
        self.file.sync_data()?;
        (self.parsed.chain, self.parsed.length) = (chain, end);
        self.parsed.lines += 1;
        Ok(())
    }
}

/// The journal at a place, locked; `None` when there is none yet.
fn open(path: &Path) -> Result<Option<Open>, Failure> {
    loop {
        let file = match OpenOptions::new().read(true).write(true).open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        if !file.metadata()?.is_file() {
            return Err(JournalError::Foreign.into());
        }
        lock(&file, Access::ReadWrite)?;
        // Whoever had it before may have removed or replaced it.
        if !is_at(&file, path)? {
            continue;
        }
        let mut start = [0; MAGIC.len()];
        let length = file.read_at(&mut start, 0)?;
        if !MAGIC.as_bytes().starts_with(&start[..length]) {
            return Err(JournalError::Foreign.into());
        }
        let mut text = Vec::new();
        (&file).read_to_end(&mut text)?;
        let Some(parsed) = parse(&text)? else {
            // Its maker was killed before a copy began.
            fs::remove_file(path)?;
            return Ok(None);
        };
        return Ok(Some(Open { file, parsed }));
    }
}

/// Makes a journal where there is none.
fn make(path: &Path, entry: &CopyEntry) -> Result<Open, Failure> {
    loop {
        let file = OpenOptions::new().read(true).write(true).create_new(true).open(path)?;
        // Not locked yet, it may be taken for what a killed maker left, and removed.
        if let Some(open) = fill(file, path, entry)? {
            return Ok(open);
        }
    }
}

/// Whether there is nothing at a path.
fn is_free(path: &Path) -> io::Result<bool> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
        about => about.map(|_| false),
    }
}

/// Puts a journal in the place of one that says the same.
fn replace(path: &Path, entry: &CopyEntry) -> Result<Open, Failure> {
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let new = path.with_file_name(format!(".{name}.new"));
    // Of a run that was killed here: nobody else has this name while the journal is locked.
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
        _ => {}
    }
    let open = make(&new, entry)?;
    fs::rename(&new, path)?;
    sync_folder(path)?;
    Ok(open)
}

/// Writes a journal into an empty file; `None` when that is not at its place any more.
fn fill(file: File, path: &Path, entry: &CopyEntry) -> Result<Option<Open>, Failure> {
    lock(&file, Access::ReadWrite)?;
    if !is_at(&file, path)? {
        return Ok(None);
    }
    let mut chain = Chain::default();
    let text = chain.head(entry)?;
    file.write_all_at(text.as_bytes(), 0)?;
    file.sync_all()?;
    sync_folder(path)?;
    let length = u64::try_from(text.len()).unwrap_or(u64::MAX);
    let parsed = Parsed { entry: entry.clone(), chain, length, lines: text.lines().count() };
    Ok(Some(Open { file, parsed }))
}

/// Why a journal could not be used.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    File(#[from] DeviceError),
    #[error(transparent)]
    Text(#[from] JournalError),
    #[error("it is of another copy: {0}")]
    OfAnother(String),
    #[error("no run has begun it")]
    NotBegun,
    #[error("it was removed or moved away, or another file is in its place, which is not changed")]
    Replaced,
    #[error("it cannot be written as text")]
    Json(#[from] serde_json::Error),
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::File(error.into())
    }
}

impl Failure {
    fn at(self, operation: &'static str, path: &Path) -> Error {
        let kind = match self {
            Self::File(error) => return error.at(operation, path),
            Self::Text(JournalError::Foreign) => ErrorKind::Invalid,
            Self::Text(JournalError::Damaged(_)) => ErrorKind::Corrupt,
            Self::OfAnother(_) | Self::Replaced => ErrorKind::Conflict,
            Self::NotBegun => ErrorKind::NotFound,
            Self::Json(_) => ErrorKind::Internal,
        };
        Error::new(kind, operation, path.display()).with_source(self)
    }
}

#[cfg(test)]
mod tests;
