//! The machine: Debian's kernel, an initramfs with this program, and disks with serials.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use oma_core::conformance::Requirement;
use serde_json::{Value, json};

use crate::disks::{GROWN, GROWS, HOT, SIZE, TWIN, VIRTIO};
use crate::initramfs::{Initramfs, Kernel, run};

/// Set in the environment of the program in the machine.
pub(crate) const IN_GUEST: &str = "OMA_TEST_GUEST";
/// Seconds from the start of the machine to its end, without acceleration on a busy host.
const LIMIT: &str = "110";

/// In the order in which they are loaded.
const MODULES: &[&str] = &[
    "virtio_ring",
    "virtio",
    "virtio_pci_modern_dev",
    "virtio_pci_legacy_dev",
    "virtio_pci",
    "virtio_blk",
    "scsi_common",
    "scsi_mod",
    "sd_mod",
    "virtio_scsi",
    "loop",
];

/// Disks that are there from the start: node, driver, volume.
const DISKS: [(&str, &str, &str); 4] = [
    ("first", "virtio-blk-pci", VIRTIO),
    ("grows", "scsi-hd", GROWS),
    ("twin-one", "virtio-blk-pci", TWIN),
    ("twin-two", "scsi-hd", TWIN),
];

/// What the machine said.
#[derive(Debug)]
pub(crate) struct Report {
    outcomes: BTreeMap<String, Result<(), String>>,
    console: String,
}

impl Report {
    pub(crate) fn of(&self, name: &str) -> Result<(), String> {
        let missing = || Err(format!("the machine did not come so far:\n{}", self.console));
        self.outcomes.get(name).cloned().unwrap_or_else(missing)
    }
}

pub(crate) fn needs() -> Vec<Requirement> {
    let programs = ["qemu-system-x86_64", "timeout", "cpio", "busybox", "strip"].map(Requirement::Program);
    programs.into_iter().chain([Kernel::requirement()]).collect()
}

/// Runs this program in the machine until it ends, and does what it asks for.
pub(crate) fn boot() -> Report {
    let folder = tempfile::tempdir().unwrap();
    let mut qemu = qemu(folder.path()).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let (mut input, output) = (qemu.stdin.take().unwrap(), qemu.stdout.take().unwrap());
    let (mut outcomes, mut console, mut monitor) = (BTreeMap::new(), String::new(), None);
    for line in BufReader::new(output).split(b'\n') {
        let line = String::from_utf8_lossy(&line.unwrap()).into_owned();
        if let Some((_, errand)) = line.trim_end().split_once("ask ") {
            let monitor = monitor.get_or_insert_with(|| Monitor::connect(&folder.path().join("qmp")));
            // An answer that is an error is told by the case that then waits in vain.
            console += &format!("{errand}: {:?}\n", serve(monitor, errand));
            input.write_all(b"done\n").unwrap();
        }
        outcomes.extend(outcome(&line));
        console += &line;
        console.push('\n');
    }
    qemu.wait().unwrap();
    Report { outcomes, console }
}

fn qemu(folder: &Path) -> Command {
    let kernel = Kernel::find().unwrap();
    let image = image(&kernel, folder);
    let mut qemu = Command::new("timeout");
    qemu.arg(LIMIT).arg("qemu-system-x86_64").current_dir(folder);
    // Not KVM: within a machine of its own the host may lack what qemu insists on.
    qemu.args(["-M", "pc", "-accel", "tcg", "-cpu", "max", "-smp", "2", "-m", "768", "-nodefaults"]);
    qemu.args(["-no-reboot", "-display", "none", "-serial", "stdio", "-qmp", "unix:qmp,server=on,wait=off"]);
    qemu.args(["-append", "console=ttyS0 quiet no_timer_check panic=-1 rdinit=/init"]);
    qemu.arg("-kernel").arg(&kernel.image).arg("-initrd").arg(image);
    qemu.args(["-device", "virtio-scsi-pci,id=scsi"]);
    for (node, driver, volume) in DISKS {
        let device = format!("{driver},drive={node},serial={}", serial(volume));
        qemu.arg("-blockdev").arg(disk(folder, node)).arg("-device").arg(device);
    }
    for (node, _) in HOT {
        qemu.arg("-blockdev").arg(disk(folder, node));
    }
    qemu
}

fn disk(folder: &Path, node: &str) -> String {
    File::create(folder.join(node)).unwrap().set_len(SIZE.bytes()).unwrap();
    format!("raw,node-name={node},file.driver=file,file.filename={node}")
}

/// As CloudStack has libvirt give it, and not by the code under test.
fn serial(volume: &str) -> String {
    volume.replace('-', "")[..20].to_owned()
}

fn image(kernel: &Kernel, folder: &Path) -> PathBuf {
    let image = Initramfs::new(folder);
    let test = image.path("test");
    // Without what only a debugger reads: it is carried to the machine at each boot.
    let this = std::env::current_exe().unwrap();
    run(Command::new("strip").arg("--strip-debug").arg("-o").arg(&test).arg(this));
    image.bring_libraries(&test);
    let script = format!("{IN_GUEST}=1 RUST_BACKTRACE=0 /test\necho \"test program: $?\"\npoweroff -f\n");
    image.pack(kernel, MODULES, &script)
}

/// Does what the guest asks of its cloud.
fn serve(monitor: &mut Monitor, errand: &str) -> Value {
    let (verb, node) = errand.split_once(' ').unwrap_or((errand, ""));
    let volume = HOT.iter().find(|(name, _)| *name == node).map_or("", |(_, volume)| volume);
    match verb {
        "plug" => {
            let mut device = json!({ "driver": "virtio-blk-pci", "id": node, "drive": node });
            if node.starts_with("scsi") {
                device["driver"] = "scsi-hd".into();
                device["bus"] = "scsi.0".into();
            }
            device["serial"] = serial(volume).into();
            monitor.ask("device_add", &device)
        }
        "unplug" => monitor.ask("device_del", &json!({ "id": node })),
        "grow" => monitor.ask("block_resize", &json!({ "node-name": node, "size": GROWN.bytes() })),
        _ => Value::from("what?"),
    }
}

/// QEMU's monitor.
struct Monitor {
    stream: BufReader<UnixStream>,
}

impl Monitor {
    fn connect(path: &Path) -> Self {
        let mut monitor = Self { stream: BufReader::new(UnixStream::connect(path).unwrap()) };
        monitor.ask("qmp_capabilities", &json!({}));
        monitor
    }

    /// What it answers; what it tells besides is left out.
    fn ask(&mut self, command: &str, arguments: &Value) -> Value {
        let request = json!({ "execute": command, "arguments": arguments }).to_string();
        self.stream.get_mut().write_all(request.as_bytes()).unwrap();
        loop {
            let mut line = String::new();
            assert!(self.stream.read_line(&mut line).unwrap() > 0, "QEMU is gone");
            let said: Value = serde_json::from_str(&line).unwrap();
            if said.get("return").or(said.get("error")).is_some() {
                return said;
            }
        }
    }
}

/// `case NAME ok` or `case NAME failed: TEXT`.
fn outcome(line: &str) -> Option<(String, Result<(), String>)> {
    // The kernel may have written to the console just before.
    let (_, told) = line.trim_end().split_once("case ")?;
    let (name, said) = told.split_once(' ')?;
    match said.strip_prefix("failed: ") {
        Some(text) => Some((name.to_owned(), Err(text.replace("\\n", "\n")))),
        None => (said == "ok").then(|| (name.to_owned(), Ok(()))),
    }
}
