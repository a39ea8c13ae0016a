//! A small machine: Debian's kernel, an initramfs, and this test program in it.
//!
//! Any test program can run a part of itself there: when [`IN_GUEST`] is set it is in the machine, and each line `case NAME ok` or
//! `case NAME failed: TEXT` on its standard output is an outcome. Another test includes this file and names its modules, e.g. `tls` for
//! TLS in the kernel.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use oma_core::conformance::Requirement;

use self::initramfs::{Initramfs, Kernel, run};

#[path = "initramfs.rs"]
mod initramfs;

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

impl Machine {
    pub(crate) fn needs(&self) -> Vec<Requirement> {
        let kernel = Kernel::requirement();
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
        qemu.arg("-kernel").arg(&kernel.image).arg("-initrd").arg(image).stdin(Stdio::null());
        let output = qemu.output().unwrap();
        let console = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        let outcomes = console.lines().filter_map(outcome).collect();
        Report { outcomes, console }
    }

    fn image(&self, kernel: &Kernel, folder: &Path) -> PathBuf {
        let image = Initramfs::new(folder);
        let test = image.path("test");
        // Without what only a debugger reads: it is carried to the machine at each boot.
        run(Command::new("strip")
            .arg("--strip-debug")
            .arg("-o")
            .arg(&test)
            .arg(std::env::current_exe().unwrap()));
        image.bring_libraries(&test);
        self.programs.iter().for_each(|program| image.bring(program));
        let script = format!("{IN_GUEST}=1 RUST_BACKTRACE=0 /test\necho \"test program: $?\"\npoweroff -f\n");
        image.pack(kernel, self.modules, &script)
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
