//! A small machine: Debian's kernel, an initramfs, and this test program in it.
//!
//! Any test program can run a part of itself there: when [`IN_GUEST`] is set it is in the machine, and each line `case NAME ok` or
//! `case NAME failed: TEXT` on its standard output is an outcome. Another test includes this file and names its modules, e.g. `tls` for
//! TLS in the kernel.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use oma_core::conformance::Requirement;

/// Set in the environment of the program in the machine.
pub(crate) const IN_GUEST: &str = "OMA_TEST_GUEST";
/// Seconds from the start of the machine to its end, without acceleration on a busy host.
const LIMIT: &str = "170";

/// What a machine has.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Machine {
    /// Modules of the kernel, in the order in which they are loaded.
    pub modules: &'static [&'static str],
    /// Programs besides busybox.
    pub programs: &'static [&'static str],
}

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

/// A kernel with its modules, as the package `linux-image-cloud-amd64` has them, unpacked into `target/guest` or the folder that
/// `OMA_TEST_KERNEL` names.
#[derive(Debug)]
struct Kernel {
    image: PathBuf,
    modules: PathBuf,
}

impl Kernel {
    fn find() -> Option<Self> {
        let default = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/guest");
        let root = std::env::var_os("OMA_TEST_KERNEL").map_or_else(default, PathBuf::from);
        let image = first(&root.join("boot"), "vmlinuz-")?;
        let version = image.file_name()?.to_str()?.strip_prefix("vmlinuz-")?.to_owned();
        let modules = ["lib/modules", "usr/lib/modules"].map(|folder| root.join(folder).join(&version));
        Some(Self { image, modules: modules.into_iter().find(|folder| folder.is_dir())? })
    }

    fn module(&self, name: &str) -> PathBuf {
        let file = format!("{name}.ko");
        let mut folders = vec![self.modules.join("kernel")];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.file_name().is_some_and(|found| found == file.as_str()) {
                    return path;
                }
                if path.is_dir() {
                    folders.push(path);
                }
            }
        }
        panic!("the kernel has no module {name}");
    }
}

fn first(folder: &Path, prefix: &str) -> Option<PathBuf> {
    let entries = fs::read_dir(folder).ok()?.flatten().map(|entry| entry.path());
    let named = |path: &PathBuf| {
        path.file_name().and_then(|name| name.to_str()).is_some_and(|n| n.starts_with(prefix))
    };
    entries.filter(named).max()
}

impl Machine {
    pub(crate) fn needs(&self) -> Vec<Requirement> {
        let kernel = Requirement::Feature("a kernel for guests in target/guest", Kernel::find().is_some());
        let programs = ["qemu-system-x86_64", "timeout", "cpio", "busybox"].iter().chain(self.programs);
        programs.map(|name| Requirement::Program(name)).chain([kernel]).collect()
    }

    /// Runs this program in the machine until it ends.
    pub(crate) fn boot(&self) -> Report {
        let folder = tempfile::tempdir().unwrap();
        let kernel = Kernel::find().unwrap();
        let image = self.image(&kernel, folder.path());
        let mut qemu = Command::new("timeout");
        qemu.arg(LIMIT).arg("qemu-system-x86_64");
        // Not KVM: within a machine of its own the host may lack what qemu insists on.
        qemu.args(["-accel", "tcg", "-cpu", "max", "-smp", "2", "-m", "768", "-nodefaults", "-no-reboot"]);
        qemu.args(["-display", "none", "-serial", "stdio"]);
        qemu.args(["-append", "console=ttyS0 quiet panic=-1 rdinit=/init"]);
        qemu.arg("-kernel").arg(kernel.image).arg("-initrd").arg(image).stdin(Stdio::null());
        let output = qemu.output().unwrap();
        let console = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        let outcomes = console.lines().filter_map(outcome).collect();
        Report { outcomes, console }
    }

    fn image(&self, kernel: &Kernel, folder: &Path) -> PathBuf {
        let root = folder.join("root");
        for name in ["bin", "modules"] {
            fs::create_dir_all(root.join(name)).unwrap();
        }
        fs::copy(which("busybox"), root.join("bin/busybox")).unwrap();
        let test = root.join("test");
        // Without what only a debugger reads: it is carried to the machine at each boot.
        run(Command::new("strip")
            .arg("--strip-debug")
            .arg("-o")
            .arg(&test)
            .arg(std::env::current_exe().unwrap()));
        bring_libraries(&test, &root);
        for program in self.programs {
            let path = which(program);
            fs::copy(&path, root.join("bin").join(program)).unwrap();
            bring_libraries(&path, &root);
        }
        let mut init = String::from(INIT);
        for module in self.modules {
            fs::copy(kernel.module(module), root.join(format!("modules/{module}.ko"))).unwrap();
            init += &format!("insmod /modules/{module}.ko\n");
        }
        init += &format!("{IN_GUEST}=1 RUST_BACKTRACE=0 /test\necho \"test program: $?\"\npoweroff -f\n");
        let path = root.join("init");
        fs::write(&path, init).unwrap();
        run(Command::new("chmod").arg("755").arg(&path));
        let image = folder.join("initramfs");
        let pack = format!("find . | cpio --quiet -o -H newc > '{}'", image.display());
        run(Command::new("sh").args(["-c", &pack]).current_dir(root));
        image
    }
}

const INIT: &str = "#!/bin/busybox sh
/bin/busybox mkdir -p /proc /sys /dev /tmp /run /etc
/bin/busybox --install -s /bin
export PATH=/bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
mount -t tmpfs tmp /tmp
ip link set lo up
";

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

/// Copies the libraries that a program is linked to, to where it looks for them.
fn bring_libraries(program: &Path, root: &Path) {
    let said = run(Command::new("ldd").arg(program));
    let paths = said.split_whitespace().filter(|word| word.starts_with('/'));
    for path in paths {
        let target = root.join(path.trim_start_matches('/'));
        fs::create_dir_all(target.parent().unwrap()).unwrap();
        fs::copy(path, target).unwrap();
    }
}

fn which(program: &str) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).map(|folder| folder.join(program)).find(|path| path.is_file());
    found.unwrap_or_else(|| panic!("{program} is missing"))
}

fn run(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}
