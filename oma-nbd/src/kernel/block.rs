//! What the kernel tells of its NBD devices, and their nodes. All calls block.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags, open};
use rustix::io::Errno;

use super::error::Failure;
use super::identity::Identity;

const BLOCK: &str = "/sys/block";

/// The node of a device.
pub(super) fn node(index: u32) -> PathBuf {
    PathBuf::from(format!("/dev/nbd{index}"))
}

/// All NBD devices that somebody attached under a name of ours.
pub(super) fn ours() -> Result<Vec<(u32, Identity)>, Failure> {
    let folder = Path::new(BLOCK);
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).map_err(on(folder))? {
        let name = entry.map_err(on(folder))?.file_name();
        let Some(index) = name.to_str().and_then(|name| name.strip_prefix("nbd")?.parse().ok()) else {
            continue;
        };
        if let Some(identity) = identity(index)? {
            found.push((index, identity));
        }
    }
    found.sort_by_key(|(index, _)| *index);
    Ok(found)
}

/// Who is attached there, if it is one of ours.
pub(super) fn identity(index: u32) -> Result<Option<Identity>, Failure> {
    // A device that nobody uses has no process. Its last name may still be there.
    if read(index, "pid")?.is_none() {
        return Ok(None);
    }
    Ok(read(index, "backend")?.as_deref().and_then(Identity::parse))
}

/// Bytes of the device.
pub(super) fn size(index: u32) -> Result<Option<u64>, Failure> {
    let sectors: Option<u64> = read(index, "size")?.and_then(|text| text.parse().ok());
    Ok(sectors.map(|sectors| sectors * 512))
}

fn read(index: u32, attribute: &str) -> Result<Option<String>, Failure> {
    let path = PathBuf::from(format!("{BLOCK}/nbd{index}/{attribute}"));
    match fs::read_to_string(&path) {
        Ok(text) => Ok(Some(text.trim_end().to_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(on(&path)(error)),
    }
}

/// Brings everything that was written to the device to where it belongs, and has that flushed.
pub(super) fn flush(index: u32) -> Result<(), Failure> {
    let path = node(index);
    File::open(&path).and_then(|file| file.sync_all()).map_err(on(&path))
}

/// Whether a file system or another block device has it for itself.
pub(super) fn is_held(index: u32) -> Result<bool, Failure> {
    let path = node(index);
    // EXCL without CREATE: fails for a block device that is in use.
    match open(&path, OFlags::RDONLY | OFlags::EXCL | OFlags::CLOEXEC, Mode::empty()) {
        Ok(_) => Ok(false),
        Err(Errno::BUSY) => Ok(true),
        Err(error) => Err(on(&path)(error.into())),
    }
}

/// Whether requests on the device are under way.
pub(super) fn is_busy(index: u32) -> Result<bool, Failure> {
    let counts = read(index, "inflight")?.unwrap_or_default();
    Ok(counts.split_whitespace().any(|count| count != "0"))
}

fn on(path: &Path) -> impl FnOnce(io::Error) -> Failure + use<> {
    let path = path.to_owned();
    move |source| Failure::Io { path, source }
}
