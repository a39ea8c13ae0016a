use std::io;
use std::path::PathBuf;
use std::time::Duration;

use oma_core::record::VolumeTag;
use oma_core::{Error, ErrorKind, IdError, OperationId, Retry};

use super::refusal::Refusal;

/// Why the cloud's backend did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub(super) enum CloudError {
    #[error("the endpoint is not good: {problem}; write it as https://HOST/client/api")]
    Endpoint { problem: &'static str },
    #[error("its {0} is not the id of anything; copy it from CloudStack")]
    NoId(&'static str),
    #[error("{0} is longer than a week; nobody waits that long")]
    Endless(&'static str),
    #[error("the cloud answers a volume with an id that cannot be one")]
    OddId(#[source] IdError),
    #[error("the authorities in {} cannot be used; name a PEM file of certificates", .path.display())]
    Authorities { path: PathBuf, source: io::Error },
    #[error("this build's TLS is not usable")]
    Tls,
    #[error("{command} was not sent; is the endpoint right, and can it be reached from here? {problem}")]
    NotSent { command: &'static str, problem: String },
    #[error("the answer to {command} was lost: {problem}")]
    Lost { command: &'static str, problem: String },
    #[error(
        "{command} was answered by something that is not CloudStack's API (status {status}): {problem}; check the endpoint and what stands before it"
    )]
    Foreign { command: &'static str, status: u16, problem: &'static str },
    #[error("the answer to {command} has another form than is known")]
    Unreadable { command: &'static str, source: serde_json::Error },
    #[error("{command}: {refusal}")]
    Refused { command: &'static str, refusal: Refusal },
    #[error("{command} was answered with success=false; look at the volume's events in CloudStack")]
    NotDone { command: &'static str },
    #[error("the job of {command} failed: {refusal}")]
    JobFailed { command: &'static str, refusal: Refusal },
    #[error(
        "the job of {command} ended without a result, as one that a restart of the management server cut off"
    )]
    JobCut { command: &'static str },
    #[error("the cloud has no record of the job of {command} any more")]
    JobForgotten { command: &'static str },
    #[error("the job of {command} was over before it was asked for again")]
    JobOver { command: &'static str },
    #[error("the job of {command} is not done after {} s; look for it in the cloud's event list", .waited.as_secs())]
    JobLate { command: &'static str, waited: Duration },
    #[error("{command} did not arrive: the cloud knows nothing of its job")]
    NeverAccepted { command: &'static str },
    #[error(
        "{command} had to wait for its turn, and what was proven before it is too old by now; run it again"
    )]
    PutOff { command: &'static str },
    #[error("the list of {command} changed each time that it was read")]
    Restless { command: &'static str },
    #[error("there is no such volume in the cloud")]
    Unknown,
    #[error(
        "it is in a project of the cloud; move it back to the account of the keys, or name that project as project_id"
    )]
    InProject,
    #[error("it is not in the project {0}, but the account's own or in another one; move it back there")]
    OutsideProject(String),
    #[error(
        "it exists and is not shown to these keys, because it is another account's; give it back, or use that account's keys"
    )]
    Hidden,
    #[error(
        "these keys see neither the volume nor the appliance, so nobody knows whether it exists; check appliance_vm_id and whose keys these are"
    )]
    NoAppliance,
    #[error(
        "the cloud says that {0} is attached to this machine, and its list of what is does not show it; check that the keys are those of the appliance's owner, and appliance_vm_id"
    )]
    Unlisted(String),
    #[error(
        "its detach was asked for {0} times and the cloud still says that it is attached; look at the volume's events in CloudStack, then detach it there by hand or restart the appliance"
    )]
    AskedTooOften(usize),
    #[error(
        "the system disk of the virtual machine {0} is not in this machine, so this is another one or a clone of it; put this machine's own id into appliance_vm_id"
    )]
    OtherMachine(String),
    #[error("it bears the tag {}, not {given}", shown(.found.as_deref()))]
    Tag { found: Option<Box<VolumeTag>>, given: Box<VolumeTag> },
    #[error("it bears the tag {}, which {given} does not follow", shown(.found.as_deref()))]
    Retag { found: Option<Box<VolumeTag>>, given: Box<VolumeTag> },
    #[error(
        "the operation {0} made this volume with another tag or a smaller size, or somebody else marked or used it"
    )]
    MadeOtherwise(OperationId),
    #[error(
        "the volume of the operation {0} was destroyed; recover it in CloudStack, or begin a new operation"
    )]
    Destroyed(OperationId),
    #[error("a volume has at least one byte")]
    NoBytes,
    #[error("no volume can have {0} bytes")]
    TooLarge(u64),
    #[error("it is not attached to this machine; attach it first")]
    NotAttached,
    #[error("it is attached to the virtual machine {0}, not to this one; detach it there first")]
    AttachedElsewhere(String),
    #[error("it is in the state {0:?}, in which nothing can be done with it; look at it in CloudStack")]
    State(String),
    #[error("it is in the middle of another change after {} s; wait for that to end", .0.as_secs())]
    Moving(Duration),
    #[error(
        "the cloud's job {job} is at work on it after {} s; wait for that to end, or look for it in the cloud's event list", .waited.as_secs()
    )]
    AtWork { job: String, waited: Duration },
    #[error("the cloud did it {0} times and it is not so; look at the volume's events in CloudStack")]
    NoEffect(usize),
    #[error(
        "the cloud says that it is attached to this machine, and no disk here bears its serial; is appliance_vm_id this very machine, does it run on KVM?"
    )]
    NotSeen(#[source] Error),
    #[error("the cloud says that it is attached to this machine, and its disk is not here; attach it again")]
    NoDevice,
    #[error(
        "its device is still here though the cloud says that it is detached; let go of it, or restart this machine before it is used elsewhere"
    )]
    StillHere(#[source] Error),
    #[error("its disk is not usable")]
    Device(#[source] Error),
    #[error(
        "the cloud's snapshots cannot be read without making a volume of each, nor be reverted to while the machine runs; keep recovery points elsewhere"
    )]
    NoSnapshots,
    #[error(
        "what is added to a volume may hold what somebody else wrote before; say new_space_reads_as_zero where all pools promise zeroes"
    )]
    NoGrowth,
}

fn shown(tag: Option<&VolumeTag>) -> String {
    tag.map_or_else(|| "of nobody".to_owned(), ToString::to_string)
}

impl From<Error> for CloudError {
    /// From discovery, and from devices.
    fn from(error: Error) -> Self {
        Self::Device(error)
    }
}

impl CloudError {
    /// Whether the same request, a moment later, is the thing to do: it was not looked at.
    pub(super) fn is_not_now(&self, only_asks: bool) -> bool {
        match self {
            Self::Refused { refusal, .. } => refusal.is_not_now(),
            Self::Foreign { status, .. } => *status == 429 || (only_asks && *status == 503),
            _ => false,
        }
    }

    /// Whether it may have been done all the same.
    pub(super) fn is_uncertain(&self) -> bool {
        match self {
            Self::Lost { .. } | Self::Unreadable { .. } => true,
            Self::Foreign { status, .. } => *status != 429,
            _ => false,
        }
    }

    /// Whether asking again can give an answer.
    pub(super) fn is_passing(&self) -> bool {
        match self {
            Self::Foreign { status, .. } => *status >= 429,
            Self::Refused { refusal, .. } => refusal.is_not_now(),
            Self::NotSent { .. } | Self::Lost { .. } => true,
            _ => false,
        }
    }

    /// Whether the command is over and nobody but the thing itself can tell what became of it. A job that is still queued, and a
    /// request that may still arrive, are not: sent again under another id, the late one would undo what came after it.
    pub(super) fn is_told_by_the_thing(&self) -> bool {
        matches!(self, Self::JobCut { .. } | Self::JobForgotten { .. } | Self::JobOver { .. })
    }

    /// Whether nothing comes of the command any more: it was refused, or its job is over.
    pub(super) fn has_ended(&self) -> bool {
        self.refusal().is_some() || self.is_told_by_the_thing()
    }

    /// Whether nothing is known to have come of the command: once the thing was looked at, it may be sent again.
    pub(super) fn is_unheard_of(&self) -> bool {
        matches!(self, Self::NeverAccepted { .. } | Self::PutOff { .. })
    }

    /// The class of a refusal, of the request or of its job.
    pub(super) fn refusal(&self) -> Option<&Refusal> {
        match self {
            Self::Refused { refusal, .. } | Self::JobFailed { refusal, .. } => Some(refusal),
            _ => None,
        }
    }

    pub(super) fn is_refused_with(&self, codes: &[u64]) -> bool {
        self.refusal().is_some_and(|refusal| codes.contains(&refusal.code))
    }

    /// The public error: the only place that says what a caller can act on.
    pub(super) fn about(self, operation: &'static str, resource: &str) -> Error {
        let (kind, retry) = self.judgement();
        Error::new(kind, operation, resource).with_retry(retry).with_source(self)
    }

    fn judgement(&self) -> (ErrorKind, Retry) {
        match self {
            Self::Endpoint { .. } | Self::NoId(_) | Self::Endless(_) | Self::Authorities { .. } => {
                (ErrorKind::Invalid, Retry::Never)
            }
            Self::NoBytes | Self::TooLarge(_) => (ErrorKind::Invalid, Retry::Never),
            Self::Tls => (ErrorKind::Internal, Retry::Never),
            // Their parameters are right: the volume or the appliance is not as it should be.
            Self::Refused { command: "attachVolume" | "detachVolume" | "deleteVolume", refusal }
            | Self::JobFailed { command: "attachVolume" | "detachVolume" | "deleteVolume", refusal }
                if refusal.code == 431 =>
            {
                (ErrorKind::Conflict, Retry::Never)
            }
            Self::Refused { refusal, .. } | Self::JobFailed { refusal, .. } => refusal.judgement(),
            Self::Unreadable { .. } | Self::OddId(_) => (ErrorKind::Corrupt, Retry::Never),
            Self::NotSent { .. } | Self::Lost { .. } | Self::Foreign { .. } | Self::Restless { .. } => {
                (ErrorKind::Unavailable, Retry::Later)
            }
            Self::JobCut { .. } | Self::JobForgotten { .. } | Self::JobOver { .. } | Self::JobLate { .. } => {
                (ErrorKind::Unavailable, Retry::Later)
            }
            Self::NotDone { .. } => (ErrorKind::Unavailable, Retry::Later),
            Self::NeverAccepted { .. } | Self::NoEffect(_) | Self::NotSeen(_) | Self::StillHere(_) => {
                (ErrorKind::Unavailable, Retry::Later)
            }
            Self::Unknown => (ErrorKind::NotFound, Retry::Never),
            Self::Tag { .. } | Self::Retag { .. } => (ErrorKind::PermissionDenied, Retry::Never),
            Self::MadeOtherwise(_) | Self::Destroyed(_) => (ErrorKind::AlreadyExists, Retry::Never),
            Self::NotAttached | Self::NoDevice | Self::AttachedElsewhere(_) | Self::State(_) => {
                (ErrorKind::Conflict, Retry::Never)
            }
            Self::InProject | Self::OutsideProject(_) | Self::Hidden | Self::OtherMachine(_) => {
                (ErrorKind::Conflict, Retry::Never)
            }
            Self::NoAppliance | Self::Unlisted(_) | Self::AskedTooOften(_) => {
                (ErrorKind::Unavailable, Retry::Later)
            }
            Self::Moving(_) | Self::AtWork { .. } | Self::PutOff { .. } => (ErrorKind::Busy, Retry::Later),
            Self::Device(error) => (error.kind(), error.retry()),
            Self::NoSnapshots | Self::NoGrowth => (ErrorKind::Unsupported, Retry::Never),
        }
    }
}
