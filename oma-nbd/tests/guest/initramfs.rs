//! An initramfs for a small machine: busybox, some programs with their libraries, modules of the kernel, a script.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use oma_core::conformance::Requirement;

/// A kernel with its modules, as the package `linux-image-cloud-amd64` has them, unpacked into `target/guest` or the folder that
/// `OMA_TEST_KERNEL` names.
#[derive(Debug)]
pub(crate) struct Kernel {
    pub(crate) image: PathBuf,
    modules: PathBuf,
}

impl Kernel {
    pub(crate) fn find() -> Option<Self> {
        let default = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/guest");
        let root = std::env::var_os("OMA_TEST_KERNEL").map_or_else(default, PathBuf::from);
        let image = first(&root.join("boot"), "vmlinuz-")?;
        let version = image.file_name()?.to_str()?.strip_prefix("vmlinuz-")?.to_owned();
        let modules = ["lib/modules", "usr/lib/modules"].map(|folder| root.join(folder).join(&version));
        Some(Self { image, modules: modules.into_iter().find(|folder| folder.is_dir())? })
    }

    pub(crate) fn requirement() -> Requirement {
        Requirement::Feature("a kernel for guests in target/guest", Self::find().is_some())
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

/// An initramfs that is being filled.
#[derive(Debug)]
pub(crate) struct Initramfs {
    folder: PathBuf,
}

impl Initramfs {
    /// One with busybox, made in a folder.
    pub(crate) fn new(folder: &Path) -> Self {
        let image = Self { folder: folder.to_owned() };
        for name in ["bin", "modules"] {
            fs::create_dir_all(image.path(name)).unwrap();
        }
        fs::copy(which("busybox"), image.path("bin/busybox")).unwrap();
        image
    }

    /// Where something lies in it.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.join("root").join(name)
    }

    /// Takes a program of this machine, with its libraries.
    pub(crate) fn bring(&self, program: &str) {
        let path = which(program);
        fs::copy(&path, self.path("bin").join(program)).unwrap();
        self.bring_libraries(&path);
    }

    /// Takes the libraries that a program is linked to, to where it looks for them.
    pub(crate) fn bring_libraries(&self, program: &Path) {
        let said = run(Command::new("ldd").arg(program));
        let paths = said.split_whitespace().filter(|word| word.starts_with('/'));
        for path in paths {
            let target = self.path(path.trim_start_matches('/'));
            fs::create_dir_all(target.parent().unwrap()).unwrap();
            fs::copy(path, target).unwrap();
        }
    }

    /// Ends it: what the machine does once its modules are loaded, in this order.
    pub(crate) fn pack(&self, kernel: &Kernel, modules: &[&str], script: &str) -> PathBuf {
        let mut init = String::from(INIT);
        for module in modules {
            fs::copy(kernel.module(module), self.path(&format!("modules/{module}.ko"))).unwrap();
            init += &format!("insmod /modules/{module}.ko\n");
        }
        init += script;
        let path = self.path("init");
        fs::write(&path, init).unwrap();
        run(Command::new("chmod").arg("755").arg(&path));
        let image = self.folder.join("initramfs");
        let pack = format!("find . | cpio --quiet -o -H newc > '{}'", image.display());
        run(Command::new("sh").args(["-c", &pack]).current_dir(self.path("")));
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

fn which(program: &str) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).map(|folder| folder.join(program)).find(|path| path.is_file());
    found.unwrap_or_else(|| panic!("{program} is missing"))
}

pub(crate) fn run(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}
