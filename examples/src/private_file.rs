//! Files that hold a secret.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use oma_core::{Error, ErrorKind, Result};

use crate::failure::read_error;

/// What is in a file that its owner alone may read.
///
/// # Errors
/// `PermissionDenied` when others may, too; what the system answers.
pub fn read(path: &Path) -> Result<String> {
    let failed = |error| read_error("read", path.display(), error);
    let about = fs::metadata(path).map_err(failed)?;
    if about.mode() & 0o077 != 0 {
        return Err(Error::new(ErrorKind::PermissionDenied, "read", path.display())
            .because("others may read it; `chmod 600` it, and think of making a new one"));
    }
    fs::read_to_string(path).map_err(failed)
}
