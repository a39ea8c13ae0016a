use std::fmt;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use oma_core::{Error, ErrorKind, Retry};

/// What went wrong between this source and its machine.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    #[error("{0} is not a path that can be used")]
    Path(PathBuf, #[source] io::Error),
    #[error("nothing answers at {0}; see whether the machine runs and its socket is there")]
    Connect(PathBuf, #[source] io::Error),
    #[error(
        "{0} did not greet in {1:?}; QEMU serves one client of a monitor at a time, so end the other one"
    )]
    Silent(PathBuf, Duration),
    #[error("{what} gave no answer in {limit:?}")]
    Timeout { what: &'static str, limit: Duration },
    #[error("the connection broke")]
    Lost(#[source] io::Error),
    #[error("the connection was closed; see whether the machine still runs")]
    Closed,
    #[error("a line of more than {0} bytes; what listens there is no QEMU")]
    TooLong(usize),
    #[error("what listens there is not what it should be: {0}")]
    Garbage(String),
    #[error("QEMU refused {command}: {text}")]
    Refused { command: &'static str, class: String, text: String },
    #[error("the answer to {0} cannot be read")]
    Answer(&'static str, #[source] serde_json::Error),
    #[error("QEMU {0} cannot freeze disks for reading; 7.1 is the first that can")]
    TooOld(String),
    #[error("another process of ours works on this machine; wait for it")]
    Locked,
    #[error("the lock could not be taken")]
    Lock(#[source] io::Error),
    #[error("the writable disk {0} has no name that lasts; give its device an id (-device …,id=NAME)")]
    Nameless(String),
    #[error("two disks have the key {0}; give their devices other ids")]
    SameKey(String),
    #[error("the machine has no writable disk with a medium")]
    NoDisks,
    #[error(
        "the machine's NBD server is not the one at {0}; stop the other one (nbd-server-stop), or tell where it listens"
    )]
    OtherServer(String, #[source] Error),
    #[error("the disk {0} changed its size meanwhile; run again")]
    Resized(String),
    #[error("the guest's file systems are frozen by somebody else; thaw them, or wait")]
    FrozenByOther,
    #[error("the guest agent said: {0}")]
    Agent(String),
    #[error("the guest's file systems may still be frozen; thaw them (guest-fsfreeze-thaw)")]
    NotThawed(#[source] Box<Self>),
    #[error("there is no such point in time, disk or machine")]
    NotFound,
    #[error(transparent)]
    Nbd(#[from] Error),
}

impl Failure {
    /// The public error: the only place that decides kind and retry.
    pub(super) fn at(self, operation: &'static str, resource: impl fmt::Display) -> Error {
        let (kind, retry) = match &self {
            Self::Connect(..)
            | Self::Timeout { .. }
            | Self::Lost(_)
            | Self::Closed
            | Self::Lock(_)
            | Self::Agent(_)
            | Self::NotThawed(_) => (ErrorKind::Unavailable, Retry::Later),
            Self::Silent(..) | Self::Locked | Self::OtherServer(..) | Self::FrozenByOther => {
                (ErrorKind::Busy, Retry::Later)
            }
            Self::Path(..) | Self::Garbage(_) | Self::Nameless(_) | Self::SameKey(_) => {
                (ErrorKind::Invalid, Retry::Never)
            }
            Self::TooLong(_) | Self::Answer(..) => (ErrorKind::Corrupt, Retry::Never),
            Self::Refused { class, .. } => match class.as_str() {
                "CommandNotFound" => (ErrorKind::Unsupported, Retry::Never),
                _ => (ErrorKind::Conflict, Retry::Never),
            },
            Self::TooOld(_) => (ErrorKind::Unsupported, Retry::Never),
            Self::NoDisks | Self::NotFound => (ErrorKind::NotFound, Retry::Never),
            Self::Resized(_) => (ErrorKind::Conflict, Retry::Later),
            Self::Nbd(error) => (error.kind(), error.retry()),
        };
        Error::new(kind, operation, resource).with_retry(retry).with_source(self)
    }
}
