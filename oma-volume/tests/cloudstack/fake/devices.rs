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

/// What disks of the appliance are attached by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bus {
    /// virtio-blk.
    Virtio,
    /// virtio-scsi.
    Scsi,
}

impl Bus {
    /// How names of disks begin, their major number, the subsystem, and how links begin.
    fn words(self) -> (&'static str, u32, &'static str, &'static str) {
        match self {
            Self::Virtio => ("vd", 253, "virtio", "virtio-"),
            Self::Scsi => ("sd", 8, "scsi", "scsi-0QEMU_QEMU_HARDDISK_"),
        }
    }

    /// `vda` to `vdz`, then `vdaa`.
    fn name(self, slot: u32) -> String {
        let letter = |number: u32| char::from_u32(u32::from('a') + number % 26).expect("a letter");
        let (begin, ..) = self.words();
        match slot / 26 {
            0 => format!("{begin}{}", letter(slot)),
            tens => format!("{begin}{}{}", letter(tens - 1), letter(slot)),
        }
    }

    /// The file below the disk's folder that has the serial: of SCSI disks it is page 0x80 of their vital product data.
    fn told(self, serial: &str) -> (&'static str, Vec<u8>) {
        match self {
            Self::Virtio => ("serial", serial.as_bytes().to_vec()),
            Self::Scsi => {
                let length = u8::try_from(serial.len()).expect("20 digits");
                ("device/vpd_pg80", [&[0, 0x80, 0, length], serial.as_bytes()].concat())
            }
        }
    }
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
    /// No byte in it. Of a file, not of a loop device.
    Empty,
}

/// `root/sys`, `root/dev` and `root/proc` of one machine. The content of volumes is in a folder beside it and survives a detach.
#[derive(Debug)]
pub(crate) struct Devices {
    pub(crate) root: PathBuf,
    backing: Backing,
    bus: Bus,
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

impl Devices {
    pub(crate) fn new(root: PathBuf, backing: Backing, bus: Bus) -> Self {
        for folder in ["sys/block", "dev/disk/by-id", "proc/self"] {
            fs::create_dir_all(root.join(folder)).unwrap();
        }
        // The machine runs from its first disk.
        let ((_, major, ..), first) = (bus.words(), bus.name(0));
        let mounts = format!("22 1 {major}:0 / / rw,relatime - ext4 /dev/{first} rw\n");
        fs::write(root.join("proc/self/mountinfo"), mounts).unwrap();
        fs::write(root.join("proc/swaps"), "Filename Type Size Used Priority\n").unwrap();
        Self { root, backing, bus, seen: BTreeMap::new(), appeared: 0 }
    }

    /// The name of a volume's device, such as `vdb`.
    pub(crate) fn name(&self, volume: Uuid) -> Option<String> {
        self.seen.get(&volume).map(|device| self.bus.name(device.slot))
    }

    /// A volume appears under the lowest free letter, whatever number the cloud gave it, as a kernel that probes does it. The link
    /// comes last.
    pub(crate) fn add(&mut self, volume: Uuid, image: &Path, bytes: u64, wrong: Option<Wrong>) {
        if wrong == Some(Wrong::Missing) || self.seen.contains_key(&volume) {
            return;
        }
        let taken = |slot: &u32| self.seen.values().any(|device| device.slot == *slot);
        let slot = (0..).find(|slot| !taken(slot)).expect("numbers do not end");
        let name = self.bus.name(slot);
        let looped = match wrong {
            Some(Wrong::Empty) => {
                fs::write(self.root.join("dev").join(&name), "").unwrap();
                None
            }
            _ => self.place(&name, image),
        };
        let serial = match wrong {
            Some(Wrong::Serial) => serial(Uuid::new_v4()),
            _ => serial(volume),
        };
        let bytes = match wrong {
            Some(Wrong::Size) => bytes / 2,
            Some(Wrong::Empty) => 0,
            _ => bytes,
        };
        self.appeared += 1;
        let (_, major, subsystem, link) = self.bus.words();
        let number = looped.as_deref().map_or_else(|| format!("{major}:{}\n", slot * 16), number);
        let facts = [
            self.bus.told(&serial),
            ("size", format!("{}\n", bytes / 512).into()),
            ("dev", number.into()),
            ("diskseq", format!("{}\n", self.appeared).into()),
            ("ro", format!("{}\n", u8::from(wrong == Some(Wrong::ReadOnly))).into()),
        ];
        // It appears at once, as in sysfs, not file by file.
        let made = self.root.join("made");
        fs::create_dir_all(made.join("device")).unwrap();
        symlink(format!("../../../../bus/{subsystem}"), made.join("device/subsystem")).unwrap();
        for (file, content) in facts {
            fs::write(made.join(file), content).unwrap();
        }
        fs::rename(made, self.root.join("sys/block").join(&name)).unwrap();
        let link = self.root.join("dev/disk/by-id").join(format!("{link}{serial}"));
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
        let size = self.root.join("sys/block").join(self.bus.name(device.slot)).join("size");
        fs::write(size, format!("{}\n", bytes / 512)).unwrap();
        if let Some(looped) = &device.looped {
            let done = Command::new("losetup").args(["--set-capacity", looped]).status().unwrap();
            assert!(done.success(), "losetup --set-capacity {looped}");
        }
    }

    /// A volume's device goes away, the link first.
    pub(crate) fn remove(&mut self, volume: Uuid) {
        let Some(device) = self.seen.remove(&volume) else { return };
        let name = self.bus.name(device.slot);
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
