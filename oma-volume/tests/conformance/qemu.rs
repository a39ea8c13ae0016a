//! Files that programs of QEMU have open, and theirs that we have.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use oma_core::ErrorKind;
use oma_core::conformance::{self, Requirement, Trial};
use oma_core::traits::{Access, Provisioning, VolumeBackend, VolumeSpec};
use oma_volume::device::FileDevice;
use tempfile::TempDir;

use super::backend::{open, spec};
use super::device::file;

pub(crate) fn trials() -> Vec<Trial> {
    let needs = ["qemu-io", "qemu-img"].map(Requirement::Program);
    vec![
        conformance::trial("file_device::l06_what_qemu_writes_is_not_opened", &needs, qemu_writes),
        conformance::trial("file_device::l06_qemu_does_not_open_what_we_write", &needs, we_write),
        conformance::trial(
            "file_backend::l06_a_volume_that_a_machine_has_is_open_and_stays",
            &needs,
            volume_of_machine,
        ),
    ]
}

/// A program of QEMU that has a raw disk open until it is dropped.
struct Machine(Child);

impl Machine {
    fn start(path: &Path) -> Self {
        let mut command = Command::new("qemu-io");
        command.args(["-f", "raw"]).arg(path);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        child.stdin.as_mut().unwrap().write_all(b"read 0 512\n").unwrap();
        let mut answers = BufReader::new(child.stdout.as_mut().unwrap()).lines();
        let read = answers.by_ref().map_while(Result::ok).any(|line| line.contains("read 512/512"));
        assert!(read, "qemu-io has it open");
        Self(child)
    }

    fn end(mut self) {
        drop(self.0.stdin.take());
        assert!(self.0.wait().unwrap().success());
    }
}

fn write(path: &Path) -> Output {
    Command::new("qemu-io").args(["-f", "raw", "-c", "write 0 512"]).arg(path).output().unwrap()
}

fn read(path: &Path) -> Output {
    let mut command = Command::new("qemu-img");
    command.args(["convert", "-f", "raw", "-O", "raw"]).arg(path).arg(path.with_extension("copy"));
    command.output().unwrap()
}

async fn qemu_writes() {
    let (_folder, path) = file();
    let machine = Machine::start(&path);
    for access in [Access::ReadOnly, Access::ReadWrite] {
        let error = FileDevice::open(&path, access).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Busy, "{}", error.chain());
        assert!(error.chain().contains("QEMU has it open"), "{}", error.chain());
    }
    machine.end();
    drop(FileDevice::open(&path, Access::ReadWrite).await.unwrap());
}

async fn we_write() {
    let (_folder, path) = file();
    let refused = |done: &Output| String::from_utf8_lossy(&done.stderr).contains("lock");
    let writer = FileDevice::open(&path, Access::ReadWrite).await.unwrap();
    for done in [read(&path), write(&path)] {
        assert!(!done.status.success() && refused(&done), "{done:?}");
    }
    drop(writer);
    let reader = FileDevice::open(&path, Access::ReadOnly).await.unwrap();
    let written = write(&path);
    assert!(!written.status.success() && refused(&written), "{written:?}");
    assert!(read(&path).status.success());
    drop(reader);
    assert!(write(&path).status.success());
}

async fn volume_of_machine() {
    let folder = TempDir::new().unwrap();
    let backend = open(folder.path());
    let spec = VolumeSpec { provisioning: Provisioning::Thin, ..spec() };
    let tag = spec.tag.clone();
    let id = backend.create(&spec).await.unwrap().id;
    let machine = Machine::start(&folder.path().join(format!("{id}.raw")));
    let refused = backend.delete(&id, &tag).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Busy, "{}", refused.chain());
    assert!(backend.get(&id).await.unwrap().is_some());
    machine.end();
    backend.delete(&id, &tag).await.unwrap();
}
