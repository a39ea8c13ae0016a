//! The ownership record of a volume: `ID.json` beside the image `ID.raw`.

use oma_core::record::VolumeTag;
use oma_core::traits::{Provisioning, Snapshot, SnapshotSpec, Volume, VolumeSpec};
use oma_core::{ByteSize, OperationId, VolumeId};
use serde::{Deserialize, Serialize};

/// How far a volume is.
///
/// ```text
///   create ─▶ Partial ─▶ Detached ⇄ Attached ─▶ Partial ─▶ (removed)
///             intent     image is durable       intent to delete
/// ```
/// A partial volume is absent for everybody but the operation that makes it and the call that deletes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Stage {
    Partial,
    Detached,
    Attached,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Record {
    pub(super) id: VolumeId,
    pub(super) stage: Stage,
    pub(super) name: String,
    pub(super) capacity: ByteSize,
    pub(super) provisioning: Provisioning,
    pub(super) operation: OperationId,
    /// The tag that it was made with: what a repeated create is compared with.
    pub(super) made: VolumeTag,
    /// The tag that it bears.
    pub(super) tag: VolumeTag,
}

impl Record {
    /// The intent to make a volume.
    pub(super) fn intent(spec: &VolumeSpec) -> Self {
        Self {
            id: VolumeId::of_operation(&spec.operation),
            stage: Stage::Partial,
            name: spec.name.clone(),
            capacity: spec.capacity,
            provisioning: spec.provisioning,
            operation: spec.operation.clone(),
            made: spec.tag.clone(),
            tag: spec.tag.clone(),
        }
    }

    /// It as it is now, with the place where it is reached when it is attached.
    pub(super) fn describe(&self, place: impl FnOnce() -> Option<String>) -> Volume {
        Volume {
            id: self.id.clone(),
            name: self.name.clone(),
            capacity: self.capacity,
            tag: Some(self.tag.clone()),
            device_path: if self.stage == Stage::Attached { place() } else { None },
        }
    }
}

/// Whether a snapshot is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum SnapshotStage {
    /// It is being made or deleted: absent for everybody but the calls that make and delete it.
    Partial,
    Whole,
}

/// The ownership record of a snapshot: `ID.json` beside its content `ID.raw`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SnapshotRecord {
    pub(super) stage: SnapshotStage,
    pub(super) name: String,
    pub(super) capacity: ByteSize,
    pub(super) spec: SnapshotSpec,
}

impl SnapshotRecord {
    /// The intent to make a snapshot of a volume of this size.
    pub(super) fn intent(spec: &SnapshotSpec, capacity: ByteSize) -> Self {
        Self { stage: SnapshotStage::Partial, name: spec.name(), capacity, spec: spec.clone() }
    }

    pub(super) fn describe(&self) -> Snapshot {
        Snapshot { spec: self.spec.clone(), name: self.name.clone(), capacity: self.capacity }
    }
}
