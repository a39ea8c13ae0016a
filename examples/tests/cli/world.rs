//! A folder of its own per test, the program in it, and the servers around it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use oma_core::ByteSize;
use oma_examples::{SampleDisk, noise};
use serde_json::Value;
use tempfile::TempDir;
use tokio::process::{Child, Command};

pub(crate) const VM: &str = "/DC/vm/web01";
pub(crate) const MIB: u64 = 1 << 20;

/// Nothing that a test waits for takes longer.
pub(crate) const LIMIT: Duration = Duration::from_secs(20);

/// One test's folder. Everything in it goes with it.
#[derive(Debug)]
pub(crate) struct World {
    folder: TempDir,
}

/// How a program ended.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Ran {
    /// The last line of standard output, which is JSON.
    pub(crate) fn json(&self) -> Value {
        let line = self.out.lines().last().unwrap_or_default();
        serde_json::from_str(line).unwrap_or_else(|error| panic!("{error} in {line:?}; {self:?}"))
    }

    pub(crate) fn ok(self) -> Self {
        assert_eq!(self.code, 0, "{self:#?}");
        self
    }

    /// It failed with this code and a sentence that has all of these words.
    pub(crate) fn refused(self, code: i32, words: &[&str]) -> Self {
        assert_eq!(self.code, code, "{self:#?}");
        let sentence = self.err.lines().find(|line| line.starts_with("oma: ")).unwrap_or_default();
        for word in words {
            assert!(sentence.contains(word), "{word:?} is not in {sentence:?}");
        }
        assert!(!self.err.contains("panicked"), "{self:#?}");
        self
    }
}

impl World {
    pub(crate) fn new() -> Self {
        Self { folder: tempfile::Builder::new().prefix("oma-test-").tempdir().unwrap() }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The same as text.
    pub(crate) fn text(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    /// The program, on this world's data directory.
    pub(crate) fn oma(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_oma"));
        command.arg("--data-dir").arg(self.path("data")).args(args);
        command
            .env_remove("OMA_DATA_DIR")
            .env_remove("OMA_DATABASE")
            .env_remove("OMA_LOG")
            .kill_on_drop(true);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    pub(crate) async fn run(&self, args: &[&str]) -> Ran {
        finish(self.oma(args).spawn().unwrap()).await
    }

    /// `oma --json replicate` of this world's VM.
    pub(crate) async fn replicate(&self, args: &[&str]) -> Ran {
        self.run(&replicate_args(args)).await
    }

    /// The rows of `oma disks`.
    pub(crate) async fn disks(&self) -> Vec<Value> {
        let ran = self.run(&["--json", "disks"]).await.ok();
        ran.json().as_array().unwrap().clone()
    }

    /// The file of a disk's volume.
    pub(crate) async fn volume(&self, key: &str) -> PathBuf {
        let disks = self.disks().await;
        let row = disks.iter().find(|row| row["disk_key"] == key).unwrap();
        PathBuf::from(row["volume_path"].as_str().unwrap())
    }

    /// What `oma change-id` prints for a disk; `None` when it has none.
    pub(crate) async fn change_id(&self, key: &str) -> Option<String> {
        let ran = self.run(&["change-id", "--vm-path", VM, "--disk-key", key]).await;
        match ran.code {
            0 => Some(ran.out.trim_end().to_owned()),
            7 => None,
            _ => panic!("{ran:#?}"),
        }
    }

    /// A raw image of data, written zeroes and holes.
    pub(crate) fn raw(&self, name: &str, size: u64, seed: u64) -> PathBuf {
        let path = self.path(name);
        SampleDisk::make(&path, ByteSize::new(size), seed).unwrap();
        path
    }

    /// A raw image without a zero.
    pub(crate) fn full(&self, name: &str, size: u64) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, noise(1, usize::try_from(size).unwrap())).unwrap();
        path
    }

    /// Runs a program that must succeed; answers its standard output.
    pub(crate) async fn must(&self, program: &str, args: &[&str]) -> String {
        let mut command = Command::new(program);
        command.args(args).current_dir(self.folder.path()).kill_on_drop(true);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let ran = finish(command.spawn().unwrap()).await;
        assert_eq!(ran.code, 0, "{program} {args:?}: {ran:#?}");
        ran.out
    }

    /// Starts a server that writes its process id into `pid-file` once clients can connect.
    pub(crate) async fn serve(&self, program: &str, pid_file: &str, args: &[&str]) -> Server {
        let _ = fs::remove_file(self.path(pid_file));
        let mut command = Command::new(program);
        command.args(args).current_dir(self.folder.path()).kill_on_drop(true);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let server = Server { child: command.spawn().unwrap() };
        until!(
            format_args!("{program} is ready"),
            fs::read_to_string(self.path(pid_file)).is_ok_and(|text| text.ends_with('\n'))
        );
        server
    }

    /// qemu-nbd on a socket named `NAME.sock` in this folder.
    pub(crate) async fn qemu_nbd(&self, name: &str, args: &[&str]) -> Server {
        let (socket, pid_file) = (self.text(&format!("{name}.sock")), format!("{name}.pid"));
        let mut all = vec!["--persistent", "--shared", "0", "--pid-file", &pid_file, "--socket", &socket];
        all.extend(args);
        self.serve("qemu-nbd", &pid_file, &all).await
    }

    /// qemu-nbd that reads a raw file with so many MiB per second, on a socket named `NAME.sock` in this folder.
    pub(crate) async fn slow_nbd(&self, name: &str, file: &str, speed: u64) -> Server {
        let group = format!("throttle-group,id=slow,x-bps-read={}", speed * MIB);
        let image =
            format!("driver=throttle,throttle-group=slow,file.driver=file,file.filename={}", self.text(file));
        self.qemu_nbd(name, &["--read-only", "--object", &group, "--image-opts", &image]).await
    }

    /// nbdkit on a socket named `NAME.sock` in this folder.
    pub(crate) async fn nbdkit(&self, name: &str, args: &[&str]) -> Server {
        let (socket, pid_file) = (self.text(&format!("{name}.sock")), format!("{name}.pid"));
        let _ = fs::remove_file(&socket);
        let pid_path = self.text(&pid_file);
        let mut all = vec!["--foreground", "--unix", &socket, "--pidfile", &pid_path];
        all.extend(args);
        self.serve("nbdkit", &pid_file, &all).await
    }

    /// A QEMU machine whose guest never runs, with one disk, `NAME.raw`, and its monitor on `NAME.qmp` in this folder.
    pub(crate) async fn machine(&self, name: &str, more: &[&str]) -> Server {
        let disk = self.raw(&format!("{name}.raw"), MIB, 1).display().to_string();
        let disk = format!("if=none,id=other,format=raw,file={disk}");
        let (monitor, pid_file) = (self.text(&format!("{name}.qmp")), format!("{name}.pid"));
        let (qmp, pid_path) = (format!("unix:{monitor},server=on,wait=off"), self.text(&pid_file));
        let quiet = ["-S", "-display", "none", "-serial", "none", "-monitor", "none", "-pidfile", &pid_path];
        let disk = ["-drive", &disk, "-device", "virtio-blk-pci,drive=other,id=disk", "-qmp", &qmp];
        let args = [&quiet[..], &disk, more].concat();
        let machine = self.serve("qemu-system-x86_64", &pid_file, &args).await;
        until!("the machine has a monitor", self.path(&format!("{name}.qmp")).exists());
        machine
    }

    /// The URI of such a server.
    pub(crate) fn uri(&self, name: &str) -> String {
        format!("nbd+unix:///?socket={}", self.text(&format!("{name}.sock")))
    }
}

/// The arguments of `oma --json replicate` of this world's VM.
pub(crate) fn replicate_args<'a>(args: &[&'a str]) -> Vec<&'a str> {
    ["--json", "replicate", "--vm-path", VM].iter().chain(args).copied().collect()
}

/// A server of somebody else. Dropped, it is killed.
#[derive(Debug)]
pub(crate) struct Server {
    child: Child,
}

impl Server {
    /// Ends it as an operator would; what it has to write is written when this returns.
    pub(crate) async fn stop(mut self) {
        signal(&self.child, "TERM").await;
        tokio::time::timeout(LIMIT, self.child.wait()).await.expect("a server ends").unwrap();
    }

    /// Ends it at once.
    pub(crate) async fn kill(mut self) {
        self.child.kill().await.unwrap();
    }
}

/// Sends a signal.
pub(crate) async fn signal(child: &Child, name: &str) {
    let pid = child.id().expect("it runs").to_string();
    let status = Command::new("kill").args(["-s", name, &pid]).status().await.unwrap();
    assert!(status.success());
}

/// Waits for a program to end.
pub(crate) async fn finish(child: Child) -> Ran {
    let output = tokio::time::timeout(3 * LIMIT, child.wait_with_output()).await;
    let output = output.expect("a program ends").unwrap();
    Ran {
        code: output.status.code().unwrap_or(-1),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

/// Waits until something outside of this process is so: a file, a row of the database. The condition may await.
macro_rules! until {
    ($what:expr, $condition:expr) => {{
        let deadline = std::time::Instant::now() + crate::world::LIMIT;
        while !$condition {
            assert!(std::time::Instant::now() < deadline, "waited too long until {}", $what);
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    }};
}
pub(crate) use until;

/// Two files have the same bytes.
pub(crate) fn assert_same(one: &Path, other: &Path) {
    let (left, right) = (fs::read(one).unwrap(), fs::read(other).unwrap());
    assert_eq!(left.len(), right.len());
    let differs = left.chunks(4096).zip(right.chunks(4096)).position(|(left, right)| left != right);
    assert_eq!(differs, None, "first block of 4 KiB that differs");
}

/// A number of a JSON object.
pub(crate) fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_else(|| panic!("{value} is not a number"))
}
