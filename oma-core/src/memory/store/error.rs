use std::fmt;

use crate::state::Refused;
use crate::{DiskKey, Error, ErrorKind, Fence, JobId, OperationId, Retry, Timestamp, VolumeId, WorkerId};

/// Why the store refused; nothing was changed.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refusal {
    #[error(
        "the lease with token {given} is not valid any more (newest token: {newest}); stop working on this job"
    )]
    Fenced { given: Fence, newest: Fence },
    #[error("there is no {what} {id}")]
    Unknown { what: &'static str, id: String },
    #[error("this id was given to something else; mint a new one")]
    OtherSpec,
    #[error("the name belongs to disk {disk} with volume {volume}; withdraw that export first")]
    NameTaken { disk: String, volume: VolumeId },
    #[error("the VM has the live job {0}; continue or end it first")]
    LiveJob(JobId),
    #[error("the disk has the unfinished operation {0}; finish it first")]
    LiveOperation(OperationId),
    #[error(
        "it may be the only consistent one while volume {0} holds no epoch; replicate, or revert to it first"
    )]
    LastConsistent(VolumeId),
    #[error("it held an epoch, so it is condemned before it is deleted")]
    HeldEpoch,
    #[error("it is not due before {0}; wait until then, or call it off")]
    NotDue(Timestamp),
    #[error("worker {0} holds the lease; wait until it gives it back or it expires")]
    Held(WorkerId),
    #[error(transparent)]
    State(#[from] Refused),
    #[error("the record says {recorded}, the caller {given}; read the record again before going on")]
    Differs { recorded: String, given: String },
    #[error("the device {path} is mapped to volume {volume}; detach that one first")]
    PathTaken { path: String, volume: VolumeId },
    #[error(transparent)]
    Impossible(Refused),
    #[error("no disk is named; name at least one")]
    NoDisk,
    #[error("disk {0} is named twice; name each disk once")]
    DiskTwice(DiskKey),
    #[error("disk {0} has no byte; a disk has at least one")]
    EmptyDisk(DiskKey),
    #[error("line {0} is recorded with another text or stream; give the line another number")]
    OtherLine(u64),
    #[error("{0}")]
    InUse(String),
    #[error("{0}")]
    NotWanted(&'static str),
    #[error("{0}")]
    Input(&'static str),
    #[error("there is one with this {0} already; take another one")]
    Taken(&'static str),
    #[error("{0}")]
    Stands(&'static str),
    #[error("{0}")]
    Denied(&'static str),
}

impl Refusal {
    pub(super) fn unknown(what: &'static str, id: impl fmt::Display) -> Self {
        Self::Unknown { what, id: id.to_string() }
    }

    pub(super) fn differs(recorded: impl fmt::Display, given: impl fmt::Display) -> Self {
        Self::Differs { recorded: recorded.to_string(), given: given.to_string() }
    }

    /// Checks that the caller knows what the record says.
    pub(super) fn unless_same<T: PartialEq + fmt::Display>(recorded: &T, given: &T) -> Result<(), Self> {
        if recorded == given { Ok(()) } else { Err(Self::differs(recorded, given)) }
    }

    pub(super) fn into_error(self, operation: &'static str, resource: &dyn fmt::Display) -> Error {
        let (kind, retry) = match &self {
            Self::Fenced { .. } => (ErrorKind::Fenced, Retry::Never),
            Self::Unknown { .. } => (ErrorKind::NotFound, Retry::Never),
            Self::OtherSpec | Self::NameTaken { .. } | Self::Taken(_) => {
                (ErrorKind::AlreadyExists, Retry::Never)
            }
            Self::Held(_) => (ErrorKind::Busy, Retry::Later),
            Self::LiveJob(_)
            | Self::LiveOperation(_)
            | Self::LastConsistent(_)
            | Self::HeldEpoch
            | Self::NotDue(_)
            | Self::State(_)
            | Self::Differs { .. }
            | Self::OtherLine(_)
            | Self::Stands(_)
            | Self::InUse(_)
            | Self::NotWanted(_)
            | Self::PathTaken { .. } => (ErrorKind::Conflict, Retry::Never),
            Self::Denied(_) => (ErrorKind::PermissionDenied, Retry::Never),
            Self::Impossible(_) | Self::NoDisk | Self::DiskTwice(_) | Self::EmptyDisk(_) | Self::Input(_) => {
                (ErrorKind::Invalid, Retry::Never)
            }
        };
        Error::new(kind, operation, resource).with_retry(retry).with_source(self)
    }
}
