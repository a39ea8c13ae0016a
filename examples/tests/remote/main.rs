//! Volumes of a daemon over HTTP and NBD are the daemon's volumes, as far as anybody can tell.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod daemon;
mod deaths;
mod hung;
mod pki;
mod program;
mod replicated;
mod tls;

use std::process::ExitCode;
use std::sync::Arc;

use oma_core::ByteSize;
use oma_core::conformance::{self, BackendSubject, DeviceSubject, Trial};
use oma_core::memory::MemoryBackend;
use oma_core::traits::{Access, VolumeBackend};
use oma_volume::file::{FileBackend, FileConfig};
use tempfile::TempDir;

use crate::daemon::{Daemon, Way, attached};

fn main() -> ExitCode {
    // The HTTP client takes the process's.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut trials = Vec::new();
    for (name, way) in [("tcp", Way::Tcp), ("unix", Way::Unix)] {
        trials.extend(file_backends(name, way));
        trials.extend(memory_backends(name, way));
        trials.extend(devices(name, way));
    }
    trials.extend(deaths::trials());
    trials.extend(hung::trials());
    trials.extend(program::trials());
    trials.extend(replicated::trials());
    trials.extend(tls::trials());
    conformance::run(trials)
}

/// Two clients of one daemon.
async fn subject(backend: Arc<dyn VolumeBackend>, way: Way, folder: TempDir) -> BackendSubject {
    let daemon = Daemon::start(backend, way).await;
    let (backend, second) = (Arc::new(daemon.remote().await), Arc::new(daemon.remote().await));
    BackendSubject { backend, second, guard: Box::new((daemon, folder)) }
}

fn files(folder: &TempDir) -> Arc<FileBackend> {
    let directory = folder.path().join("volumes");
    Arc::new(FileBackend::open(&FileConfig::new(directory)).unwrap())
}

fn file_backends(name: &str, way: Way) -> Vec<Trial> {
    let name = format!("files_over_{name}");
    let mut trials = conformance::cases(&name, &conformance::volume_backend_cases(), move || async move {
        let folder = TempDir::new().unwrap();
        subject(files(&folder), way, folder).await
    });
    trials.extend(conformance::cases(&name, &conformance::unreachable_backend_cases(), move || async move {
        let folder = TempDir::new().unwrap();
        let backend = files(&folder);
        let (here, there) = (folder.path().join("volumes"), folder.path().join("moved"));
        std::fs::rename(&here, &there).unwrap();
        std::fs::create_dir(&here).unwrap();
        subject(backend, way, folder).await
    }));
    trials
}

fn memory_backends(name: &str, way: Way) -> Vec<Trial> {
    let name = format!("memory_over_{name}");
    let mut trials = conformance::cases(&name, &conformance::volume_backend_cases(), move || async move {
        subject(Arc::new(MemoryBackend::new()), way, TempDir::new().unwrap()).await
    });
    trials.extend(conformance::cases(&name, &conformance::full_backend_cases(), move || async move {
        let backend = MemoryBackend::new().with_room(ByteSize::mib(8));
        subject(Arc::new(backend), way, TempDir::new().unwrap()).await
    }));
    trials.extend(conformance::cases(&name, &conformance::unreachable_backend_cases(), move || async move {
        let backend = MemoryBackend::new();
        backend.disconnect();
        subject(Arc::new(backend), way, TempDir::new().unwrap()).await
    }));
    trials
}

/// What a daemon's volume promises as a device.
fn devices(name: &str, way: Way) -> Vec<Trial> {
    let name = format!("device_over_{name}");
    conformance::cases(&name, &conformance::block_device_cases(), move || async move {
        let folder = TempDir::new().unwrap();
        let daemon = Daemon::start(files(&folder), way).await;
        let remote = daemon.remote().await;
        let (id, tag) = attached(&remote, conformance::DEVICE_CAPACITY).await;
        let device = remote.open(&id, &tag, Access::ReadWrite).await.unwrap();
        DeviceSubject { device, guard: Box::new((daemon, folder)) }
    })
}
