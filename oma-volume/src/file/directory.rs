//! The directory of a file backend: its lock, records and images. All calls block.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use oma_core::traits::Access;
use oma_core::{SnapshotId, VolumeId};
use rustix::fs::{AtFlags, FlockOperation, Mode, OFlags, flock, ioctl_ficlone, openat, renameat, unlinkat};
use rustix::io::{Errno, retry_on_intr};

use super::config::FileConfig;
use super::error::FileError;
use super::identity::Identity;
use super::record::{Record, SnapshotRecord};

type Result<T, E = FileError> = std::result::Result<T, E>;

/// Only the owner reads volumes: they hold other people's disks.
const PRIVATE: Mode = Mode::RUSR.union(Mode::WUSR);

/// The directory, held open, so that nothing mounted or moved over it later is mistaken for it.
#[derive(Debug)]
pub(super) struct Directory {
    path: PathBuf,
    file: File,
    identity: Identity,
}

/// The directory while it is locked: many may look, one may change (in all processes).
#[derive(Debug)]
pub(super) struct Locked<'a> {
    directory: &'a Directory,
    lock: File,
}

impl Directory {
    pub(super) fn open(config: &FileConfig) -> Result<Self> {
        let (path, outside) = (&config.directory, config.identity.clone());
        // Not made anew either, where it is known.
        if !Identity::of(path, outside.clone()).check()? {
            fs::create_dir_all(path).map_err(FileError::on(path))?;
        }
        let path = path.canonicalize().map_err(FileError::on(path))?;
        let file = File::open(&path).map_err(FileError::on(&path))?;
        let directory = Self { identity: Identity::of(&path, outside), path, file };
        if let Err(left) = directory.adopt() {
            tracing::warn!(directory = %directory.path.display(), %left, "another directory in its place would not be noticed");
        }
        Ok(directory)
    }

    /// One that had volumes before there were ids is given one.
    fn adopt(&self) -> Result<()> {
        let locked = self.lock(Access::ReadOnly)?;
        let is_empty = locked.ids()?.is_empty() && locked.snapshot_ids()?.is_empty();
        drop(locked);
        if is_empty || self.identity.is_kept()? {
            return Ok(());
        }
        self.lock(Access::ReadWrite)?.keep()
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn image(&self, id: &VolumeId) -> PathBuf {
        self.path.join(format!("{id}.raw"))
    }

    pub(super) fn snapshot(&self, id: &SnapshotId) -> PathBuf {
        self.path.join(format!("{id}.raw"))
    }

    /// Whether files here can share their blocks. It is tried, for a file system does not tell; where not even an unnamed
    /// file can be made, the answer is no.
    pub(super) fn shares_blocks(&self) -> bool {
        let flags = OFlags::RDWR | OFlags::TMPFILE | OFlags::CLOEXEC;
        let unnamed = || openat(&self.file, ".", flags, PRIVATE).map(File::from);
        let (Ok(mut from), Ok(to)) = (unnamed(), unnamed()) else { return false };
        from.write_all(&[1; 4096]).is_ok() && ioctl_ficlone(&to, &from).is_ok()
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
    /// Before the first record: from then on the directory is told from another one in its place.
    pub(super) fn keep(&self) -> Result<()> {
        self.directory.identity.keep()
    }

    /// Refuses a directory that never had a volume: what is not in it may be elsewhere.
    pub(super) fn prove_used(&self) -> Result<()> {
        match self.directory.identity.is_used()? {
            true => Ok(()),
            false => Err(FileError::NeverUsed(self.directory.path.clone())),
        }
    }

    /// The record of a volume, partial ones too.
    pub(super) fn read(&self, id: &VolumeId) -> Result<Option<Record>> {
        if !is_ours(id) {
            return Ok(None);
        }
        let Some(record) = self.parse::<Record>(id.as_str())? else { return Ok(None) };
        if record.id != *id {
            let path = self.directory.path.join(format!("{id}.json"));
            return Err(FileError::Misnamed { path, id: record.id.to_string() });
        }
        Ok(Some(record))
    }

    /// Replaces a record, durably, all of it or nothing.
    pub(super) fn write(&self, record: &Record) -> Result<()> {
        self.replace(record.id.as_str(), record)
    }

    /// The record of a snapshot, partial ones too.
    pub(super) fn read_snapshot(&self, id: &SnapshotId) -> Result<Option<SnapshotRecord>> {
        if !is_a_snapshot(id.as_str()) {
            return Ok(None);
        }
        let Some(record) = self.parse::<SnapshotRecord>(id.as_str())? else { return Ok(None) };
        if record.spec.id != *id {
            let path = self.directory.path.join(format!("{id}.json"));
            return Err(FileError::Misnamed { path, id: record.spec.id.to_string() });
        }
        Ok(Some(record))
    }

    /// Replaces the record of a snapshot, durably, all of it or nothing.
    pub(super) fn write_snapshot(&self, record: &SnapshotRecord) -> Result<()> {
        self.replace(record.spec.id.as_str(), record)
    }

    fn parse<T: serde::de::DeserializeOwned>(&self, stem: &str) -> Result<Option<T>> {
        let path = self.directory.path.join(format!("{stem}.json"));
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(FileError::on(&path)(error)),
        };
        serde_json::from_slice(&text).map(Some).map_err(|source| FileError::Record { path, source })
    }

    fn replace(&self, stem: &str, record: &impl serde::Serialize) -> Result<()> {
        let path = self.directory.path.join(format!("{stem}.json"));
        let (name, new) = (format!("{stem}.json"), format!(".{stem}.json.new"));
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
        self.remove_replacement(id)?;
        self.remove_both(id.as_str())
    }

    /// [`Locked::remove`] of a snapshot.
    pub(super) fn remove_snapshot(&self, id: &SnapshotId) -> Result<()> {
        self.remove_both(id.as_str())
    }

    fn remove_both(&self, stem: &str) -> Result<()> {
        self.unlink(&format!("{stem}.raw"))?;
        self.sync()?;
        self.unlink(&format!("{stem}.json"))?;
        self.sync()
    }

    /// Makes an empty file that may take the place of an image; one that a crash left is emptied.
    pub(super) fn make_replacement(&self, id: &VolumeId) -> Result<File> {
        let file = self.open_at(&replacement(id), OFlags::RDWR | OFlags::CREATE)?;
        file.set_len(0).map_err(FileError::on(&self.directory.image(id)))?;
        Ok(file)
    }

    /// Puts it in the image's place, all of it or nothing; durable once the directory is.
    pub(super) fn rename_replacement(&self, id: &VolumeId) -> Result<()> {
        let path = self.directory.image(id);
        renameat(&self.lock, replacement(id), &self.lock, format!("{id}.raw")).map_err(FileError::on(&path))
    }

    pub(super) fn remove_replacement(&self, id: &VolumeId) -> Result<()> {
        self.unlink(&replacement(id))
    }

    /// Opens the content of a snapshot.
    pub(super) fn open_snapshot(&self, id: &SnapshotId, access: Access) -> Result<File> {
        self.open_at(&format!("{id}.raw"), mode(access))
    }

    /// Makes an empty snapshot, or opens the one that was interrupted.
    pub(super) fn make_snapshot(&self, id: &SnapshotId) -> Result<File> {
        self.open_at(&format!("{id}.raw"), OFlags::RDWR | OFlags::CREATE)
    }

    /// Opens an image that is there.
    pub(super) fn open_image(&self, id: &VolumeId, access: Access) -> Result<File> {
        self.open_at(&format!("{id}.raw"), mode(access))
    }

    /// Makes an empty image, or opens the one that an interrupted create left.
    pub(super) fn make_image(&self, id: &VolumeId) -> Result<File> {
        self.open_at(&format!("{id}.raw"), OFlags::RDWR | OFlags::CREATE)
    }

    /// Whether something stands where an image or snapshot would be.
    pub(super) fn is_taken(&self, path: &Path) -> bool {
        fs::symlink_metadata(path).is_ok()
    }

    /// The ids of all records, in any order.
    pub(super) fn ids(&self) -> Result<Vec<VolumeId>> {
        let stems = self.stems()?.into_iter();
        Ok(stems.filter_map(|stem| VolumeId::parse(stem).ok().filter(is_ours)).collect())
    }

    /// The ids of all records of snapshots, in any order.
    pub(super) fn snapshot_ids(&self) -> Result<Vec<SnapshotId>> {
        let stems = self.stems()?.into_iter().filter(|stem| is_a_snapshot(stem));
        Ok(stems.filter_map(|stem| SnapshotId::parse(stem).ok()).collect())
    }

    /// What stands before `.json`.
    fn stems(&self) -> Result<Vec<String>> {
        let path = self.directory.path();
        let names: Result<Vec<OsString>, std::io::Error> =
            fs::read_dir(path).and_then(|entries| entries.map(|entry| Ok(entry?.file_name())).collect());
        let names = names.map_err(FileError::on(path))?.into_iter();
        Ok(names.filter_map(|name| Some(name.to_str()?.strip_suffix(".json")?.to_owned())).collect())
    }

    fn open_at(&self, name: &str, mode: OFlags) -> Result<File> {
        let path = self.directory.path.join(name);
        let flags = mode | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = match openat(&self.lock, name, flags, PRIVATE) {
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

    /// Makes what was made, renamed and removed durable.
    pub(super) fn sync(&self) -> Result<()> {
        self.lock.sync_all().map_err(FileError::on(self.directory.path()))
    }
}

/// Only names of our own making are looked at, so that no foreign `NAME.json` is taken for a record.
fn is_ours(id: &VolumeId) -> bool {
    id.as_str().starts_with("vol-")
}

fn is_a_snapshot(stem: &str) -> bool {
    stem.starts_with("snap-")
}

const fn mode(access: Access) -> OFlags {
    match access {
        Access::ReadOnly => OFlags::RDONLY,
        Access::ReadWrite => OFlags::RDWR,
    }
}

/// The name of what may take the place of an image.
fn replacement(id: &VolumeId) -> String {
    format!(".{id}.raw.new")
}
