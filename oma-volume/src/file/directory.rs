//! The directory of a file backend: its lock, records and images. All calls block.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use oma_core::VolumeId;
use oma_core::traits::Access;
use rustix::fs::{AtFlags, FlockOperation, Mode, OFlags, flock, openat, renameat, unlinkat};
use rustix::io::{Errno, retry_on_intr};

use super::error::FileError;
use super::record::Record;

type Result<T, E = FileError> = std::result::Result<T, E>;

/// Only the owner reads volumes: they hold other people's disks.
const PRIVATE: Mode = Mode::RUSR.union(Mode::WUSR);

/// The directory, held open, so that nothing mounted or moved over it later is mistaken for it.
#[derive(Debug)]
pub(super) struct Directory {
    path: PathBuf,
    file: File,
}

/// The directory while it is locked: many may look, one may change (in all processes).
#[derive(Debug)]
pub(super) struct Locked<'a> {
    directory: &'a Directory,
    lock: File,
}

impl Directory {
    pub(super) fn open(path: &Path) -> Result<Self> {
        fs::create_dir_all(path).map_err(FileError::on(path))?;
        let path = path.canonicalize().map_err(FileError::on(path))?;
        let file = File::open(&path).map_err(FileError::on(&path))?;
        Ok(Self { path, file })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn image(&self, id: &VolumeId) -> PathBuf {
        self.path.join(format!("{id}.raw"))
    }

    fn record(&self, id: &VolumeId) -> PathBuf {
        self.path.join(format!("{id}.json"))
    }

    /// Locks it; waits for a change under way, which never takes long.
    pub(super) fn lock(&self, access: Access) -> Result<Locked<'_>> {
        self.prove()?;
        let operation = match access {
            Access::ReadOnly => FlockOperation::LockShared,
            Access::ReadWrite => FlockOperation::LockExclusive,
        };
        // Opened anew, because a lock is the open file's: one handle would not keep two threads apart.
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let lock = openat(&self.file, ".", flags, Mode::empty()).map_err(FileError::on(&self.path))?;
        retry_on_intr(|| flock(&lock, operation)).map_err(FileError::on(&self.path))?;
        Ok(Locked { directory: self, lock: File::from(lock) })
    }

    /// Still the directory that was opened?
    fn prove(&self) -> Result<()> {
        let held = self.file.metadata().map_err(FileError::on(&self.path))?;
        match fs::metadata(&self.path) {
            Ok(there) if (there.dev(), there.ino()) == (held.dev(), held.ino()) => Ok(()),
            _ => Err(FileError::Directory(self.path.clone())),
        }
    }
}

impl Locked<'_> {
    /// The record of a volume, partial ones too.
    pub(super) fn read(&self, id: &VolumeId) -> Result<Option<Record>> {
        if !is_ours(id) {
            return Ok(None);
        }
        let path = self.directory.record(id);
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(FileError::on(&path)(error)),
        };
        let record: Record = serde_json::from_slice(&text)
            .map_err(|source| FileError::Record { path: path.clone(), source })?;
        if record.id != *id {
            return Err(FileError::Misnamed { path, id: record.id.to_string() });
        }
        Ok(Some(record))
    }

    /// Replaces a record, durably, all of it or nothing.
    pub(super) fn write(&self, record: &Record) -> Result<()> {
        let path = self.directory.record(&record.id);
        let (name, new) = (format!("{}.json", record.id), format!(".{}.json.new", record.id));
        let text = serde_json::to_vec_pretty(record)
            .map_err(|source| FileError::Record { path: path.clone(), source })?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = openat(&self.lock, &new, flags, PRIVATE).map_err(FileError::on(&path))?;
        let mut file = File::from(file);
        let written = file.write_all(&text).and_then(|()| file.sync_all());
        if let Err(error) = written {
            self.unlink(&new)?;
            return Err(FileError::on(&path)(error));
        }
        renameat(&self.lock, &new, &self.lock, &name).map_err(FileError::on(&path))?;
        self.sync()
    }

    /// Removes the image, then the record: whatever is left after a crash still has its record.
    pub(super) fn remove(&self, id: &VolumeId) -> Result<()> {
        self.unlink(&format!("{id}.raw"))?;
        self.sync()?;
        self.unlink(&format!("{id}.json"))?;
        self.sync()
    }

    /// Opens an image that is there.
    pub(super) fn open_image(&self, id: &VolumeId, access: Access) -> Result<File> {
        let mode = match access {
            Access::ReadOnly => OFlags::RDONLY,
            Access::ReadWrite => OFlags::RDWR,
        };
        self.image(id, mode)
    }

    /// Makes an empty image, or opens the one that an interrupted create left.
    pub(super) fn make_image(&self, id: &VolumeId) -> Result<File> {
        self.image(id, OFlags::RDWR | OFlags::CREATE)
    }

    /// Whether something stands where the image would be.
    pub(super) fn has_image(&self, id: &VolumeId) -> bool {
        fs::symlink_metadata(self.directory.image(id)).is_ok()
    }

    /// The ids of all records, in any order.
    pub(super) fn ids(&self) -> Result<Vec<VolumeId>> {
        let path = self.directory.path();
        let names: Result<Vec<OsString>, std::io::Error> =
            fs::read_dir(path).and_then(|entries| entries.map(|entry| Ok(entry?.file_name())).collect());
        let ids = names
            .map_err(FileError::on(path))?
            .into_iter()
            .filter_map(|name| VolumeId::parse(name.to_str()?.strip_suffix(".json")?).ok().filter(is_ours));
        Ok(ids.collect())
    }

    fn image(&self, id: &VolumeId, mode: OFlags) -> Result<File> {
        let path = self.directory.image(id);
        let flags = mode | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = match openat(&self.lock, format!("{id}.raw"), flags, PRIVATE) {
            Ok(file) => File::from(file),
            Err(Errno::NOENT) => return Err(FileError::ImageGone(path)),
            Err(Errno::LOOP | Errno::ISDIR | Errno::NXIO) => return Err(FileError::NotAnImage(path)),
            Err(error) => return Err(FileError::on(&path)(error)),
        };
        if !file.metadata().map_err(FileError::on(&path))?.is_file() {
            return Err(FileError::NotAnImage(path));
        }
        Ok(file)
    }

    fn unlink(&self, name: &str) -> Result<()> {
        match unlinkat(&self.lock, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(FileError::on(&self.directory.path.join(name))(error)),
        }
    }

    fn sync(&self) -> Result<()> {
        self.lock.sync_all().map_err(FileError::on(self.directory.path()))
    }
}

/// Only names of our own making are looked at, so that no foreign `NAME.json` is taken for a record.
fn is_ours(id: &VolumeId) -> bool {
    id.as_str().starts_with("vol-")
}
