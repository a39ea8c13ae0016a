//! What a daemon needs to be ready.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use oma_api::server::Readiness;
use oma_core::traits::{VolumeBackend, VolumeRegistry};
use oma_core::{ByteSize, Error, ErrorKind, Result, VolumeId};

use crate::failure::io_error;

use super::Content;

/// No volume has this id: whether there is one is a question to the backend that changes nothing.
const NO_VOLUME: &str = "00000000-0000-4000-8000-000000000000";

/// What has to be free in the data directory: records go on for a while without anything else.
const ROOM: ByteSize = ByteSize::mib(64);

/// The database answers, the backend does, clients of exports are let in, and something can be written in the data directory.
///
/// # Errors
/// Never: the id of no volume is a good one.
pub(super) fn readiness(
    registry: Arc<dyn VolumeRegistry>,
    backend: Arc<dyn VolumeBackend>,
    content: &Content,
    directory: PathBuf,
) -> Result<Readiness> {
    let nothing = VolumeId::parse(NO_VOLUME)
        .map_err(|error| Error::new(ErrorKind::Internal, "name", "no volume").with_source(error))?;
    Ok(Readiness::new()
        .needing("database", move || {
            let registry = Arc::clone(&registry);
            async move { registry.instance().await.map(drop) }
        })
        .needing("backend", move || {
            let (backend, nothing) = (Arc::clone(&backend), nothing.clone());
            async move { backend.get(&nothing).await.map(drop) }
        })
        .needing("exports", content.listens())
        .needing("disk space", move || {
            let directory = directory.clone();
            async move {
                let looking = tokio::task::spawn_blocking(move || has_room(&directory, ROOM));
                looking
                    .await
                    .unwrap_or_else(|lost| Err(io_error("look at", "the data directory", lost.into())))
            }
        }))
}

fn has_room(directory: &Path, least: ByteSize) -> Result<()> {
    let about = rustix::fs::statvfs(directory)
        .map_err(|error| io_error("look at", directory.display(), error.into()))?;
    let free = ByteSize::new(about.f_bavail.saturating_mul(about.f_frsize));
    match free < least {
        true => Err(Error::new(ErrorKind::NoSpace, "write in", directory.display())
            .because(format!("{free} are free, and {least} at least are needed; make room"))),
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_told_with_what_is_free() {
        let folder = tempfile::tempdir().unwrap();
        has_room(folder.path(), ByteSize::ZERO).unwrap();
        let full = has_room(folder.path(), ByteSize::new(u64::MAX)).unwrap_err();
        assert_eq!(full.kind(), ErrorKind::NoSpace);
        assert!(full.chain().contains("make room"), "{}", full.chain());
        assert_eq!(
            has_room(&folder.path().join("x"), ByteSize::ZERO).unwrap_err().kind(),
            ErrorKind::NotFound
        );
    }
}
