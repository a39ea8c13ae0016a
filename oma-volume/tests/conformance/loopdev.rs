//! `LoopBackend`, where this machine lets us have loop devices.

mod foreign;
mod replicated;
mod sizes;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use futures_util::TryStreamExt;
use oma_core::conformance::{self, BackendSubject, Requirement, Trial};
use oma_core::record::VolumeTag;
use oma_core::traits::{Access, Provisioning, Volume, VolumeBackend, VolumeSpec};
use oma_core::{ByteSize, ErrorKind, Retry};
use oma_volume::file::FileBackend;
use oma_volume::loopdev::{LoopBackend, LoopConfig};
use tempfile::TempDir;

use super::backend::{self, spec};
use super::process::{lives_as, snapshot};

pub(crate) fn trials() -> Vec<Trial> {
    let needs = [Requirement::Feature("the right to make loop devices", can_make())];
    let all = conformance::volume_backend_cases();
    let mut trials = conformance::cases_needing("loop_backend", &needs, &all, || async { subject() });
    let lost = conformance::unreachable_backend_cases();
    trials.extend(conformance::cases_needing("loop_backend", &needs, &lost, || async { unreachable() }));
    trials.extend(foreign::trials(&needs));
    trials.extend(sizes::trials(&needs));
    trials.extend(replicated::trials(&needs));
    let traced = [needs[0], Requirement::Program("strace")];
    let name = "loop_backend::l15_killed_before_any_of_its_calls_it_loses_nothing_and_leaves_nothing";
    trials.push(conformance::trial(name, &traced, killed));
    let name = "loop_backend::an_attach_that_was_killed_before_it_was_recorded_is_found_by_the_next";
    trials.push(conformance::trial(name, &traced, found_again));
    let name = "loop_backend::after_a_restart_of_the_machine_attach_makes_the_device_again";
    trials.push(conformance::trial(name, &[needs[0], Requirement::Program("losetup")], made_again));
    trials
}

/// Whether one can be made and taken away here.
fn can_make() -> bool {
    let place = Place::new();
    let Ok(backend) = LoopBackend::open(&LoopConfig::new(place.volumes())) else { return false };
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let volume = backend.create(&spec()).await.unwrap();
        backend.attach(&volume.id, &spec().tag).await.is_ok()
    })
}

/// A folder for volumes; what is made of its files is taken away with it.
pub(crate) struct Place {
    folder: TempDir,
}

impl Place {
    pub(crate) fn new() -> Self {
        Self { folder: TempDir::new().unwrap() }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn volumes(&self) -> PathBuf {
        self.path("volumes")
    }

    pub(crate) fn open(&self) -> LoopBackend {
        LoopBackend::open(&LoopConfig::new(self.volumes())).unwrap()
    }

    /// The images themselves.
    pub(crate) fn files(&self) -> FileBackend {
        backend::open(&self.volumes())
    }

    /// Devices that are made of a file of this folder, or of one that was there.
    pub(crate) fn devices(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir("/sys/block").unwrap().map(|entry| entry.unwrap().path());
        let ours = |path: &PathBuf| {
            let backing = fs::read_to_string(path.join("loop/backing_file")).unwrap_or_default();
            backing.starts_with(&format!("{}/", self.folder.path().display()))
        };
        entries.filter(ours).map(|path| Path::new("/dev").join(path.file_name().unwrap())).collect()
    }

    /// Takes a device away as an operator does. Who looks at all devices may have it open: it goes when they close it.
    pub(crate) fn take_away(&self, device: &Path) {
        assert!(Command::new("losetup").arg("--detach").arg(device).status().unwrap().success());
        let until = Instant::now() + Duration::from_secs(10);
        while self.devices().iter().any(|left| left == device) {
            assert!(Instant::now() < until, "{} is still there", device.display());
            thread::yield_now();
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let until = Instant::now() + Duration::from_secs(10);
        // One that is about to go is told so in vain.
        while let Some(device) = self.devices().first() {
            let done = Command::new("losetup").arg("--detach").arg(device).output();
            if Instant::now() > until {
                assert!(thread::panicking(), "{} is still there: {done:?}", device.display());
                return;
            }
        }
    }
}

fn subject() -> BackendSubject {
    let place = Place::new();
    let (backend, second) = (Arc::new(place.open()), Arc::new(place.open()));
    BackendSubject { backend, second, guard: Box::new(place) }
}

fn unreachable() -> BackendSubject {
    let place = Place::new();
    let backend = Arc::new(place.open());
    fs::rename(place.volumes(), place.path("moved")).unwrap();
    fs::create_dir(place.volumes()).unwrap();
    BackendSubject { second: backend.clone(), backend, guard: Box::new(place) }
}

/// A volume of one MiB, attached.
pub(crate) async fn attached(backend: &LoopBackend) -> (Volume, VolumeTag) {
    let spec = spec();
    let volume = backend.create(&spec).await.unwrap();
    (backend.attach(&volume.id, &spec.tag).await.unwrap(), spec.tag)
}

pub(crate) fn device_of(volume: &Volume) -> PathBuf {
    PathBuf::from(volume.device_path.clone().expect("it is attached"))
}

/// All that happens to a volume in more than one step.
pub(crate) async fn life(place: &Path) -> ExitCode {
    let backend = LoopBackend::open(&LoopConfig::new(place.to_owned())).unwrap();
    let spec = thin();
    let volume = backend.create(&spec).await.unwrap();
    backend.attach(&volume.id, &spec.tag).await.unwrap();
    drop(backend.open(&volume.id, &spec.tag, Access::ReadWrite).await.unwrap());
    backend.resize(&volume.id, &spec.tag, ByteSize::mib(2)).await.unwrap();
    backend.snapshot(&snapshot(&spec, 1)).await.unwrap();
    backend.revert(&volume.id, &spec.tag, &snapshot(&spec, 1)).await.unwrap();
    backend.detach(&volume.id, &spec.tag).await.unwrap();
    backend.attach(&volume.id, &spec.tag).await.unwrap();
    backend.delete_snapshot(&snapshot(&spec, 1)).await.unwrap();
    backend.delete(&volume.id, &spec.tag).await.unwrap();
    ExitCode::SUCCESS
}

fn thin() -> VolumeSpec {
    VolumeSpec { provisioning: Provisioning::Thin, ..spec() }
}

/// Kills a child before the first, the second, the third … call of each sort that changes something.
async fn killed() {
    let place = Place::new();
    let mut kills = 0;
    for call in ["ioctl", "renameat", "unlinkat", "ftruncate", "fsync"] {
        let mut nth = 1;
        while !lives_as("loop", &place.volumes(), &format!("inject={call}:signal=KILL:when={nth}")) {
            nothing_lost_nothing_left(&place, &format!("{call} {nth}")).await;
            (kills, nth) = (kills + 1, nth + 1);
        }
    }
    assert!((40..400).contains(&kills), "the child was killed {kills} times");
}

async fn nothing_lost_nothing_left(place: &Place, moment: &str) {
    let (backend, spec) = (place.open(), thin());
    assert!(place.devices().len() <= 1, "{moment}");
    for volume in backend.list(&spec.tag.instance).try_collect::<Vec<_>>().await.unwrap() {
        assert_eq!(backend.get(&volume.id).await.unwrap(), Some(volume), "{moment}");
    }
    let volume = backend.create(&spec).await.unwrap();
    let volume = backend.attach(&volume.id, &spec.tag).await.unwrap();
    assert_eq!(place.devices(), [device_of(&volume)], "{moment}");
    let device = backend.open(&volume.id, &spec.tag, Access::ReadWrite).await.unwrap();
    assert_eq!(device.info().capacity, volume.capacity, "{moment}");
    drop(device);
    backend.snapshot(&snapshot(&spec, 1)).await.unwrap();
    backend.delete_snapshot(&snapshot(&spec, 1)).await.unwrap();
    backend.delete(&volume.id, &spec.tag).await.unwrap();
    assert_eq!(place.devices(), Vec::<PathBuf>::new(), "{moment}");
    let left = backend::left(&place.volumes());
    assert!(left.is_empty(), "{moment} left {left:?}");
}

/// A rename puts each record in its place: one of the first records that the volume is attached.
async fn found_again() {
    for nth in 1..10 {
        let place = Place::new();
        assert!(!lives_as("loop", &place.volumes(), &format!("inject=renameat:signal=KILL:when={nth}")));
        let (backend, spec, devices) = (place.open(), thin(), place.devices());
        let listed: Vec<_> = backend.list(&spec.tag.instance).try_collect().await.unwrap();
        let ([device], [volume]) = (&devices[..], &listed[..]) else { continue };
        if volume.device_path.is_some() {
            continue;
        }
        let volume = backend.attach(&volume.id, &spec.tag).await.unwrap();
        assert_eq!((&device_of(&volume), place.devices()), (device, devices.clone()));
        backend.detach(&volume.id, &spec.tag).await.unwrap();
        assert!(place.devices().is_empty());
        return;
    }
    panic!("no moment was between the device and its record");
}

async fn made_again() {
    let place = Place::new();
    let backend = place.open();
    let (volume, tag) = attached(&backend).await;
    place.take_away(&device_of(&volume));
    assert_eq!(backend.get(&volume.id).await.unwrap().unwrap().device_path, None);
    let error = backend.open(&volume.id, &tag, Access::ReadWrite).await.unwrap_err();
    assert_eq!((error.kind(), error.retry()), (ErrorKind::Conflict, Retry::Never), "{}", error.chain());
    let again = backend.attach(&volume.id, &tag).await.unwrap();
    assert_eq!(place.devices(), [device_of(&again)]);
    backend.open(&volume.id, &tag, Access::ReadWrite).await.unwrap();
}
