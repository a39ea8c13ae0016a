//! What the kernel tells of disks: `/sys/block`. All calls block.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use oma_core::ByteSize;
use rustix::io::Errno;

use super::Serial;
use super::error::DiscoveryError;
use super::found::{Bus, Number};

type Result<T, E = DiscoveryError> = std::result::Result<T, E>;

/// How udev names the links to disks of QEMU before the serial; its versions differ in the names of SCSI disks.
const LINKS: [&str; 5] =
    ["virtio-", "scsi-0QEMU_QEMU_HARDDISK_", "scsi-SQEMU_QEMU_HARDDISK_", "scsi-", "ata-QEMU_HARDDISK_"];
/// `size` in sysfs counts sectors of this, whatever the disk's own are.
const SECTOR: u64 = 512;
/// The page of vital product data that holds the serial (SPC-4, 7.8.14).
const SERIAL_PAGE: u8 = 0x80;

/// All disks of a tree at one moment.
#[derive(Debug)]
pub(super) struct Disks {
    all: Vec<Disk>,
}

/// A whole disk.
#[derive(Debug)]
pub(super) struct Disk {
    /// The kernel's name.
    pub(super) name: String,
    /// Where its node is.
    pub(super) path: PathBuf,
    pub(super) number: Number,
    pub(super) sequence: Option<u64>,
    pub(super) size: ByteSize,
    pub(super) is_read_only: bool,
    pub(super) bus: Bus,
    /// Whether it can be asked for its serial.
    pub(super) tells: bool,
    /// `Ok(None)` is a disk that has none, or that was not asked yet.
    pub(super) serial: io::Result<Option<String>>,
    /// Of one that hangs, the serial that it told before.
    pub(super) last: Option<String>,
    pub(super) partitions: Vec<(String, Number)>,
    /// What is made of it or of its partitions: names of devices.
    holders: BTreeSet<String>,
    /// What it is made of: names of disks and partitions.
    slaves: BTreeSet<String>,
}

impl Disks {
    /// All but their serials: what the kernel tells without asking a disk.
    pub(super) fn look(root: &Path) -> Result<Self> {
        let folder = root.join("sys/block");
        let file = |source| DiscoveryError::File { path: folder.clone(), source };
        let mut all = Vec::new();
        for name in names(&folder).map_err(file)? {
            // One that goes while it is looked at is gone.
            if let Some(disk) = Disk::look(root, &folder.join(&name), name)? {
                all.push(disk);
            }
        }
        Ok(Self { all })
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Disk> {
        self.all.iter_mut()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Disk> {
        self.all.iter()
    }

    /// Those with this serial. A link is asked only about disks that do not tell theirs: links are made late, and left behind.
    pub(super) fn bearing(&self, root: &Path, serial: &Serial) -> Vec<&Disk> {
        let linked = linked(root, serial);
        let bears = |disk: &&Disk| match &disk.serial {
            Ok(Some(told)) => serial.is(told),
            Ok(None) => linked.contains(&disk.name),
            Err(_) => false,
        };
        let (links, bearing): (_, Vec<_>) = (&linked, self.all.iter().filter(bears).collect());
        for stale in links.iter().filter(|name| bearing.iter().all(|disk| disk.name != **name)) {
            tracing::warn!(%serial, disk = stale, "a link in /dev/disk/by-id names a disk with another serial");
        }
        bearing
    }

    /// Names of the disks that a device is made of, down to the last.
    pub(super) fn below(&self, number: Number) -> BTreeSet<&str> {
        let mut found = BTreeSet::new();
        let mut open: Vec<&Disk> = self.all.iter().filter(|disk| disk.has(number)).collect();
        while let Some(disk) = open.pop() {
            if found.insert(disk.name.as_str()) {
                open.extend(self.all.iter().filter(|other| self.is_made_of(disk, other)));
            }
        }
        found
    }

    /// What is made of a disk, and of that, and so on.
    pub(super) fn above(&self, disk: &Disk) -> Vec<&Disk> {
        let mut found: Vec<&Disk> = Vec::new();
        let mut open = vec![disk];
        while let Some(disk) = open.pop() {
            for other in self.all.iter().filter(|other| self.is_made_of(other, disk)) {
                if found.iter().all(|known| known.name != other.name) {
                    found.push(other);
                    open.push(other);
                }
            }
        }
        found
    }

    /// Either end tells it.
    fn is_made_of(&self, upper: &Disk, lower: &Disk) -> bool {
        lower.holders.contains(&upper.name) || lower.names().any(|name| upper.slaves.contains(name))
    }

    /// What there is, for a person who looks for a disk in vain.
    pub(super) fn seen(&self) -> String {
        let told = |disk: &Disk| match &disk.serial {
            Ok(None) => None,
            Ok(Some(serial)) => Some(format!("{} ({serial:?}, {} bytes)", disk.name, disk.size.bytes())),
            Err(error) => Some(format!("{} (its serial cannot be read: {error})", disk.name)),
        };
        let seen: Vec<_> = self.all.iter().filter_map(told).collect();
        let silent = self.all.len() - seen.len();
        let seen = if seen.is_empty() { "no disk with a serial".to_owned() } else { seen.join(", ") };
        format!("{seen}, and {silent} without")
    }
}

impl Disk {
    fn look(root: &Path, folder: &Path, name: String) -> Result<Option<Self>> {
        let file = |source| DiscoveryError::File { path: folder.to_owned(), source };
        // An empty file is one that somebody who builds a tree has just begun.
        let told = |name: &str| {
            text(&folder.join(name)).map(|text| text.filter(|text| !text.is_empty())).map_err(file)
        };
        let (Some(number), Some(sectors)) = (told("dev")?, told("size")?) else { return Ok(None) };
        let garbled = || file(io::Error::new(io::ErrorKind::InvalidData, "it has no number or no size"));
        let number = Number::parse(&number).ok_or_else(garbled)?;
        let bytes = sectors.parse().ok().and_then(|sectors: u64| sectors.checked_mul(SECTOR));
        let mut disk = Self {
            // In sysfs a slash is written as an exclamation mark.
            path: root.join("dev").join(name.replace('!', "/")),
            number,
            sequence: sequence_at(folder).map_err(file)?,
            size: ByteSize::new(bytes.ok_or_else(garbled)?),
            is_read_only: told("ro")?.is_some_and(|told| told != "0"),
            bus: bus(folder),
            tells: tells(folder),
            serial: Ok(None),
            last: None,
            partitions: Vec::new(),
            holders: inside(&folder.join("holders")).map_err(file)?,
            slaves: slaves(folder).map_err(file)?,
            name,
        };
        for part in inside(folder).map_err(file)? {
            let inner = folder.join(&part);
            if text(&inner.join("partition")).map_err(file)?.is_none() {
                continue;
            }
            let Some(number) = text(&inner.join("dev")).map_err(file)? else { continue };
            disk.holders.extend(inside(&inner.join("holders")).map_err(file)?);
            disk.partitions.push((part, Number::parse(&number).ok_or_else(garbled)?));
        }
        Ok(Some(disk))
    }

    /// The disk and its partitions.
    pub(super) fn devices(&self) -> impl Iterator<Item = (&str, Number)> {
        let parts = self.partitions.iter().map(|(name, number)| (name.as_str(), *number));
        std::iter::once((self.name.as_str(), self.number)).chain(parts)
    }

    /// Whether it may bear this serial all the same, when its own cannot be read.
    pub(super) fn may_bear(&self, serial: &Serial) -> bool {
        self.serial.is_err() && self.last.as_deref().is_none_or(|last| serial.is(last))
    }

    /// Whether it hangs, and told this serial before.
    pub(super) fn bore(&self, serial: &Serial) -> bool {
        self.serial.is_err() && self.last.as_deref().is_some_and(|last| serial.is(last))
    }

    fn names(&self) -> impl Iterator<Item = &str> {
        self.devices().map(|(name, _)| name)
    }

    fn has(&self, number: Number) -> bool {
        self.devices().any(|(_, own)| own == number)
    }
}

/// Disks that links name for a serial.
fn linked(root: &Path, serial: &Serial) -> BTreeSet<String> {
    let folder = root.join("dev/disk/by-id");
    let target = |prefix| fs::read_link(folder.join(format!("{prefix}{serial}"))).ok();
    let name = |target: PathBuf| target.file_name().and_then(OsStr::to_str).map(str::to_owned);
    LINKS.iter().filter_map(target).filter_map(name).collect()
}

/// Files that a disk tells its serial in: virtio-blk in one of its own, SCSI in a page of vital product data, which the kernel keeps.
const TELLS: [&str; 2] = ["serial", "device/vpd_pg80"];

/// One that is not there now may be in a moment: then it is looked at again.
fn tells(folder: &Path) -> bool {
    TELLS.iter().any(|file| fs::symlink_metadata(folder.join(file)).is_ok())
}

/// The kernel's count of disks, where it keeps one.
pub(super) fn sequence_at(folder: &Path) -> io::Result<Option<u64>> {
    Ok(text(&folder.join("diskseq"))?.and_then(|count| count.parse().ok()))
}

/// Asks the disk, which may take its time.
pub(super) fn serial_at(folder: &Path) -> io::Result<Option<String>> {
    if let Some(told) = text(&folder.join(TELLS[0]))? {
        return Ok(Some(told).filter(|told| !told.is_empty()));
    }
    let Some(page) = read(&folder.join(TELLS[1]))? else { return Ok(None) };
    let [_, SERIAL_PAGE, high, low, told @ ..] = &page[..] else { return Err(garbled_page()) };
    let length = usize::from(u16::from_be_bytes([*high, *low]));
    // No text, or not all of what it announces: the disk has a serial, which is none of ours, those are twenty digits.
    let told = match told.get(..length) {
        Some(told) => trimmed(&String::from_utf8_lossy(told)),
        None => format!("{}…", trimmed(&String::from_utf8_lossy(told))),
    };
    Ok(Some(told).filter(|told| !told.is_empty()))
}

/// A loop device may be made of another device, and then tells only its path.
fn slaves(folder: &Path) -> io::Result<BTreeSet<String>> {
    let mut slaves = inside(&folder.join("slaves"))?;
    let backing = text(&folder.join("loop/backing_file"))?;
    slaves.extend(backing.and_then(|path| path.strip_prefix("/dev/").map(str::to_owned)));
    Ok(slaves)
}

fn garbled_page() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "its page 0x80 of vital product data is garbled")
}

fn bus(folder: &Path) -> Bus {
    let subsystem = fs::read_link(folder.join("device/subsystem")).unwrap_or_default();
    match subsystem.file_name().and_then(OsStr::to_str) {
        Some("virtio") => Bus::Virtio,
        Some("scsi") => match text(&folder.join("device/vendor")) {
            Ok(Some(vendor)) if vendor == "ATA" => Bus::Ata,
            _ => Bus::Scsi,
        },
        _ => Bus::Other,
    }
}

/// What is in a folder, sorted; nothing where the folder is gone.
fn inside(folder: &Path) -> io::Result<BTreeSet<String>> {
    match names(folder) {
        Err(error) if is_gone(&error) => Ok(BTreeSet::new()),
        names => Ok(names?.into_iter().collect()),
    }
}

fn names(folder: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder)? {
        // The kernel's names are ASCII.
        names.extend(entry?.file_name().into_string().ok());
    }
    names.sort_unstable();
    Ok(names)
}

/// What a file says; `None` when it, or its device, is not there.
fn text(path: &Path) -> io::Result<Option<String>> {
    Ok(read(path)?.map(|bytes| trimmed(&String::from_utf8_lossy(&bytes))))
}

fn trimmed(text: &str) -> String {
    text.trim_matches(|letter: char| letter.is_whitespace() || letter == '\0').to_owned()
}

fn read(path: &Path) -> io::Result<Option<Vec<u8>>> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if is_gone(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

fn is_gone(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::NOENT | Errno::NOTDIR | Errno::NODEV | Errno::NXIO))
}
