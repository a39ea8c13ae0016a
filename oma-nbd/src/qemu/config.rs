use std::path::PathBuf;
use std::time::Duration;

use oma_core::{VmPath, WorkerId};

use crate::client::ClientConfig;
use crate::uri::Uri;

/// Which machine a [`QemuSource`](super::QemuSource) reads, and how.
#[derive(Clone, Debug)]
pub struct QemuConfig {
    /// The VM that the machine is; any other is not found.
    pub vm: VmPath,
    /// The unix socket of its monitor (`-qmp unix:PATH,server=on,wait=off`). QEMU serves one client of it at a time.
    pub qmp: PathBuf,
    /// The unix socket of its guest agent. When it is named, a point in time of a running guest is taken with the file systems
    /// frozen, or not at all.
    pub guest_agent: Option<PathBuf>,
    /// Whose bitmaps are used and removed: those of another owner are left alone.
    pub owner: WorkerId,
    /// Whether changes from its points in time on are tracked. Without it they serve to look: what tells changes to others is
    /// left alone, and nothing stays when they are released.
    pub tracks: bool,
    /// What becomes of points in time of this owner's other jobs when a job freezes.
    pub other_points: OtherPoints,
    /// Where QEMU makes the socket of its NBD server and the files that hold what the guest overwrites; the folder of `qmp`
    /// when `None`. QEMU and this process must both see it.
    pub directory: Option<PathBuf>,
    /// The machine's NBD server when somebody else has started it; the export of the URI does not matter. `None` starts one.
    pub nbd_server: Option<Uri>,
    /// How exports are read.
    pub client: ClientConfig,
    /// For one command of the monitor.
    pub command_timeout: Duration,
    /// For the monitor's greeting and for other work of ours on the machine to end.
    pub busy_timeout: Duration,
    /// For one command of the guest agent.
    pub agent_timeout: Duration,
    /// So long a write of the guest waits for the copy of what it overwrites; then the point in time breaks, not the write.
    /// QEMU knows whole seconds, one at least.
    pub copy_timeout: Duration,
}

/// What becomes of points in time of other jobs of the same owner.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OtherPoints {
    /// They stay.
    #[default]
    Keep,
    /// They are left over and are released: the owner drives one job of this machine at a time.
    Release,
}

impl QemuConfig {
    /// A machine without a guest agent, owned by `oma`.
    #[must_use]
    pub fn new(vm: VmPath, qmp: impl Into<PathBuf>) -> Self {
        Self {
            vm,
            qmp: qmp.into(),
            guest_agent: None,
            owner: WorkerId::parse("oma").expect("a short word is a worker id"),
            tracks: true,
            other_points: OtherPoints::Keep,
            directory: None,
            nbd_server: None,
            client: ClientConfig::default(),
            command_timeout: Duration::from_secs(30),
            busy_timeout: Duration::from_secs(10),
            agent_timeout: Duration::from_secs(10),
            copy_timeout: Duration::from_secs(15),
        }
    }
}
