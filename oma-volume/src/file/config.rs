use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Where the volumes of a [`FileBackend`](super::FileBackend) lie.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileConfig {
    /// The directory; made when it is not there. Its file system must be able to lock files.
    pub directory: PathBuf,
    /// A file outside of the directory, in which the directory's id is kept once a volume was made in it. Another directory in its
    /// place is refused then, such as a mount point without its file system, which would else pass for one whose volumes were all
    /// deleted. Without it only a delete is refused in a directory in which no volume was ever made.
    #[serde(default)]
    pub identity: Option<PathBuf>,
}

impl FileConfig {
    /// This directory, with no file outside of it.
    #[must_use]
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Self { directory: directory.into(), identity: None }
    }
}
