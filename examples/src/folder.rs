//! The folder that a file has its name in.

use std::fs::File;
use std::io;
use std::path::Path;

use oma_core::Result;
use tempfile::NamedTempFile;

use crate::failure::io_error;

/// The folder of a path; the current one for a bare name.
pub fn of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// A file in the folder of a path, to be given that name later. An error says nothing of the name that it has until then.
pub fn draft(path: &Path) -> io::Result<NamedTempFile> {
    NamedTempFile::new_in(of(path)).map_err(|error| error.kind().into())
}

/// Before anything is done: a file can be written there. The operation is what an error says could not be done.
pub fn check_writable(operation: &'static str, path: &Path) -> Result<()> {
    draft(path).map(drop).map_err(|error| io_error(operation, path.display(), error))
}

/// Makes the name of a file as durable as its content: it is there, or gone, after a power cut too.
pub fn sync(path: &Path) -> io::Result<()> {
    File::open(of(path))?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bare_name_is_in_the_current_folder() {
        for (path, folder) in [("a", "."), ("./a", "."), ("a/b", "a"), ("/a", "/"), ("/a/b/", "/a")] {
            assert_eq!(of(Path::new(path)), Path::new(folder), "{path}");
            // What is no folder here cannot be synchronized.
            assert_eq!(sync(Path::new(path)).is_ok(), Path::new(folder).is_dir(), "{path}");
        }
    }
}
