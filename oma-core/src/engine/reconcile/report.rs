use serde::{Deserialize, Serialize};

use super::class::FindingClass;
use crate::record::{VolumeRecord, VolumeTag};
use crate::state::VolumeStatus;
use crate::traits::Volume;
use crate::{
    ByteSize, DiskRef, Generation, InstanceId, OperationId, SnapshotId, Timestamp, VolumeId, WorkerId,
};

/// A disk of this machine, as the caller found it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalDevice {
    /// Its path.
    pub path: String,
    /// The volume that it was proven to be, by its serial (L05); `None` when it is no volume that anybody knows.
    pub volume: Option<VolumeId>,
}

/// What the records told of a volume.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SeenRecord {
    /// The disk that it is for.
    pub disk: DiskRef,
    /// Whether it is the volume of that disk now (L03).
    pub linked: bool,
    /// Its generation.
    pub generation: Generation,
    /// How it stands.
    pub status: VolumeStatus,
    /// Its size.
    pub capacity: ByteSize,
    /// Its local device.
    pub device_path: Option<String>,
    /// The worker that sees that device.
    pub attached_to: Option<WorkerId>,
}

impl SeenRecord {
    pub(super) fn of(record: &VolumeRecord, linked: bool) -> Self {
        Self {
            disk: record.disk.clone(),
            linked,
            generation: record.generation,
            status: record.status,
            capacity: record.capacity,
            device_path: record.device_path.clone(),
            attached_to: record.attached_to.clone(),
        }
    }
}

/// What the backend told of a volume.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SeenVolume {
    /// Its mark of ownership.
    pub tag: Option<VolumeTag>,
    /// Its size.
    pub capacity: ByteSize,
    /// Its local device.
    pub device_path: Option<String>,
}

impl From<Volume> for SeenVolume {
    fn from(volume: Volume) -> Self {
        Self { tag: volume.tag, capacity: volume.capacity, device_path: volume.device_path }
    }
}

/// Both sides of a volume. A step of a plan is done only while they are as the plan saw them (L26).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Seen {
    /// In the records; `None` when they do not have it.
    pub record: Option<SeenRecord>,
    /// In the backend; `None` when it said that it has none, or could not be asked.
    pub volume: Option<SeenVolume>,
}

/// What is done about a finding. Content is changed by no repair but those that go on with an operation that somebody asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Repair {
    /// Take the volume out of the records. The backend said twice that it has none, and that it has others of this deployment.
    Forget,
    /// Mark the volume with the generation of its record. Its mark is of the same deployment and disk, and of an earlier generation.
    Retag {
        /// The mark that it is given.
        tag: VolumeTag,
    },
    /// Record the device that the backend proves, by an attach, which changes nothing at a volume that is attached here.
    RecordDevice {
        /// The device.
        path: String,
    },
    /// Record that there is no device, by a detach: the backend refuses it for a volume that is attached elsewhere, and ends what it
    /// may still believe of an attachment here.
    RecordDetached,
    /// Carry the operation out, as recovery does.
    TakeUp,
    /// Begin the deletion that an operator asked for, as recovery does.
    Delete,
}

/// One thing that is not in order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Finding {
    /// What it is.
    pub class: FindingClass,
    /// The volume, if it is about one.
    pub volume: Option<VolumeId>,
    /// The disk that the volume is for, as far as the records or a mark of ours tell.
    pub disk: Option<DiskRef>,
    /// The operation, if it is about one.
    pub operation: Option<OperationId>,
    /// The snapshot, if it is about one.
    pub snapshot: Option<SnapshotId>,
    /// Both sides, of a volume.
    pub seen: Seen,
    /// What was found, for readers.
    pub detail: String,
    /// What is done about it; `None`: an operator decides, see [`FindingClass::advice`].
    pub repair: Option<Repair>,
    /// Why what usually is done is not.
    pub withheld: Option<String>,
}

impl Finding {
    pub(super) fn new(class: FindingClass, detail: impl Into<String>) -> Self {
        Self {
            class,
            volume: None,
            disk: None,
            operation: None,
            snapshot: None,
            seen: Seen::default(),
            detail: detail.into(),
            repair: None,
            withheld: None,
        }
    }

    /// Takes the repair back. The first reason stays.
    pub(super) fn withhold(&mut self, why: &str) {
        if self.repair.take().is_some() {
            self.withheld = Some(why.to_owned());
        }
    }
}

/// What a comparison found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reconciliation {
    /// The deployment.
    pub instance: InstanceId,
    /// When it was made.
    pub made_at: Timestamp,
    /// How many recorded volumes are in order.
    pub in_order: u64,
    /// How many changed while they were looked at; the next comparison tells.
    pub moving: u64,
    /// How many volumes and local devices of others were seen. Nothing more is asked about them, and nothing done.
    pub foreign: u64,
    /// What is not in order.
    pub findings: Vec<Finding>,
}

impl Reconciliation {
    /// Whether records and backend tell the same, and all could be asked.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.findings.is_empty() && self.moving == 0
    }

    /// What no plan repairs.
    pub fn for_operator(&self) -> impl Iterator<Item = &Finding> {
        self.findings.iter().filter(|finding| finding.repair.is_none())
    }
}
