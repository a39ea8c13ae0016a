//! Files that are there whole or not at all, for their owner only.

use std::fs::{self, DirBuilder, File};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::Path;

use crate::folder;

/// What a draft's name ends with: whoever writes at the same time has another one.
const DRAFT: &str = ".new";

/// Writes a file in place of the one that may be there.
pub(super) fn write(path: &Path, text: &str) -> io::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".");
    let mut file = tempfile::Builder::new().prefix(&name).suffix(DRAFT).tempfile_in(folder::of(path))?;
    file.write_all(text.as_bytes())?;
    give_to_owner(file.as_file(), folder::of(path))?;
    file.as_file().sync_all()?;
    file.persist(path).map_err(|error| error.error)?;
    folder::sync(path)
}

/// Makes a folder for its owner only, unless it is there.
pub(super) fn make_folder(path: &Path) -> io::Result<()> {
    match DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(()),
        made => made?,
    }
    give_to_owner(&File::open(path)?, folder::of(path))?;
    folder::sync(path)
}

/// What is made belongs to whose folder it is made in: a daemon must be able to read what root made for it.
fn give_to_owner(made: &File, folder: &Path) -> io::Result<()> {
    let (maker, owner) = (made.metadata()?, fs::metadata(folder)?);
    if maker.uid() == owner.uid() {
        return Ok(());
    }
    std::os::unix::fs::fchown(made, Some(owner.uid()), Some(owner.gid()))
}

/// Takes drafts away that a killed process left. Nobody may be writing there.
pub(super) fn tidy(directory: &Path) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if path.as_os_str().as_encoded_bytes().ends_with(DRAFT.as_bytes()) {
            unless_missing(fs::remove_file(path))?;
        }
    }
    Ok(())
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
