//! Another directory in place of the one that has the volumes (L21).

use std::fs;
use std::path::PathBuf;

use oma_core::conformance::{self, Trial};
use oma_core::traits::VolumeBackend;
use oma_core::{Error, ErrorKind, Result, Retry};
use oma_volume::file::{FileBackend, FileConfig};
use tempfile::TempDir;

use super::backend::{open, spec};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        conformance::trial(
            "file_backend::l21_an_empty_mount_point_in_place_of_the_volumes_is_not_opened",
            &[],
            unmounted,
        ),
        conformance::trial("file_backend::l21_what_is_in_another_directory_is_not_gone", &[], other),
        conformance::trial(
            "file_backend::l21_a_delete_in_a_directory_without_any_volume_is_not_done",
            &[],
            never_used,
        ),
        conformance::trial("file_backend::volumes_from_before_there_were_ids_are_kept", &[], adopted),
    ]
}

struct Place(TempDir);

impl Place {
    fn new() -> Self {
        Self(TempDir::new().unwrap())
    }

    fn volumes(&self) -> PathBuf {
        self.0.path().join("volumes")
    }

    fn identity(&self) -> PathBuf {
        self.0.path().join("volumes.id")
    }

    fn open(&self) -> Result<FileBackend> {
        FileBackend::open(&FileConfig { identity: Some(self.identity()), ..FileConfig::new(self.volumes()) })
    }

    /// The file system goes, and its mount point stays.
    fn unmount(&self) {
        fs::rename(self.volumes(), self.0.path().join("unmounted")).unwrap();
        fs::create_dir(self.volumes()).unwrap();
    }

    fn mount(&self) {
        fs::remove_dir_all(self.volumes()).unwrap();
        fs::rename(self.0.path().join("unmounted"), self.volumes()).unwrap();
    }
}

fn assert_not_asked(error: &Error) {
    assert_eq!((error.kind(), error.retry()), (ErrorKind::Unavailable, Retry::Later), "{}", error.chain());
    assert!(error.chain().contains("mount its file system"), "{}", error.chain());
}

async fn unmounted() {
    let (place, spec) = (Place::new(), spec());
    let backend = place.open().unwrap();
    assert!(!place.identity().exists(), "as long as nothing is in it, any directory will do");
    let volume = backend.create(&spec).await.unwrap();
    backend.delete(&volume.id, &spec.tag).await.unwrap();
    drop(backend);
    place.unmount();
    assert_not_asked(&place.open().unwrap_err());
    fs::remove_dir(place.volumes()).unwrap();
    assert_not_asked(&place.open().unwrap_err());
    assert!(!place.volumes().exists(), "it is not made either");
    fs::create_dir(place.volumes()).unwrap();
    place.mount();
    let backend = place.open().unwrap();
    backend.delete(&volume.id, &spec.tag).await.expect("there it is known that it is gone");
}

async fn other() {
    let (place, another, spec) = (Place::new(), Place::new(), spec());
    for place in [&place, &another] {
        place.open().unwrap().create(&spec).await.unwrap();
    }
    fs::remove_dir_all(place.volumes()).unwrap();
    fs::rename(another.volumes(), place.volumes()).unwrap();
    assert_not_asked(&place.open().unwrap_err());
    fs::remove_file(place.identity()).unwrap();
    place.open().unwrap();
    assert_eq!(fs::read(place.identity()).unwrap(), fs::read(another.identity()).unwrap());
}

/// Whoever keeps no id outside is not told that a volume is gone by a directory that never had one.
async fn never_used() {
    let (place, spec) = (Place::new(), spec());
    let volume = open(&place.volumes()).create(&spec).await.unwrap();
    place.unmount();
    let backend = open(&place.volumes());
    assert_not_asked(&backend.delete(&volume.id, &spec.tag).await.unwrap_err());
    place.mount();
    let backend = open(&place.volumes());
    for _ in 0..2 {
        backend.delete(&volume.id, &spec.tag).await.unwrap();
    }
}

async fn adopted() {
    let (place, spec) = (Place::new(), spec());
    let volume = place.open().unwrap().create(&spec).await.unwrap();
    fs::remove_file(place.identity()).unwrap();
    fs::remove_file(place.volumes().join("oma-volumes")).unwrap();
    let backend = place.open().unwrap();
    assert_eq!(backend.get(&volume.id).await.unwrap(), Some(volume.clone()));
    backend.delete(&volume.id, &spec.tag).await.unwrap();
    drop(backend);
    place.unmount();
    assert_not_asked(&place.open().unwrap_err());
}
