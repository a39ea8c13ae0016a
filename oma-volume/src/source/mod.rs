//! Raw files and block devices as sources.

use std::fs::Metadata;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use oma_core::direct::{DirectDescription, DirectDisk};
use oma_core::traits::{Access, BlockDevice, Changes};
use oma_core::{ChangeId, PointId, Result};

use crate::device::{DeviceError, FileDevice, blocking};

/// A raw file or block device as one disk of a [`DirectSource`](oma_core::direct::DirectSource).
///
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

    async fn open(&self) -> Result<Arc<dyn BlockDevice>> {
        Ok(Arc::new(FileDevice::open(&self.path, Access::ReadOnly).await?))
    }
}

fn describe(path: PathBuf) -> Result<DirectDescription, DeviceError> {
    let location = path.display().to_string();
    let device = FileDevice::open_now(path, Access::ReadOnly)?;
    let capacity = device.info().capacity;
    let content = content(&device.file().metadata()?);
    Ok(DirectDescription { capacity, location, content })
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
