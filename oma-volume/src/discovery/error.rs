use std::fmt;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use oma_core::{ByteSize, Error, ErrorKind, Retry};

use super::Serial;
use super::found::Number;
use crate::device::DeviceError;

/// Why no device was proven to be a volume's.
#[derive(Debug, thiserror::Error)]
pub(super) enum DiscoveryError {
    #[error("{0:?} is not the UUID of a volume: 32 hexadecimal digits, with or without hyphens")]
    NotAUuid(String),
    #[error(
        "the volume {other} has the serial {serial} too, and their disks cannot be told apart; make one of them anew, with another UUID"
    )]
    SharedSerial { serial: Serial, other: String },
    #[error(
        "{} and {} both bear it; a volume is attached twice, or two have UUIDs that begin alike: detach one of them", .0.display(), .1.display()
    )]
    Two(PathBuf, PathBuf),
    #[error("the serial of {} could not be read, and no other disk bears it", .path.display())]
    Unreadable { path: PathBuf, source: io::Error },
    #[error(
        "the disks of this machine could not be looked at within {}: the kernel does not answer; look into its log", seconds(.after)
    )]
    Silent { after: Duration },
    #[error("no disk bears it within {}; seen: {seen}; is the volume attached to this machine?", seconds(.within))]
    NotSeen { within: Duration, seen: String },
    #[error("{} still bears it after {}; does somebody have it open?", .path.display(), seconds(.within))]
    StillThere { path: PathBuf, within: Duration },
    #[error("no disk bears it any more; attach the volume again")]
    Gone,
    #[error("it was {was} when it was found and is {is} now; find it again")]
    Changed { was: String, is: String },
    #[error("{} is not there; does something make device nodes here, udev or devtmpfs?", .0.display())]
    NoNode(PathBuf),
    #[error("{} is no block device; put the machine's own /dev there", .0.display())]
    NotADevice(PathBuf),
    #[error(
        "{} has the number {node}, the kernel's disk of that name {disk}; is that /dev of another machine, or a node that was left?", .path.display()
    )]
    OtherNumber { path: PathBuf, node: Number, disk: Number },
    #[error(
        "{} has {} bytes, the volume {}; after a resize, let the machine look again (`echo 1 > /sys/block/…/device/rescan`)", .path.display(), .size.bytes(), .wanted.bytes()
    )]
    Size { path: PathBuf, size: ByteSize, wanted: ByteSize },
    #[error("this machine runs from {0}: it is never written")]
    Root(String),
    #[error("{name} is mounted at {place}; unmount it, and look whose it is first")]
    Mounted { name: String, place: String },
    #[error("this machine swaps to {0}; `swapoff` it, and look whose it is first")]
    Swap(String),
    #[error(
        "{name} is in use by {by}; take that apart (`dmsetup`, `vgchange -an`, `mdadm --stop`, `losetup -d`), and keep this machine from putting it together again"
    )]
    Held { name: String, by: String },
    #[error("{} is read-only; attach the volume for writing", .0.display())]
    ReadOnly(PathBuf),
    #[error("{}; is it mounted, and may this program read it?", .path.display())]
    File { path: PathBuf, source: io::Error },
    #[error("what happens to devices cannot be heard")]
    Watch(#[source] io::Error),
    #[error("{}", .path.display())]
    Open { path: PathBuf, source: DeviceError },
    #[error("the program is shutting down")]
    Shutdown(#[source] DeviceError),
}

fn seconds(within: &Duration) -> String {
    format!("{:.1} s", within.as_secs_f64())
}

impl DiscoveryError {
    /// Whether it may pass by itself while a device comes to be.
    pub(super) fn is_early(&self) -> bool {
        matches!(self, Self::NotSeen { .. } | Self::Size { .. } | Self::NoNode(_) | Self::Unreadable { .. })
    }

    /// The same when the time to wait is over.
    pub(super) fn expired(self, within: Duration) -> Self {
        match self {
            Self::NotSeen { seen, .. } => Self::NotSeen { within, seen },
            early => early,
        }
    }

    /// The public error: the only place that says what a caller can act on.
    pub(super) fn about(self, operation: &'static str, resource: &impl fmt::Display) -> Error {
        let (kind, retry) = match &self {
            Self::NotAUuid(_) => (ErrorKind::Invalid, Retry::Never),
            Self::SharedSerial { .. } | Self::Two(..) => (ErrorKind::Conflict, Retry::Never),
            Self::Gone | Self::OtherNumber { .. } | Self::Size { .. } => (ErrorKind::Conflict, Retry::Never),
            Self::Changed { .. } => (ErrorKind::Conflict, Retry::Later),
            // A person made it so: asking again and again does not help.
            Self::Mounted { .. } | Self::Swap(_) | Self::Held { .. } => (ErrorKind::Busy, Retry::Never),
            Self::Root(_) | Self::ReadOnly(_) => (ErrorKind::PermissionDenied, Retry::Never),
            Self::NotADevice(_) => (ErrorKind::Invalid, Retry::Never),
            Self::Silent { .. }
            | Self::Unreadable { .. }
            | Self::NotSeen { .. }
            | Self::StillThere { .. }
            | Self::NoNode(_) => (ErrorKind::Unavailable, Retry::Later),
            Self::File { .. } | Self::Watch(_) => (ErrorKind::Unavailable, Retry::Never),
            Self::Open { source, .. } | Self::Shutdown(source) => match source.judgement() {
                // It was there when it was looked for: it went, which is not that there never was one.
                (ErrorKind::NotFound, retry) => (ErrorKind::Conflict, retry),
                judgement => judgement,
            },
        };
        Error::new(kind, operation, resource).with_retry(retry).with_source(self)
    }
}
