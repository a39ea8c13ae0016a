//! `FileBackend` in a folder of its own.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use oma_core::conformance::{self, BackendSubject, Trial};
use oma_volume::file::{FileBackend, FileConfig};
use tempfile::TempDir;

pub(crate) fn trials() -> Vec<Trial> {
    let mut trials =
        conformance::cases("file_backend", &conformance::volume_backend_cases(), || async { subject() });
    trials.extend(conformance::cases("file_backend", &conformance::unreachable_backend_cases(), || async {
        let folder = TempDir::new().unwrap();
        let (here, there) = (folder.path().join("volumes"), folder.path().join("moved"));
        let backend = open(&here);
        fs::rename(&here, &there).unwrap();
        // An empty folder in its place, as a mount point without its file system has.
        fs::create_dir(&here).unwrap();
        let backend = Arc::new(backend);
        BackendSubject { second: backend.clone(), backend, guard: Box::new(folder) }
    }));
    trials
}

pub(crate) fn open(directory: &Path) -> FileBackend {
    FileBackend::open(&FileConfig { directory: directory.to_owned() }).unwrap()
}

pub(crate) fn subject() -> BackendSubject {
    let folder = TempDir::new().unwrap();
    let directory = folder.path().join("volumes");
    let (backend, second) = (Arc::new(open(&directory)), Arc::new(open(&directory)));
    BackendSubject { backend, second, guard: Box::new(folder) }
}
