//! `LoopBackend` on the kernel of the machine, over a file system without direct I/O.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use oma_core::conformance::{self, BackendSubject};
use oma_volume::loopdev::{LoopBackend, LoopConfig};
use tempfile::TempDir;

use crate::inside::{Case, suite};

pub(crate) fn cases() -> Vec<Case> {
    let full = conformance::full_backend_cases();
    let full = suite("loop_backend::on_a_small_file_system", full, || async { small() });
    suite("loop_backend", conformance::volume_backend_cases(), || async { subject(Place::new()) })
        .into_iter()
        .chain(full)
        .collect()
}

/// What is made of its files is taken away with it.
struct Place(TempDir);

/// Over a file system of 8 MiB.
fn small() -> BackendSubject {
    let place = Place::new();
    let mut mount = Command::new("mount");
    mount.args(["-t", "tmpfs", "-o", "size=8m", "none"]).arg(place.0.path());
    assert!(mount.status().unwrap().success());
    subject(place)
}

fn subject(place: Place) -> BackendSubject {
    let open = || Arc::new(LoopBackend::open(&LoopConfig::new(place.0.path().to_owned())).unwrap());
    let (backend, second) = (open(), open());
    BackendSubject { backend, second, guard: Box::new(place) }
}

impl Place {
    fn new() -> Self {
        Self(TempDir::new().unwrap())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        for entry in fs::read_dir("/sys/block").unwrap().flatten() {
            let backing = fs::read_to_string(entry.path().join("loop/backing_file")).unwrap_or_default();
            if Path::new(backing.trim_end()).starts_with(self.0.path()) {
                let device = Path::new("/dev").join(entry.file_name());
                assert!(Command::new("losetup").arg("-d").arg(device).status().unwrap().success());
            }
        }
    }
}
