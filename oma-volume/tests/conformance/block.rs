//! `FileDevice` over a block device: a loop device, where this machine lets us have one.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use oma_core::conformance::{self, DEVICE_CAPACITY, DeviceSubject, Requirement, Trial};
use oma_core::traits::{Access, BlockDevice};
use oma_volume::device::FileDevice;
use tempfile::TempDir;

pub(crate) fn trials() -> Vec<Trial> {
    let needs = needs();
    let one = |case: &conformance::Case<DeviceSubject>| {
        let (name, run) = (format!("file_device_on_a_block_device::{}", case.name), case.run);
        conformance::trial(&name, &needs, move || async move { run(subject().await).await })
    };
    conformance::block_device_cases().iter().map(one).collect()
}

/// What it takes to have a loop device.
pub(crate) fn needs() -> [Requirement; 2] {
    let found = TempDir::new().is_ok_and(|folder| Loop::new(folder).is_some());
    [Requirement::Program("losetup"), Requirement::Feature("loop device", found)]
}

async fn subject() -> DeviceSubject {
    let device = Loop::new(TempDir::new().unwrap()).expect("a loop device was there before");
    let opened = FileDevice::open(&device.path, Access::ReadWrite).await.unwrap();
    assert_eq!(opened.info().capacity, DEVICE_CAPACITY);
    DeviceSubject { device: Arc::new(opened), guard: Box::new(device) }
}

/// A loop device over a file of its own.
pub(crate) struct Loop {
    pub(crate) path: PathBuf,
    _folder: TempDir,
}

impl Loop {
    pub(crate) fn new(folder: TempDir) -> Option<Self> {
        let file = folder.path().join("disk.raw");
        File::create(&file).and_then(|made| made.set_len(DEVICE_CAPACITY.bytes())).ok()?;
        // Tests of loop devices take none that is free for a moment.
        let control = File::open("/dev/loop-control").ok()?;
        control.lock().ok()?;
        let done = Command::new("losetup").args(["--find", "--show"]).arg(&file).output().ok()?;
        let path = Path::new(String::from_utf8(done.stdout).ok()?.trim()).to_owned();
        done.status.success().then_some(Self { path, _folder: folder })
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        let done = Command::new("losetup").arg("--detach").arg(&self.path).status();
        assert!(done.is_ok_and(|status| status.success()), "{} is still there", self.path.display());
    }
}
