//! Files that are there whole or not at all, for their owner only.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;

use crate::folder;

/// Writes a file in place of the one that may be there.
pub(super) fn write(path: &Path, text: &str) -> io::Result<()> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".new");
    let beside = Path::new(&beside);
    // What a killed process left there; nothing is written through it.
    unless_missing(fs::remove_file(beside))?;
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(beside)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(beside, path)?;
    folder::sync(path)
}

/// Makes a folder with these files, whole or not at all.
pub(super) fn make(path: &Path, files: &[(&str, &str)]) -> io::Result<()> {
    let beside = path.with_extension("new");
    unless_missing(fs::remove_dir_all(&beside))?;
    DirBuilder::new().mode(0o700).create(&beside)?;
    for (name, text) in files {
        write(&beside.join(name), text)?;
    }
    File::open(&beside)?.sync_all()?;
    fs::rename(&beside, path)?;
    folder::sync(path)
}

/// That nothing is there is as good.
fn unless_missing(removed: io::Result<()>) -> io::Result<()> {
    match removed {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}
