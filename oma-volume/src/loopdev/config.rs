use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Where the images of a [`LoopBackend`](super::LoopBackend) lie.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LoopConfig {
    /// The directory; made when it is not there. Its file system must be able to lock files; one with direct I/O saves memory.
    pub directory: PathBuf,
    /// A file outside of the directory: see [`FileConfig::identity`](crate::file::FileConfig::identity).
    #[serde(default)]
    pub identity: Option<PathBuf>,
}

impl LoopConfig {
    /// This directory, with no file outside of it.
    #[must_use]
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Self { directory: directory.into(), identity: None }
    }
}
