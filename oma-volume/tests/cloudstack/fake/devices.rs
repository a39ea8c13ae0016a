//! The devices that an appliance sees: a private tree of `/sys` and `/dev`.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use uuid::Uuid;

/// What stands behind `dev/vdX`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Backing {
    /// A sparse file.
    File,
    /// A loop device on a sparse file; needs the right to make one.
    Loop,
}

/// What is wrong with a device that appears.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wrong {
    /// The serial of another volume.
    Serial,
    /// Half the size.
    Size,
    /// The attach succeeds and nothing appears.
    Missing,
    /// Read-only.
    ReadOnly,
}

/// The machine runs from its first disk.
const MOUNTS: &str = "22 1 253:0 / / rw,relatime - ext4 /dev/vda rw\n";

/// `root/sys`, `root/dev` and `root/proc` of one machine. The content of volumes is in a folder beside it and survives a detach.
#[derive(Debug)]
pub(crate) struct Devices {
    pub(crate) root: PathBuf,
    backing: Backing,
    seen: BTreeMap<Uuid, Device>,
    /// How many have appeared so far.
    appeared: u32,
}

#[derive(Debug)]
struct Device {
    slot: u32,
    link: PathBuf,
    looped: Option<String>,
}

/// The first 20 hexadecimal digits of the volume's id.
pub(crate) fn serial(volume: Uuid) -> String {
    volume.simple().to_string()[..20].to_owned()
}

/// `vda` to `vdz`, then `vdaa`.
fn name(slot: u32) -> String {
    let letter = |number: u32| char::from_u32(u32::from('a') + number % 26).expect("a letter");
    match slot / 26 {
        0 => format!("vd{}", letter(slot)),
        tens => format!("vd{}{}", letter(tens - 1), letter(slot)),
    }
}

impl Devices {
    pub(crate) fn new(root: PathBuf, backing: Backing) -> Self {
        for folder in ["sys/block", "dev/disk/by-id", "proc/self"] {
            fs::create_dir_all(root.join(folder)).unwrap();
        }
        fs::write(root.join("proc/self/mountinfo"), MOUNTS).unwrap();
        fs::write(root.join("proc/swaps"), "Filename Type Size Used Priority\n").unwrap();
        Self { root, backing, seen: BTreeMap::new(), appeared: 0 }
    }

    /// The name of a volume's device, such as `vdb`.
    pub(crate) fn name(&self, volume: Uuid) -> Option<String> {
        self.seen.get(&volume).map(|device| name(device.slot))
    }

    /// A volume appears under the lowest free letter, whatever number the cloud gave it, as a kernel that probes does it. The link
    /// comes last.
    pub(crate) fn add(&mut self, volume: Uuid, image: &Path, bytes: u64, wrong: Option<Wrong>) {
        if wrong == Some(Wrong::Missing) || self.seen.contains_key(&volume) {
            return;
        }
        let taken = |slot: &u32| self.seen.values().any(|device| device.slot == *slot);
        let slot = (0..).find(|slot| !taken(slot)).expect("numbers do not end");
        let name = name(slot);
        let looped = self.place(&name, image);
        let serial = match wrong {
            Some(Wrong::Serial) => serial(Uuid::new_v4()),
            _ => serial(volume),
        };
        let bytes = if wrong == Some(Wrong::Size) { bytes / 2 } else { bytes };
        self.appeared += 1;
        let number = looped.as_deref().map_or_else(|| format!("253:{}\n", slot * 16), number);
        let facts = [
            ("serial", serial.clone()),
            ("size", format!("{}\n", bytes / 512)),
            ("dev", number),
            ("diskseq", format!("{}\n", self.appeared)),
            ("ro", format!("{}\n", u8::from(wrong == Some(Wrong::ReadOnly)))),
        ];
        // It appears at once, as in sysfs, not file by file.
        let made = self.root.join("made");
        fs::create_dir_all(made.join("device")).unwrap();
        symlink("../../../../bus/virtio", made.join("device/subsystem")).unwrap();
        for (file, content) in facts {
            fs::write(made.join(file), content).unwrap();
        }
        fs::rename(made, self.root.join("sys/block").join(&name)).unwrap();
        let link = self.root.join("dev/disk/by-id").join(format!("virtio-{serial}"));
        // Two volumes may share a serial: the last one has the link.
        let _ = fs::remove_file(&link);
        symlink(format!("../../{name}"), &link).unwrap();
        self.seen.insert(volume, Device { slot, link, looped });
    }

    fn place(&self, name: &str, image: &Path) -> Option<String> {
        let path = self.root.join("dev").join(name);
        if self.backing == Backing::File {
            fs::hard_link(image, path).unwrap();
            return None;
        }
        let made = Command::new("losetup").args(["--find", "--show"]).arg(image).output().unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let device = String::from_utf8(made.stdout).unwrap().trim().to_owned();
        symlink(&device, path).unwrap();
        Some(device)
    }

    /// A volume's device has another size.
    pub(crate) fn resized(&mut self, volume: Uuid, bytes: u64) {
        let Some(device) = self.seen.get(&volume) else { return };
        let size = self.root.join("sys/block").join(name(device.slot)).join("size");
        fs::write(size, format!("{}\n", bytes / 512)).unwrap();
        if let Some(looped) = &device.looped {
            let done = Command::new("losetup").args(["--set-capacity", looped]).status().unwrap();
            assert!(done.success(), "losetup --set-capacity {looped}");
        }
    }

    /// A volume's device goes away, the link first.
    pub(crate) fn remove(&mut self, volume: Uuid) {
        let Some(device) = self.seen.remove(&volume) else { return };
        let name = name(device.slot);
        let gone = self.root.join("gone");
        let _ = fs::remove_file(&device.link);
        let _ = fs::rename(self.root.join("sys/block").join(&name), &gone);
        let _ = fs::remove_dir_all(gone);
        let _ = fs::remove_file(self.root.join("dev").join(&name));
        if let Some(looped) = device.looped {
            let _ = Command::new("losetup").args(["--detach", &looped]).status();
        }
    }
}

impl Drop for Devices {
    fn drop(&mut self) {
        let volumes: Vec<_> = self.seen.keys().copied().collect();
        volumes.into_iter().for_each(|volume| self.remove(volume));
    }
}

/// Major and minor of a loop device.
fn number(looped: &str) -> String {
    fs::read_to_string(Path::new("/sys/block").join(looped.trim_start_matches("/dev/")).join("dev")).unwrap()
}

/// A sparse file of a volume's content, made or made larger.
pub(crate) fn image(path: &Path, bytes: u64) {
    let file = fs::OpenOptions::new().create(true).truncate(false).write(true).open(path).unwrap();
    file.set_len(bytes).unwrap();
}

/// A copy that keeps the holes.
pub(crate) fn copy(from: &Path, to: &Path) {
    let done = Command::new("cp").arg("--sparse=always").arg(from).arg(to).status().unwrap();
    assert!(done.success(), "cp {} {}", from.display(), to.display());
}

/// The content of one file becomes another's, which stays the same file: what has it open sees the change.
pub(crate) fn overwrite(from: &Path, to: &Path) {
    let bytes = fs::metadata(to).unwrap().len();
    fs::OpenOptions::new().write(true).open(to).unwrap().set_len(0).unwrap();
    copy(from, to);
    image(to, bytes);
}
