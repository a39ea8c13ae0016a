use std::path::PathBuf;
use std::time::Duration;

use crate::Uri;

/// How a running nbd-server is reached and told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NbdServerConfig {
    /// Its configuration file, as it was given with `-C`.
    pub file: PathBuf,
    /// Where it wrote its process id.
    pub pid_file: PathBuf,
    /// A folder of ours with one link for each export. Without it no export can be closed: nbd-server never forgets one.
    pub links: PathBuf,
    /// Where it listens; the export in it does not matter.
    pub uri: Uri,
    /// Time for it to take a change.
    pub settle: Duration,
    /// Copies of the configuration from before a change that are kept.
    pub backups: usize,
    /// What a withdrawal does with connections that are there after its deadline.
    pub overdue: Overdue,
    /// What a publication does when nbd-server is older than 3.25.
    pub unsound: Unsound,
}

/// What a withdrawal does with connections that are there after its deadline.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Overdue {
    /// Ends the processes that serve them.
    #[default]
    Cut,
    /// Leaves them alone and answers `Busy` until they are gone.
    Wait,
}

/// What a publication does when nbd-server is older than 3.25.
///
/// Such a server damages its own memory when it reads its configuration again: that of Debian 12 (3.24) ends at about the fourth time, and
/// until then nothing says that the right device is served.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Unsound {
    /// Answers `Unsupported` before anything is changed.
    #[default]
    Refuse,
    /// Takes the risk: for tests of disks that nobody needs.
    Risk,
}

impl NbdServerConfig {
    /// With the default limits.
    #[must_use]
    pub fn new(
        file: impl Into<PathBuf>,
        pid_file: impl Into<PathBuf>,
        links: impl Into<PathBuf>,
        uri: Uri,
    ) -> Self {
        Self {
            file: file.into(),
            pid_file: pid_file.into(),
            links: links.into(),
            uri,
            settle: Duration::from_secs(5),
            backups: 10,
            overdue: Overdue::default(),
            unsound: Unsound::default(),
        }
    }
}
