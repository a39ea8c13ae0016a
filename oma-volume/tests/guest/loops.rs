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
    suite("loop_backend", conformance::volume_backend_cases(), || async { subject() })
}

/// What is made of its files is taken away with it.
struct Place(TempDir);

fn subject() -> BackendSubject {
    let place = Place(TempDir::new().unwrap());
    let open = || Arc::new(LoopBackend::open(&LoopConfig { directory: place.0.path().to_owned() }).unwrap());
    let (backend, second) = (open(), open());
    BackendSubject { backend, second, guard: Box::new(place) }
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
