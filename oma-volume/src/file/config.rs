use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Where the volumes of a [`FileBackend`](super::FileBackend) lie.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileConfig {
    /// The directory; made when it is not there. Its file system must be able to lock files.
    pub directory: PathBuf,
}
