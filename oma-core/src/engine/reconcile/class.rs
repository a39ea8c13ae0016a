use std::fmt;

use serde::{Deserialize, Serialize};

/// What is not in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FindingClass {
    /// Nobody knows: the backend did not answer, or contradicted itself. Never taken for gone (L21).
    CouldNotAsk,
    /// Recorded, and the backend is sure that it has none.
    Gone,
    /// It bears the mark of this deployment and no record knows it.
    Orphan,
    /// Recorded for a disk that has another volume by now.
    Superseded,
    /// Recorded as attached to another worker, and attached here.
    AttachedElsewhere,
    /// Recorded as attached here, and not attached here.
    NotAttached,
    /// Attached here, and recorded at another device or at none.
    DeviceDiffers,
    /// What the backend tells of its device is not what this machine has.
    DeviceContradicts,
    /// It is smaller than recorded.
    Smaller,
    /// It is larger than recorded.
    Larger,
    /// Its mark is of an earlier generation: whoever began the recorded one died before he marked it.
    OlderGeneration,
    /// Its mark is of a later generation: the records are older than the volume.
    NewerGeneration,
    /// Its mark is of another disk.
    OtherDisk,
    /// Its mark is of another deployment.
    OtherInstance,
    /// It bears no mark of ours any more.
    NoMark,
    /// An operation has not ended, and nobody drives it.
    Undriven,
    /// A condemned volume whose time has passed.
    Due,
    /// A snapshot that no recovery point and no operation knows.
    UnknownSnapshot,
}

impl FindingClass {
    /// The label that JSON and logs carry.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::CouldNotAsk => "could_not_ask",
            Self::Gone => "gone",
            Self::Orphan => "orphan",
            Self::Superseded => "superseded",
            Self::AttachedElsewhere => "attached_elsewhere",
            Self::NotAttached => "not_attached",
            Self::DeviceDiffers => "device_differs",
            Self::DeviceContradicts => "device_contradicts",
            Self::Smaller => "smaller",
            Self::Larger => "larger",
            Self::OlderGeneration => "older_generation",
            Self::NewerGeneration => "newer_generation",
            Self::OtherDisk => "other_disk",
            Self::OtherInstance => "other_instance",
            Self::NoMark => "no_mark",
            Self::Undriven => "undriven",
            Self::Due => "due",
            Self::UnknownSnapshot => "unknown_snapshot",
        }
    }

    /// What an operator does when no plan repairs it.
    #[must_use]
    pub const fn advice(self) -> &'static str {
        match self {
            Self::CouldNotAsk => "see that the backend answers, then compare again",
            Self::Gone => {
                "see that the backend is the right place (account, zone, folder); the next replication fills a new volume"
            }
            Self::Orphan => {
                "find out whether another appliance with a copy of this database, or a later database, owns it; delete it with the backend's own tools only when nobody does"
            }
            Self::Superseded => "delete it with the backend's own tools when nothing of it is needed",
            Self::AttachedElsewhere => {
                "end the other worker or detach it there; two machines must not write to it"
            }
            Self::NotAttached => {
                "see to which machine it is attached, and detach it there if it is not needed"
            }
            Self::DeviceDiffers => "attach or detach the volume once more, so that its device is recorded",
            Self::DeviceContradicts => {
                "do not use the device; detach the volume and attach it again, and see what else has its serial"
            }
            Self::Smaller => {
                "data was cut off: replicate in full onto a new volume, or go back to a recovery point"
            }
            Self::Larger => "harmless; a resize to this size records it",
            Self::OlderGeneration => "the next operation or replication marks it",
            Self::NewerGeneration => {
                "the database is an old copy, or a second appliance works with a copy of it: stop one of both, restore the newest database, change nothing before"
            }
            Self::OtherDisk | Self::OtherInstance | Self::NoMark => {
                "somebody took it: find out who and why; nothing of ours touches it as it is"
            }
            Self::Undriven => "wait until the lease of its job has ended, or end the job",
            Self::Due => "it is deleted once its VM can be changed; call it off to keep it",
            Self::UnknownSnapshot => {
                "see what it was made for; the next replication of the VM deletes what its jobs gave up"
            }
        }
    }
}

impl fmt::Display for FindingClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}
