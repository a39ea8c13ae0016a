//! What the file backend does, step by step. All calls block.

use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use oma_core::record::{ContentStamp, VolumeTag};
use oma_core::traits::{Access, Provisioning, Volume, VolumeSpec};
use oma_core::{ByteSize, InstanceId, VolumeId};
use rustix::fs::{FallocateFlags, fallocate, ftruncate};
use rustix::io::{Errno, retry_on_intr};

use super::directory::{Directory, Locked};
use super::door::{Door, Held, Image, Places};
use super::error::FileError;
use super::record::{Record, Stage};
use crate::device::FileDevice;

type Result<T, E = FileError> = std::result::Result<T, E>;

#[derive(Debug)]
pub(super) struct Images {
    pub(super) directory: Directory,
    pub(super) door: Box<dyn Door>,
}

impl Images {
    #[cfg(test)]
    pub(super) fn new(directory: Directory) -> Self {
        Self::through(directory, Box::new(super::door::Plain))
    }

    pub(super) fn through(directory: Directory, door: Box<dyn Door>) -> Self {
        Self { directory, door }
    }

    pub(super) fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Intent, image, record, each durable before the next. A crash in between leaves a partial volume, which nobody sees
    /// and the same create finishes.
    pub(super) fn create(&self, spec: &VolumeSpec) -> Result<Volume> {
        if spec.capacity == ByteSize::ZERO {
            return Err(FileError::NoBytes);
        }
        let locked = self.directory.lock(Access::ReadWrite)?;
        let mut record = Record::intent(spec);
        record.capacity = self.fitting(&record.id, spec.capacity)?;
        let otherwise = || FileError::MadeOtherwise(spec.operation.clone());
        match locked.read(&record.id)? {
            Some(found) if found.operation != spec.operation || found.made != spec.tag => {
                return Err(otherwise());
            }
            Some(found) if found.stage == Stage::Partial => {}
            Some(found) if found.capacity >= record.capacity => return self.describe(&found),
            Some(_) => return Err(otherwise()),
            None if locked.is_taken(&self.directory.image(&record.id)) => {
                return Err(FileError::Foreign(self.directory.image(&record.id)));
            }
            None => {}
        }
        locked.keep()?;
        locked.write(&record)?;
        let made = self.fill(&locked, &record).and_then(|()| {
            record.stage = Stage::Detached;
            locked.write(&record)
        });
        if let Err(error) = made {
            // What cannot be removed stays partial: nobody sees it, and the same create begins anew.
            if let Err(left) = locked.remove(&record.id) {
                tracing::warn!(volume = %record.id, %left, "a volume that could not be made was left behind");
            }
            return Err(error);
        }
        self.describe(&record)
    }

    pub(super) fn get(&self, id: &VolumeId) -> Result<Option<Volume>> {
        let locked = self.directory.lock(Access::ReadOnly)?;
        match locked.read(id)? {
            Some(record) if record.stage != Stage::Partial => {
                self.check(&record, &locked.open_image(id, Access::ReadOnly)?)?;
                self.describe(&record).map(Some)
            }
            _ => Ok(None),
        }
    }

    /// One entry per volume, or per record that cannot be read.
    pub(super) fn list(&self, instance: &InstanceId) -> Vec<oma_core::Result<Volume>> {
        let refused = |error: FileError, about: &str| Err(error.about("list volumes", about));
        let directory = self.path().display().to_string();
        let listed = self.directory.lock(Access::ReadOnly);
        let listed = listed.and_then(|locked| Ok((locked.ids()?, self.door.places()?, locked)));
        let (ids, places, locked) = match listed {
            Ok(listed) => listed,
            Err(error) => return vec![refused(error, &directory)],
        };
        let one = |id: VolumeId| match locked.read(&id) {
            Err(error) => Some(refused(error, id.as_str())),
            Ok(Some(record)) if record.stage != Stage::Partial && record.tag.instance == *instance => {
                Some(Ok(self.describe_at(&record, &places)))
            }
            Ok(_) => None,
        };
        ids.into_iter().filter_map(one).collect()
    }

    pub(super) fn retag(&self, id: &VolumeId, tag: &VolumeTag) -> Result<()> {
        let locked = self.directory.lock(Access::ReadWrite)?;
        let mut record = self.find(&locked, id)?;
        let ours = record.tag.instance == tag.instance && record.tag.disk == tag.disk;
        if !ours || tag.generation < record.tag.generation {
            return Err(FileError::Retag { found: record.tag.into(), given: tag.clone().into() });
        }
        if record.tag != *tag {
            record.tag = tag.clone();
            locked.write(&record)?;
        }
        Ok(())
    }

    pub(super) fn attach(&self, id: &VolumeId, tag: &VolumeTag) -> Result<Volume> {
        let locked = self.directory.lock(Access::ReadWrite)?;
        let mut record = self.prove(&locked, id, tag)?;
        let size = self.check(&record, &locked.open_image(id, Access::ReadOnly)?)?;
        let fitting = self.fitting(id, record.capacity)?;
        // Made for another door, or left by a resize that was interrupted: what is beyond must be zero when it comes to be part of it.
        if self.door.shows_all() && size != fitting {
            self.grow(&locked, &mut record, &self.closed(&locked, id)?, fitting)?;
        }
        let path = self.directory.image(id);
        self.door.attach(Image { id, path: &path }, &locked.open_image(id, Access::ReadOnly)?)?;
        self.advance(&locked, record, Stage::Attached)
    }

    pub(super) fn detach(&self, id: &VolumeId, tag: &VolumeTag) -> Result<Volume> {
        let locked = self.directory.lock(Access::ReadWrite)?;
        let record = self.prove(&locked, id, tag)?;
        let held = self.closed(&locked, id)?;
        let _held = self.door.detach(Image { id, path: &self.directory.image(id) }, held)?;
        self.advance(&locked, record, Stage::Detached)
    }

    pub(super) fn open(&self, id: &VolumeId, tag: &VolumeTag, access: Access) -> Result<FileDevice> {
        let locked = self.directory.lock(Access::ReadOnly)?;
        let record = self.prove(&locked, id, tag)?;
        if record.stage != Stage::Attached {
            return Err(FileError::NotAttached);
        }
        let path = self.directory.image(id);
        let image = locked.open_image(id, access)?;
        self.check(&record, &image)?;
        let opened = self.door.open(Image { id, path: &path }, image, access, record.capacity)?;
        let device = opened.ok_or(FileError::NotAttached)?;
        // Who reverts has the image locked as this one has it now: what was to take its place is left of one that was killed.
        if access == Access::ReadWrite
            && let Err(left) = locked.remove_replacement(id)
        {
            tracing::warn!(volume = %id, %left, "what a killed revert left behind could not be removed");
        }
        Ok(device)
    }

    pub(super) fn resize(&self, id: &VolumeId, tag: &VolumeTag, capacity: ByteSize) -> Result<Volume> {
        let locked = self.directory.lock(Access::ReadWrite)?;
        let mut record = self.prove(&locked, id, tag)?;
        let held = self.closed(&locked, id)?;
        self.check(&record, &held.file)?;
        let capacity = self.fitting(id, capacity)?;
        if capacity > record.capacity {
            self.grow(&locked, &mut record, &held, capacity)?;
        }
        self.describe(&record)
    }

    pub(super) fn content_stamp(&self, id: &VolumeId) -> Result<ContentStamp> {
        let locked = self.directory.lock(Access::ReadOnly)?;
        self.find(&locked, id)?;
        let image = locked.open_image(id, Access::ReadOnly)?;
        let about = image.metadata().map_err(FileError::on(&self.directory.image(id)))?;
        let (device, inode, size) = (about.dev(), about.ino(), about.len());
        let stamp = format!("{device}:{inode}:{size}:{}.{:09}", about.mtime(), about.mtime_nsec());
        Ok(ContentStamp(stamp))
    }

    /// Marks it partial before any file is removed, so that a crash leaves no volume without its image.
    pub(super) fn delete(&self, id: &VolumeId, tag: &VolumeTag) -> Result<()> {
        let locked = self.directory.lock(Access::ReadWrite)?;
        let Some(mut record) = locked.read(id)? else { return locked.prove_used() };
        prove(&record, tag)?;
        let held = match self.closed(&locked, id) {
            Err(FileError::ImageGone(_)) => None,
            held => Some(held?),
        };
        let path = self.directory.image(id);
        let image = Image { id, path: &path };
        // First, for somebody may have it open whom no lock tells.
        let _held = match held {
            Some(held) => Some(self.door.detach(image, held)?),
            None => self.door.detach_lost(image).map(|()| None)?,
        };
        record.stage = Stage::Partial;
        locked.write(&record)?;
        locked.remove(id)
    }

    pub(super) fn describe(&self, record: &Record) -> Result<Volume> {
        Ok(self.describe_at(record, &self.door.places()?))
    }

    fn describe_at(&self, record: &Record, places: &Places) -> Volume {
        record.describe(|| places.of(&self.directory.image(&record.id)))
    }

    fn fitting(&self, id: &VolumeId, capacity: ByteSize) -> Result<ByteSize> {
        let too_large = || FileError::TooLarge { path: self.directory.image(id), capacity: capacity.bytes() };
        self.door.fitting(capacity).ok_or_else(too_large)
    }

    fn find(&self, locked: &Locked<'_>, id: &VolumeId) -> Result<Record> {
        match locked.read(id)? {
            Some(record) if record.stage != Stage::Partial => Ok(record),
            _ => Err(FileError::Unknown(self.path().to_owned())),
        }
    }

    /// The record, once the tag proved whose volume it is (L02).
    pub(super) fn prove(&self, locked: &Locked<'_>, id: &VolumeId, tag: &VolumeTag) -> Result<Record> {
        let record = self.find(locked, id)?;
        prove(&record, tag)?;
        Ok(record)
    }

    fn advance(&self, locked: &Locked<'_>, mut record: Record, stage: Stage) -> Result<Volume> {
        if record.stage != stage {
            record.stage = stage;
            locked.write(&record)?;
        }
        self.describe(&record)
    }

    /// Gives a volume this size, at least the one it has: image, device, record. A crash in between leaves an image that is larger than
    /// its record.
    fn grow(&self, locked: &Locked<'_>, record: &mut Record, held: &Held, capacity: ByteSize) -> Result<()> {
        let path = self.directory.image(&record.id);
        let id = record.id.clone();
        let image = Image { id: &id, path: &path };
        let old = std::mem::replace(&mut record.capacity, capacity);
        let grown = self.reserve(record, &held.file).and_then(|()| self.door.resized(image, held));
        if let Err(error) = grown {
            record.capacity = old;
            ftruncate(&held.file, old.bytes()).map_err(FileError::on(&path))?;
            self.door.resized(image, held)?;
            return Err(error);
        }
        locked.write(record)
    }

    /// The image, held, so that nobody opens it meanwhile.
    pub(super) fn closed(&self, locked: &Locked<'_>, id: &VolumeId) -> Result<Held> {
        let file = locked.open_image(id, Access::ReadWrite)?;
        self.door.hold(Image { id, path: &self.directory.image(id) }, file, Access::ReadWrite)
    }

    /// The size of an image. One that is larger than its record is one whose resize was interrupted; what is beyond was never written.
    pub(super) fn check(&self, record: &Record, image: &File) -> Result<ByteSize> {
        let path = self.directory.image(&record.id);
        let size = image.metadata().map_err(FileError::on(&path))?.len();
        let capacity = record.capacity.bytes();
        if size < capacity {
            return Err(FileError::Truncated { path, size, capacity });
        }
        Ok(ByteSize::new(size))
    }

    fn fill(&self, locked: &Locked<'_>, record: &Record) -> Result<()> {
        let path = self.directory.image(&record.id);
        let image = locked.make_image(&record.id)?;
        ftruncate(&image, 0).map_err(FileError::on(&path))?;
        self.reserve(record, &image)
    }

    /// Gives the image the size of its record, durably.
    pub(super) fn reserve(&self, record: &Record, image: &File) -> Result<()> {
        let (path, capacity) = (self.directory.image(&record.id), record.capacity.bytes());
        match retry_on_intr(|| ftruncate(image, capacity)) {
            Ok(()) => {}
            Err(Errno::FBIG | Errno::INVAL) => return Err(FileError::TooLarge { path, capacity }),
            Err(error) => return Err(FileError::on(&path)(error)),
        }
        if record.provisioning == Provisioning::Thick {
            match retry_on_intr(|| fallocate(image, FallocateFlags::empty(), 0, capacity)) {
                Ok(()) => {}
                Err(Errno::OPNOTSUPP | Errno::NOSYS) => return Err(FileError::NotThick(path)),
                Err(error) => return Err(FileError::on(&path)(error)),
            }
        }
        image.sync_all().map_err(FileError::on(&path))
    }
}

fn prove(record: &Record, tag: &VolumeTag) -> Result<()> {
    if record.tag == *tag {
        return Ok(());
    }
    Err(FileError::Tag { found: record.tag.clone().into(), given: tag.clone().into() })
}
