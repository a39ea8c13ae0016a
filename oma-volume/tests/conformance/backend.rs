//! `FileBackend` in a folder of its own.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use oma_core::conformance::{self, BackendSubject, Trial};
use oma_core::record::VolumeTag;
use oma_core::traits::{Provisioning, VolumeSpec};
use oma_core::{ByteSize, DiskRef, Generation};
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
    FileBackend::open(&FileConfig::new(directory.to_owned())).unwrap()
}

/// What is in a directory but its id, which it has for good.
pub(crate) fn left(directory: &Path) -> Vec<PathBuf> {
    let all = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    all.filter(|path| !path.ends_with("oma-volumes")).collect()
}

/// Of a volume of one MiB, the same in each process.
pub(crate) fn spec() -> VolumeSpec {
    let disk = DiskRef { context: "ctx-1".parse().unwrap(), key: "disk-2000".parse().unwrap() };
    let instance = "1f6f2ad4-6c5f-4a40-9d0c-3f0a5b6c7d8e".parse().unwrap();
    VolumeSpec {
        operation: "op-1".parse().unwrap(),
        tag: VolumeTag { instance, disk, generation: Generation::FIRST },
        name: "web".to_owned(),
        capacity: ByteSize::mib(1),
        provisioning: Provisioning::Thick,
    }
}

pub(crate) fn subject() -> BackendSubject {
    let folder = TempDir::new().unwrap();
    let directory = folder.path().join("volumes");
    let (backend, second) = (Arc::new(open(&directory)), Arc::new(open(&directory)));
    BackendSubject { backend, second, guard: Box::new(folder) }
}
