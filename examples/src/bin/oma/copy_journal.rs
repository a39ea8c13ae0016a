//! The journal of `oma copy`: what it is bound to.

use std::fs::{self, Metadata};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;
use std::sync::Arc;
use std::time::UNIX_EPOCH;

use oma_core::direct::DirectDescription;
use oma_core::engine::Resume;
use oma_core::traits::{BlockDevice, CopyJournal};
use oma_core::{Error, ErrorKind, PointId, Result};
use oma_volume::journal::FileJournal;

use crate::args::CopyArgs;
use oma_examples::failure::{io_error, read_error};
use oma_examples::folder;
use oma_examples::source::is_uri;

/// An open journal.
#[derive(Debug)]
pub(crate) struct Journal(FileJournal);

impl Journal {
    /// Opens what `--journal` names.
    pub(crate) async fn open(args: &CopyArgs) -> Result<Option<Self>> {
        match &args.journal {
            Some(path) => Self::at(path).await.map(Some),
            None => Ok(None),
        }
    }

    /// A journal, or the place where one can be written: that is known before a target is made.
    async fn at(path: &Path) -> Result<Self> {
        let journal = Self(FileJournal::open(path).await?);
        if !journal.goes_on().await? {
            folder::check_writable("begin journal", path)?;
        }
        Ok(journal)
    }

    /// Whether an earlier run has begun to copy.
    pub(crate) async fn goes_on(&self) -> Result<bool> {
        Ok(self.0.load().await?.is_some())
    }

    /// The journal, bound to source and target as they are now.
    pub(crate) fn bind(
        self,
        args: &CopyArgs,
        described: &DirectDescription,
        target: &dyn BlockDevice,
    ) -> Result<Resume> {
        let (content, target) = (content(args, described)?, target_name(&args.target, target)?);
        Ok(Resume { journal: Arc::new(self.0), content, target })
    }
}

/// Names the content of the source. A file's own time of change is part of it, whatever else names it; a device number is not, because
/// it may be another one after the machine was started again.
fn content(args: &CopyArgs, described: &DirectDescription) -> Result<PointId> {
    let refused = |reason: &str| {
        Error::new(ErrorKind::Invalid, "name the content of", &args.source).because(reason.to_owned())
    };
    let id = args.change_id.as_ref().map(|id| format!("change id {id}"));
    let text = if is_uri(&args.source) {
        match id {
            Some(id) => id,
            None => return Ok(described.content.clone()),
        }
    } else {
        let about = metadata(&args.source)?;
        if about.file_type().is_block_device() {
            id.ok_or_else(|| refused(
                "a block device does not tell when it was written; copy a snapshot and name it with --change-id, so that another one \
                 is not taken for it",
            ))?
        } else {
            let file =
                format!("file {}:{}:{}.{:09}", about.ino(), about.len(), about.mtime(), about.mtime_nsec());
            id.map_or(file.clone(), |id| format!("{file}, {id}"))
        }
    };
    PointId::parse(text).map_err(|error| refused(&error.to_string()))
}

/// Names the target: a file by path, inode and the time when it was made, so that one in its place is another.
fn target_name(target: &str, device: &dyn BlockDevice) -> Result<String> {
    if is_uri(target) {
        return Ok(device.info().identity.to_string());
    }
    let (path, about) = (absolute(target)?, metadata(target)?);
    if !about.is_file() {
        return Ok(path);
    }
    let made = about.created().ok().and_then(|made| made.duration_since(UNIX_EPOCH).ok());
    let made = made
        .map_or_else(String::new, |made| format!(", made at {}.{:09}", made.as_secs(), made.subsec_nanos()));
    Ok(format!("{path}, inode {}{made}", about.ino()))
}

fn metadata(path: &str) -> Result<Metadata> {
    fs::metadata(path).map_err(|error| read_error("look at", path, error))
}

fn absolute(path: &str) -> Result<String> {
    let absolute = std::path::absolute(Path::new(path)).map_err(|error| io_error("find", path, error))?;
    Ok(absolute.display().to_string())
}
