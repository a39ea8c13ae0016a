//! Whether a disk is somebody's: root, mounted, swap, part of another device (L05). All calls block.

use std::fs;
use std::io;
use std::path::Path;

use super::disks::{Disk, Disks};
use super::error::DiscoveryError;
use super::found::{Node, Number};

type Result<T, E = DiscoveryError> = std::result::Result<T, E>;

/// What file systems and swap use, by device number: a path proves nothing.
#[derive(Debug)]
pub(super) struct Usage {
    mounts: Vec<Mount>,
    swaps: Vec<Device>,
}

#[derive(Debug)]
struct Mount {
    device: Device,
    place: String,
}

/// A device that a line of a table names.
#[derive(Debug, PartialEq, Eq)]
enum Device {
    Number(Number),
    /// Its node is not there to be asked.
    Name(String),
}

impl Usage {
    pub(super) fn look(root: &Path) -> Result<Self> {
        let path = root.join("proc/self/mountinfo");
        let table = table_at(&path).map_err(|source| DiscoveryError::File { path, source })?;
        let mounts = table.lines().flat_map(|line| mounts(root, line)).collect();
        let path = root.join("proc/swaps");
        let table = match table_at(&path) {
            // A kernel without swap has no table of it.
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            table => table.map_err(|source| DiscoveryError::File { path, source })?,
        };
        // A file that is swapped to is on a file system that is mounted.
        let swap = |line: &str| line.split_whitespace().next().map(|name| device(root, &unescaped(name)));
        let swaps = table.lines().skip(1).filter_map(swap).collect();
        Ok(Self { mounts, swaps })
    }

    /// Refuses a disk that anything of this machine uses.
    pub(super) fn refuse(&self, disks: &Disks, disk: &Disk) -> Result<()> {
        for root in self.mounts.iter().filter(|mount| mount.place == "/") {
            let is_below = match &root.device {
                Device::Number(number) => disks.below(*number).contains(disk.name.as_str()),
                Device::Name(name) => disk.devices().any(|(own, _)| own == name),
            };
            if is_below {
                return Err(DiscoveryError::Root(disk.name.clone()));
            }
        }
        let above = disks.above(disk);
        for disk in std::iter::once(disk).chain(above.iter().copied()) {
            for (name, number) in disk.devices() {
                let is_this = |device: &Device| device.is(name, number);
                if let Some(mount) = self.mounts.iter().find(|mount| is_this(&mount.device)) {
                    let (name, place) = (name.to_owned(), mount.place.clone());
                    return Err(DiscoveryError::Mounted { name, place });
                }
                if self.swaps.iter().any(is_this) {
                    return Err(DiscoveryError::Swap(name.to_owned()));
                }
            }
        }
        if above.is_empty() {
            return Ok(());
        }
        let by = above.iter().map(|disk| disk.name.as_str()).collect::<Vec<_>>().join(", ");
        Err(DiscoveryError::Held { name: disk.name.clone(), by })
    }
}

impl Device {
    fn is(&self, name: &str, number: Number) -> bool {
        match self {
            Self::Number(own) => *own == number,
            Self::Name(own) => own == name,
        }
    }
}

/// Places may be of any bytes; numbers and names of devices are ASCII.
fn table_at(path: &Path) -> io::Result<String> {
    Ok(String::from_utf8_lossy(&fs::read(path)?).into_owned())
}

/// The devices of a line of mountinfo (proc_pid_mountinfo(5)). Btrfs and others have numbers of their own, which start with 0, and tell
/// their device only as a path.
fn mounts(root: &Path, line: &str) -> Vec<Mount> {
    let mut fields = line.split(' ');
    let (Some(number), Some(place)) = (fields.nth(2).and_then(Number::parse), fields.nth(1)) else {
        return Vec::new();
    };
    let place = unescaped(place);
    let source = fields.skip_while(|field| *field != "-").nth(2).map(unescaped);
    let mut devices = vec![Device::Number(number)];
    devices
        .extend(source.filter(|source| number.0 == 0 && source.starts_with('/')).map(|s| device(root, &s)));
    devices.into_iter().map(|device| Mount { device, place: place.clone() }).collect()
}

/// The device at a path as a table has it.
fn device(root: &Path, path: &str) -> Device {
    let path = root.join(path.trim_start_matches('/'));
    match fs::metadata(&path).ok().as_ref().and_then(Node::of) {
        Some(Node::Block(number)) => Device::Number(number),
        _ => Device::Name(last(&path)),
    }
}

fn last(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// Space, tab, newline and backslash are written as `\040` and so on.
fn unescaped(field: &str) -> String {
    let mut parts = field.split('\\');
    let mut text = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        match part.get(..3).and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(letter) => {
                text.push(char::from(letter));
                text.push_str(&part[3..]);
            }
            None => {
                text.push('\\');
                text.push_str(part);
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(line: &str) -> Vec<(Device, String)> {
        mounts(Path::new("/nowhere"), line).into_iter().map(|mount| (mount.device, mount.place)).collect()
    }

    #[test]
    fn a_mount_is_told_by_number_and_where_that_is_made_up_by_its_source() {
        let line = "36 35 98:0 /mnt1 /mnt\\0402 rw,noatime master:1 propagate_from:2 - ext4 /dev/sda rw";
        assert_eq!(of(line), [(Device::Number(Number(98, 0)), "/mnt 2".to_owned())]);
        let line = "40 35 0:44 /@ /data rw - btrfs /dev/sdb1 rw";
        let place = || "/data".to_owned();
        assert_eq!(
            of(line),
            [(Device::Number(Number(0, 44)), place()), (Device::Name("sdb1".to_owned()), place())]
        );
        assert_eq!(of("22 27 0:21 / /proc rw - proc proc rw").len(), 1);
        for line in ["", "36 35", "36 35 98 / /mnt", "a b c d e"] {
            assert_eq!(of(line), []);
        }
    }

    #[test]
    fn escapes_are_undone_and_what_is_none_stays() {
        for (field, text) in
            [("/a\\040b\\134", "/a b\\"), ("\\", "\\"), ("\\9ä", "\\9ä"), ("\\777x", "\\777x"), ("", "")]
        {
            assert_eq!(unescaped(field), text);
        }
    }
}
