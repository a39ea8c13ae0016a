//! Raw files and block devices as sources.

use std::fs::{File, Metadata};
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt};
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use oma_core::direct::{DirectDescription, DirectDisk};
use oma_core::traits::{Access, BlockDevice, Changes};
use oma_core::{ChangeId, Error, ErrorKind, PointId, Result};

use crate::device::{DeviceError, FileDevice, blocking};

/// A raw file or block device as one disk of a [`DirectSource`](oma_core::direct::DirectSource).
///
/// A file in an image format (qcow2, vmdk, vhdx, vdi) is refused: an NBD server that knows the format makes a raw disk of it.
/// It has no snapshots and no change tracking: nobody may write to it while a job reads it, and every job reads all of it.
#[derive(Clone, Debug)]
pub struct FileSource {
    path: PathBuf,
}

impl FileSource {
    /// The disk at this path; nothing is opened yet.
    #[must_use]
    pub fn new(path: PathBuf) -> Self {
        Self { path }
    }
}

#[async_trait]
impl DirectDisk for FileSource {
    async fn describe(&self) -> Result<DirectDescription> {
        let path = self.path.clone();
        let described = blocking(move || describe(path)).await;
        described.and_then(|about| about).map_err(|error| error.at("describe disk", &self.path))
    }

    async fn changed(&self, _since: &ChangeId) -> Result<Changes> {
        Ok(Changes::Unknown("a plain file has no change tracking".to_owned()))
    }

    /// `Busy` while somebody has it open for writing. Nobody knows when a block device was written; nor when a file was through
    /// a page that was mapped into memory, and dirty, before it was described.
    async fn confirm(&self, content: &PointId) -> Result<()> {
        let path = self.path.clone();
        match blocking(move || look(path)).await.and_then(|about| about) {
            Ok(about) if about.file_type().is_block_device() || self::content(&about) == *content => {
                return Ok(());
            }
            // It has lost all that was copied.
            Ok(_) | Err(DeviceError::Empty) => {}
            Err(error) => return Err(error.at("look at disk", &self.path)),
        }
        Err(Error::new(ErrorKind::Conflict, "copy", self.path.display()).because(
            "it was written while it was copied, and what was copied is of no one moment; stop who writes to it, or name a snapshot",
        ))
    }

    async fn open(&self) -> Result<Arc<dyn BlockDevice>> {
        Ok(Arc::new(FileDevice::open(&self.path, Access::ReadOnly).await?))
    }
}

/// Opened, so that a server that keeps the file is asked, and whoever writes to it is seen.
fn look(path: PathBuf) -> Result<Metadata, DeviceError> {
    Ok(FileDevice::open_now(path, Access::ReadOnly)?.file().metadata()?)
}

fn describe(path: PathBuf) -> Result<DirectDescription, DeviceError> {
    let location = path.display().to_string();
    let device = FileDevice::open_now(path, Access::ReadOnly)?;
    let capacity = device.info().capacity;
    let about = device.file().metadata()?;
    if about.is_file() {
        refuse_other_formats(device.file())?;
    }
    let content = content(&about);
    Ok(DirectDescription { capacity, location, content })
}

/// How image formats begin that are no raw disks, under the names that qemu-nbd has for them.
const FORMATS: [(&str, &[u8]); 4] =
    [("qcow2", b"QFI\xfb"), ("vmdk", b"KDMV"), ("vhdx", b"vhdxfile"), ("vdi", b"<<< Oracle VM VirtualBox")];

/// A file of another format copied byte for byte would be a volume that no machine boots from.
fn refuse_other_formats(file: &File) -> Result<(), DeviceError> {
    let mut start = [0; 24];
    let length = file.read_at(&mut start, 0)?;
    match FORMATS.iter().find(|(_, magic)| start[..length].starts_with(magic)) {
        Some((name, _)) => Err(DeviceError::NotRaw(name)),
        None => Ok(()),
    }
}

/// Equal ids mean equal content: a file is told by size and time of its last change. A block device has no such time,
/// so each look at it is another content, and an interrupted copy begins anew.
fn content(about: &Metadata) -> PointId {
    let text = if about.file_type().is_block_device() {
        ChangeId::mint().to_string()
    } else {
        let (device, inode, size) = (about.dev(), about.ino(), about.len());
        format!("file:{device}:{inode}:{size}:{}.{:09}", about.mtime(), about.mtime_nsec())
    };
    PointId::parse(text).expect("numbers with colons between are a point id")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_image_that_is_not_raw_is_refused_with_its_format() {
        let folder = tempfile::tempdir().unwrap();
        for (name, magic) in FORMATS {
            let path = folder.path().join(name);
            let mut image = magic.to_vec();
            image.resize(4096, 0);
            std::fs::write(&path, image).unwrap();
            let error = FileSource::new(path.clone()).describe().await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Invalid);
            assert!(error.chain().contains(&format!("--format {name}")), "{}", error.chain());
        }
    }

    #[tokio::test]
    async fn a_file_that_was_written_since_is_not_confirmed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("disk");
        std::fs::write(&path, [1; 4096]).unwrap();
        let source = FileSource::new(path.clone());
        let content = source.describe().await.unwrap().content;
        source.confirm(&content).await.unwrap();
        let later = std::time::SystemTime::now() + std::time::Duration::from_secs(1);
        File::options().write(true).open(&path).unwrap().set_modified(later).unwrap();
        assert_eq!(source.confirm(&content).await.unwrap_err().kind(), ErrorKind::Conflict);
        File::create(&path).unwrap();
        assert_eq!(source.confirm(&content).await.unwrap_err().kind(), ErrorKind::Conflict);
        std::fs::remove_file(&path).unwrap();
        assert_eq!(source.confirm(&content).await.unwrap_err().kind(), ErrorKind::NotFound);
    }

    #[tokio::test]
    async fn a_file_that_somebody_writes_to_is_not_confirmed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("disk");
        std::fs::write(&path, [1; 4096]).unwrap();
        let source = FileSource::new(path.clone());
        let content = source.describe().await.unwrap().content;
        let reader = FileDevice::open(&path, Access::ReadOnly).await.unwrap();
        source.confirm(&content).await.unwrap();
        drop(reader);
        let writer = FileDevice::open(&path, Access::ReadWrite).await.unwrap();
        let refused = source.confirm(&content).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Busy, "{}", refused.chain());
        drop(writer);
        source.confirm(&content).await.unwrap();
    }

    #[tokio::test]
    async fn a_file_shorter_than_every_magic_is_a_disk() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("short");
        std::fs::write(&path, b"QF").unwrap();
        assert_eq!(FileSource::new(path).describe().await.unwrap().capacity.bytes(), 2);
    }
}
