//! A machine without a guest: its disks are written through its devices' own ends.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use oma_core::conformance::Requirement;
use oma_core::traits::{DiskSource, PointInTime};
use oma_core::{DiskKey, JobId, PointId, VmPath};
use oma_nbd::{QemuConfig, QemuSource};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::UnixStream;
use tokio::process::{Child, ChildStdout, Command};
use tokio::sync::Mutex;
use tokio::time::{sleep, timeout};

pub(crate) const NEEDS: [Requirement; 3] = [
    Requirement::Program("qemu-system-x86_64"),
    Requirement::Program("qemu-img"),
    Requirement::Program("timeout"),
];

/// Disks `disk0` (qcow2) and `disk1` (raw, on another bus) of this many bytes.
pub(crate) const CAPACITY: u64 = 8 << 20;
const LIMIT: Duration = Duration::from_secs(30);

/// A machine and its folder; QEMU ends with it.
#[derive(Debug)]
pub(crate) struct Machine {
    folder: TempDir,
    qemu: std::sync::Mutex<Option<Qemu>>,
    /// What `qemu-io` within QEMU says.
    said: Mutex<Option<BufReader<ChildStdout>>>,
    /// A monitor of its own: the source's is free for the source.
    monitor: Mutex<Option<BufReader<UnixStream>>>,
}

impl Machine {
    pub(crate) async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let machine = Self {
            folder,
            qemu: std::sync::Mutex::default(),
            said: Mutex::default(),
            monitor: Mutex::default(),
        };
        for (format, name) in [("qcow2", "disk0"), ("raw", "disk1")] {
            let size = CAPACITY.to_string();
            machine.img(&["create", "-q", "-f", format, name, &size]).await;
        }
        machine.boot(&[]).await;
        machine
    }

    pub(crate) async fn img(&self, arguments: &[&str]) {
        let mut command = Command::new("timeout");
        command.args(["20", "qemu-img"]).args(arguments).current_dir(self.path());
        assert!(command.status().await.unwrap().success(), "{arguments:?}");
    }

    /// Starts QEMU on the disks, once more perhaps.
    pub(crate) async fn boot(&self, more: &[&str]) {
        // A file that is too large is an error of its write, not the end of the process.
        let mut command = Command::new("sh");
        command.args(["-c", r#"trap '' XFSZ; exec "$0" "$@""#, "timeout"]);
        command.args([
            "120",
            "qemu-system-x86_64",
            "-M",
            "q35",
            "-accel",
            "tcg",
            "-S",
            "-nodefaults",
            "-m",
            "64",
        ]);
        command.args(["-display", "none", "-uuid", "7f2ac9a4-21a4-4b32-9c04-3a1d3b3c9d10"]);
        for socket in ["qmp", "second", "tests"] {
            command.arg("-qmp").arg(format!("unix:{socket},server=on,wait=off"));
        }
        command.args(["-object", "iothread,id=io0", "-device", "virtio-scsi-pci,id=scsi"]);
        command.args(["-blockdev", "qcow2,node-name=n0,discard=unmap,file.driver=file,file.filename=disk0"]);
        command.args(["-device", "virtio-blk-pci,drive=n0,id=disk0,iothread=io0,serial=S0"]);
        command.args(["-blockdev", "raw,node-name=n1,file.driver=file,file.filename=disk1"]);
        command.args(["-device", "scsi-hd,bus=scsi.0,drive=n1,id=disk1"]);
        command.args(more).current_dir(self.path());
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
        *self.said.lock().await = child.stdout.take().map(BufReader::new);
        let monitor = connect(&self.path().join("tests")).await;
        let pid = rustix::net::sockopt::socket_peercred(&monitor).unwrap().pid;
        *self.qemu.lock().unwrap() = Some(Qemu { pid, parent: child });
        let mut monitor = BufReader::new(monitor);
        monitor.read_line(&mut String::new()).await.unwrap();
        *self.monitor.lock().await = Some(monitor);
        self.ask("qmp_capabilities", json!({})).await;
    }

    /// Ends QEMU as a power failure does.
    pub(crate) async fn kill(&self) {
        kill_process(self.pid(), Signal::KILL).unwrap();
        self.ended().await;
    }

    pub(crate) fn pid(&self) -> Pid {
        self.qemu.lock().unwrap().as_ref().unwrap().pid
    }

    /// Ends QEMU in good order.
    pub(crate) async fn quit(&self) {
        self.ask("quit", json!({})).await;
        self.ended().await;
    }

    async fn ended(&self) {
        let mut qemu = self.qemu.lock().unwrap().take().unwrap();
        timeout(LIMIT, qemu.parent.wait()).await.unwrap().unwrap();
        *self.monitor.lock().await = None;
    }

    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn socket(&self, name: &str) -> PathBuf {
        self.path().join(name)
    }

    pub(crate) fn config(&self) -> QemuConfig {
        let patience = Duration::from_secs(30);
        QemuConfig { busy_timeout: patience, ..QemuConfig::new(vm(), self.socket("qmp")) }
    }

    pub(crate) fn source(&self) -> QemuSource {
        QemuSource::new(self.config())
    }

    /// Runs a command of the monitor, refused or not.
    pub(crate) async fn try_ask(&self, command: &str, arguments: Value) -> Result<Value, String> {
        let mut place = self.monitor.lock().await;
        let monitor = place.as_mut().unwrap();
        let line = json!({ "execute": command, "arguments": arguments, "id": "test" }).to_string() + "\n";
        monitor.write_all(line.as_bytes()).await.unwrap();
        let answered = async {
            loop {
                let mut line = String::new();
                if monitor.read_line(&mut line).await.unwrap() == 0 {
                    return Err("it went away".to_owned());
                }
                let answer: Value = serde_json::from_str(&line).unwrap();
                if answer["id"] == "test" {
                    let error = &answer["error"];
                    return if error.is_null() {
                        Ok(answer["return"].clone())
                    } else {
                        Err(error.to_string())
                    };
                }
            }
        };
        timeout(LIMIT, answered).await.unwrap()
    }

    pub(crate) async fn ask(&self, command: &str, arguments: Value) -> Value {
        self.try_ask(command, arguments).await.unwrap()
    }

    /// Writes as the guest does: through the device's own end. The text is what QEMU said.
    pub(crate) async fn guest(&self, disk: &str, io: &str) -> String {
        let device = self.device(disk).await;
        let line = format!("qemu-io -d {device} \"{io}\"");
        self.ask("human-monitor-command", json!({ "command-line": line })).await;
        let mut place = self.said.lock().await;
        let stdout = place.as_mut().unwrap();
        let mut said = String::new();
        let ended = |said: &str| ["wrote ", "read ", "failed: "].iter().any(|word| said.contains(word));
        while !ended(&said) {
            timeout(LIMIT, stdout.read_line(&mut said)).await.unwrap().unwrap();
        }
        said
    }

    pub(crate) async fn write(&self, disk: &str, byte: u8, offset: u64, length: u64) {
        let said = self.guest(disk, &format!("write -P {byte} {offset} {length}")).await;
        assert!(said.contains("wrote"), "{said}");
    }

    /// Whether the guest sees this byte all over.
    pub(crate) async fn sees(&self, disk: &str, byte: u8, offset: u64, length: u64) -> bool {
        let said = self.guest(disk, &format!("read -P {byte} {offset} {length}")).await;
        said.contains("read ") && !said.contains("verification failed")
    }

    async fn device(&self, disk: &str) -> String {
        let devices = self.ask("query-block", json!({})).await;
        let mut names = devices.as_array().unwrap().iter().filter_map(|device| device["qdev"].as_str());
        names.find(|name| name.contains(disk)).unwrap().to_owned()
    }

    /// Names of bitmaps of a disk.
    pub(crate) async fn bitmaps(&self, node: &str) -> Vec<String> {
        let nodes = self.ask("query-named-block-nodes", json!({ "flat": true })).await;
        let node = nodes.as_array().unwrap().iter().find(|other| other["node-name"] == node).unwrap();
        let bitmaps = node["dirty-bitmaps"].as_array().cloned().unwrap_or_default();
        bitmaps.iter().filter_map(|bitmap| Some(bitmap["name"].as_str()?.to_owned())).collect()
    }

    /// Names of all nodes of ours, and of all exports.
    pub(crate) async fn leavings(&self) -> Vec<String> {
        let nodes = self.ask("query-named-block-nodes", json!({ "flat": true })).await;
        let exports = self.ask("query-block-exports", json!({})).await;
        let nodes = nodes.as_array().unwrap().iter().map(|node| node["node-name"].clone());
        let exports = exports.as_array().unwrap().iter().map(|export| export["id"].clone());
        let names = nodes.chain(exports).filter_map(|name| Some(name.as_str()?.to_owned()));
        let left: Vec<_> = names.filter(|name| name.starts_with("oma")).collect();
        let files = std::fs::read_dir(self.path()).unwrap().map(|entry| entry.unwrap().file_name());
        let files = files.filter_map(|name| Some(name.to_str()?.to_owned()));
        left.into_iter().chain(files.filter(|name| name.starts_with("oma"))).collect()
    }
}

/// QEMU, and the `timeout` that started it: that one does not pass its own end on.
#[derive(Debug)]
struct Qemu {
    pid: Pid,
    parent: Child,
}

impl Drop for Machine {
    fn drop(&mut self) {
        if let Some(Qemu { pid, parent: _waits }) = self.qemu.lock().unwrap().take() {
            let _ = kill_process(pid, Signal::KILL);
        }
    }
}

async fn connect(path: &Path) -> UnixStream {
    let connected = async {
        loop {
            match UnixStream::connect(path).await {
                Ok(stream) => return stream,
                Err(_) => sleep(Duration::from_millis(10)).await,
            }
        }
    };
    timeout(LIMIT, connected).await.unwrap()
}

pub(crate) fn vm() -> VmPath {
    VmPath::parse("/DC/vm/web01").unwrap()
}

pub(crate) fn job(number: u32) -> JobId {
    JobId::parse(format!("job-20250821-{number:06}-abcdef")).unwrap()
}

/// The point in time of [`job`], whether it is there or not.
pub(crate) fn point(number: u32) -> PointId {
    PointId::parse(format!("oma-{}", job(number))).unwrap()
}

pub(crate) fn key(name: &str) -> DiskKey {
    DiskKey::parse(name).unwrap()
}

/// What a source reads at a point in time.
pub(crate) async fn read(source: &dyn DiskSource, point: &PointId, disk: &str, offset: u64) -> u8 {
    let opened = source.open(point, &key(disk)).await.unwrap();
    opened.read_at(offset, bytes::BytesMut::zeroed(1)).await.unwrap()[0]
}

pub(crate) async fn freeze(source: &dyn DiskSource, number: u32) -> PointInTime {
    source.freeze(&vm(), &job(number)).await.unwrap()
}

/// The change id of a disk at a point in time.
pub(crate) fn mark(point: &PointInTime, disk: &str) -> oma_core::ChangeId {
    point.disks.iter().find(|other| other.key == key(disk)).unwrap().change_id.clone()
}
