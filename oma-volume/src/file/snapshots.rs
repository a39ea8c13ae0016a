//! Snapshots of images, step by step. All calls block.
//!
//! The directory is locked only while records change: a copy may take long, and other volumes must not wait for it. What is
//! being copied is locked itself meanwhile.

use std::fs::File;

use oma_core::record::VolumeTag;
use oma_core::traits::{Access, Snapshot, SnapshotSpec, Snapshots, Volume};
use oma_core::{SnapshotId, VolumeId};

use super::clone::{Waiting, clone_into};
use super::directory::Locked;
use super::door::{Held, Image};
use super::error::FileError;
use super::images::Images;
use super::record::{SnapshotRecord, SnapshotStage};
use crate::device::{FileDevice, lock};

type Result<T, E = FileError> = std::result::Result<T, E>;

impl Images {
    /// What a snapshot costs here.
    pub(super) fn cost(&self) -> Snapshots {
        if self.directory.shares_blocks() { Snapshots::Instant } else { Snapshots::ByCopy }
    }

    /// Intent, content, record, each durable before the next. A crash in between leaves a partial snapshot, which nobody sees;
    /// the same call finishes it, and so does its deletion. Given up, it ends soon and takes back what it made.
    pub(super) fn snapshot(&self, spec: &SnapshotSpec, waiting: &Waiting) -> Result<Snapshot> {
        let locked = self.directory.lock(Access::ReadWrite)?;
        // Nothing begins after its caller has looked whether it is there.
        waiting.check().map_err(FileError::on(self.path()))?;
        match locked.read_snapshot(&spec.id)? {
            Some(found) if found.spec != *spec => return Err(FileError::SnapshotOtherwise),
            Some(found) if found.stage == SnapshotStage::Whole => return Ok(found.describe()),
            Some(_) => {}
            None if locked.is_taken(&self.directory.snapshot(&spec.id)) => {
                return Err(FileError::Foreign(self.directory.snapshot(&spec.id)));
            }
            None => {}
        }
        let volume = self.prove(&locked, &spec.volume, &spec.tag)?;
        let image = locked.open_image(&spec.volume, Access::ReadOnly)?;
        let path = self.directory.image(&spec.volume);
        let image = self.door.hold(Image { id: &spec.volume, path: &path }, image, Access::ReadOnly)?;
        self.check(&volume, &image.file)?;
        let mut record = SnapshotRecord::intent(spec, volume.capacity);
        locked.write_snapshot(&record)?;
        let content = self.hold_snapshot(spec, locked.make_snapshot(&spec.id)?, Access::ReadWrite)?;
        drop(locked);
        let made = self.fill_snapshot(&record, &image.file, &content.file, waiting).and_then(|()| {
            let locked = self.directory.lock(Access::ReadWrite)?;
            // From here on it is there.
            waiting.check().map_err(FileError::on(self.path()))?;
            record.stage = SnapshotStage::Whole;
            locked.write_snapshot(&record)
        });
        if let Err(error) = made {
            // What cannot be removed stays partial: nobody sees it.
            let removed = self.directory.lock(Access::ReadWrite).and_then(|l| l.remove_snapshot(&spec.id));
            if let Err(left) = removed {
                tracing::warn!(snapshot = %spec.id, %left, "a snapshot that could not be made was left behind");
            }
            return Err(error);
        }
        Ok(record.describe())
    }

    /// Removes what is left of snapshots whose maker was killed: partial, and nobody has their content locked, as whoever makes one
    /// does from its intent on.
    pub(super) fn sweep(&self) -> Result<()> {
        let partial = |locked: &Locked<'_>| {
            let is_partial = |id: &SnapshotId| {
                let record = locked.read_snapshot(id);
                record.is_ok_and(|record| record.is_some_and(|r| r.stage == SnapshotStage::Partial))
            };
            Ok::<_, FileError>(locked.snapshot_ids()?.into_iter().filter(is_partial).collect::<Vec<_>>())
        };
        // Most often there is none, and nobody is kept waiting.
        if partial(&self.directory.lock(Access::ReadOnly)?)?.is_empty() {
            return Ok(());
        }
        let locked = self.directory.lock(Access::ReadWrite)?;
        // One that cannot be looked at does not keep the others.
        let mut first = Ok(());
        for id in partial(&locked)? {
            first = first.and(remove_abandoned(&locked, &id));
        }
        first
    }

    /// One entry per snapshot of the volume, or per record that cannot be read.
    pub(super) fn snapshots(&self, volume: &VolumeId) -> Result<Vec<oma_core::Result<Snapshot>>> {
        let locked = self.directory.lock(Access::ReadOnly)?;
        let mut found = Vec::new();
        for id in locked.snapshot_ids()? {
            match locked.read_snapshot(&id) {
                Err(error) => found.push(Err(error.about("list snapshots", id.as_str()))),
                Ok(Some(record)) if record.is_of(volume) => found.push(Ok(record.describe())),
                Ok(_) => {}
            }
        }
        Ok(found)
    }

    pub(super) fn open_snapshot(&self, spec: &SnapshotSpec) -> Result<FileDevice> {
        let locked = self.directory.lock(Access::ReadOnly)?;
        let record = self.prove_snapshot(&locked, spec)?;
        let path = self.directory.snapshot(&spec.id);
        let content = locked.open_snapshot(&spec.id, Access::ReadOnly)?;
        self.check_snapshot(&record, &content)?;
        FileDevice::within(content, path.clone(), Access::ReadOnly, record.capacity)
            .map_err(FileError::on(&path))
    }

    /// Makes the new image beside the old one, then puts it in its place. A crash before that leaves a file without a record,
    /// which the next call takes and the next writer, or a deletion of the volume, removes. Given up, it ends soon and leaves the
    /// old image.
    pub(super) fn revert(
        &self,
        id: &VolumeId,
        tag: &VolumeTag,
        spec: &SnapshotSpec,
        waiting: &Waiting,
    ) -> Result<Volume> {
        let locked = self.directory.lock(Access::ReadWrite)?;
        waiting.check().map_err(FileError::on(self.path()))?;
        let volume = self.prove(&locked, id, tag)?;
        let old = self.closed(&locked, id)?;
        let record = self.prove_snapshot(&locked, spec)?;
        if spec.volume != *id {
            return Err(FileError::OtherVolume(spec.volume.clone()));
        }
        let content = locked.open_snapshot(&spec.id, Access::ReadOnly)?;
        let content = self.hold_snapshot(spec, content, Access::ReadOnly)?;
        self.check_snapshot(&record, &content.file)?;
        let new = locked.make_replacement(id)?;
        drop(locked);
        let path = self.directory.image(id);
        let filled = clone_into(&content.file, &new, record.capacity.bytes(), waiting)
            .map_err(FileError::on(&path))
            .and_then(|()| self.reserve(&volume, &new));
        let locked = self.directory.lock(Access::ReadWrite)?;
        let proven = filled.and_then(|()| {
            waiting.check().map_err(FileError::on(&path))?;
            // It may bear another tag by now.
            self.prove(&locked, id, tag)
        });
        let placed = proven.and_then(|volume| {
            let image = Image { id, path: &path };
            self.door.replace(image, old, &new, &mut || locked.rename_replacement(id)).map(|()| volume)
        });
        // Not once it is in its place and this call is over: the next one may have made its own by then.
        let volume = placed.inspect_err(|_| {
            if let Err(left) = locked.remove_replacement(id) {
                tracing::warn!(volume = %id, %left, "the image that was to take its place was left behind");
            }
        })?;
        locked.sync()?;
        self.describe(&volume)
    }

    /// Marks it partial before anything is removed, so that a crash leaves no snapshot without its content.
    pub(super) fn delete_snapshot(&self, spec: &SnapshotSpec) -> Result<()> {
        let locked = self.directory.lock(Access::ReadWrite)?;
        let Some(mut record) = locked.read_snapshot(&spec.id)? else { return locked.prove_used() };
        prove(&record, spec)?;
        let content = match locked.open_snapshot(&spec.id, Access::ReadWrite) {
            Err(FileError::ImageGone(_)) => None,
            content => Some(self.hold_snapshot(spec, content?, Access::ReadWrite)?),
        };
        if record.stage != SnapshotStage::Partial {
            record.stage = SnapshotStage::Partial;
            let marked = locked.write_snapshot(&record);
            match (marked, &content) {
                // The file system is full, and deleting is what makes room: the content goes first. Cut, it is nobody's whole
                // snapshot, whatever its record says.
                (Err(error), Some(content)) if error.is_no_room() => {
                    let path = self.directory.snapshot(&spec.id);
                    let content = &content.file;
                    content.set_len(0).and_then(|()| content.sync_all()).map_err(FileError::on(&path))?;
                    locked.write_snapshot(&record)?;
                }
                (marked, _) => marked?,
            }
        }
        locked.remove_snapshot(&spec.id)
    }

    fn fill_snapshot(
        &self,
        record: &SnapshotRecord,
        image: &File,
        content: &File,
        waiting: &Waiting,
    ) -> Result<()> {
        let path = self.directory.snapshot(&record.spec.id);
        content.set_len(0).map_err(FileError::on(&path))?;
        clone_into(image, content, record.capacity.bytes(), waiting).map_err(FileError::on(&path))?;
        content.sync_all().map_err(FileError::on(&path))
    }

    /// The record, once everything that it was made with proved whose snapshot it is (L20).
    fn prove_snapshot(&self, locked: &Locked<'_>, spec: &SnapshotSpec) -> Result<SnapshotRecord> {
        match locked.read_snapshot(&spec.id)? {
            Some(record) if record.stage == SnapshotStage::Whole => prove(&record, spec).map(|()| record),
            _ => Err(FileError::UnknownSnapshot(self.path().to_owned())),
        }
    }

    fn hold_snapshot(&self, spec: &SnapshotSpec, content: File, access: Access) -> Result<Held> {
        lock(&content, access).map_err(FileError::on(&self.directory.snapshot(&spec.id)))?;
        Ok(Held { file: content, device: None })
    }

    fn check_snapshot(&self, record: &SnapshotRecord, content: &File) -> Result<()> {
        let path = self.directory.snapshot(&record.spec.id);
        let size = content.metadata().map_err(FileError::on(&path))?.len();
        let capacity = record.capacity.bytes();
        if size == capacity { Ok(()) } else { Err(FileError::Truncated { path, size, capacity }) }
    }
}

impl SnapshotRecord {
    fn is_of(&self, volume: &VolumeId) -> bool {
        self.stage == SnapshotStage::Whole && self.spec.volume == *volume
    }
}

fn remove_abandoned(locked: &Locked<'_>, id: &SnapshotId) -> Result<()> {
    let content = match locked.open_snapshot(id, Access::ReadWrite) {
        Err(FileError::ImageGone(_)) => None,
        content => Some(content?),
    };
    if content.as_ref().is_none_or(|content| lock(content, Access::ReadWrite).is_ok()) {
        locked.remove_snapshot(id)?;
        tracing::info!(snapshot = %id, "removed what a killed process had left of it");
    }
    Ok(())
}

fn prove(record: &SnapshotRecord, spec: &SnapshotSpec) -> Result<()> {
    if record.spec == *spec { Ok(()) } else { Err(FileError::SnapshotMarks(Box::new(record.spec.clone()))) }
}

#[cfg(test)]
mod tests;
