use std::fmt;

use serde::{Deserialize, Serialize};

use crate::state::VolumeStatus;
use crate::{ByteSize, ContextId, DiskRef, Epoch, Generation, InstanceId, Timestamp, VolumeId, WorkerId};

/// The backend's own mark of ownership on a volume (L02).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VolumeTag {
    /// The deployment that made it.
    pub instance: InstanceId,
    /// The disk that it is for.
    pub disk: DiskRef,
    /// The generation it was opened for last.
    pub generation: Generation,
}

impl fmt::Display for VolumeTag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}@{}", self.instance, self.disk, self.generation)
    }
}

/// What a volume's content looks like from outside, e.g. size and time of its last change.
///
/// Equal stamps mean that nobody wrote in between, as far as the backend can tell.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ContentStamp(pub String);

/// What is known of a volume's content.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum VolumeContent {
    /// Every byte is zero: just made by a backend that promises so.
    Blank,
    /// In mid-epoch: part old, part new (L12).
    Inconsistent,
    /// Exactly this epoch.
    Epoch(Epoch),
}

/// The lasting record of a volume (`ossea_volumes`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VolumeRecord {
    /// Its id in the backend.
    pub id: VolumeId,
    /// Its name, for readers; never a proof of anything.
    pub name: String,
    /// The disk that it is for.
    pub disk: DiskRef,
    /// Its size.
    pub capacity: ByteSize,
    /// Its generation.
    pub generation: Generation,
    /// What it holds.
    pub content: VolumeContent,
    /// Whether it ever held an epoch. One that did is deleted in two steps.
    pub held_epoch: bool,
    /// The stamp of its content when its last writer left it; none while a run writes, and after one that could take none.
    pub stamp: Option<ContentStamp>,
    /// How it stands.
    pub status: VolumeStatus,
    /// Its local device or file, while attached (`device_mappings.device_path`).
    pub device_path: Option<String>,
    /// The worker that sees that device; on another machine the path means nothing, or another disk
    /// (`device_mappings.vm_id`).
    pub attached_to: Option<WorkerId>,
    /// When the record last changed.
    pub updated_at: Timestamp,
}

/// Which volumes to list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VolumeFilter {
    /// Only those of disks of this VM.
    pub context: Option<ContextId>,
    /// Only those that stand so.
    pub status: Option<VolumeStatus>,
    /// Only those behind this id, which may be one that is not there any more.
    pub after: Option<VolumeId>,
}

impl VolumeFilter {
    /// All that are behind an id.
    #[must_use]
    pub fn behind(after: Option<VolumeId>) -> Self {
        Self { after, ..Self::default() }
    }

    /// Whether a volume is one of these.
    #[must_use]
    pub fn lets_through(&self, volume: &VolumeRecord) -> bool {
        self.context.as_ref().is_none_or(|context| *context == volume.disk.context)
            && self.status.is_none_or(|status| status == volume.status)
            && self.after.as_ref().is_none_or(|after| volume.id > *after)
    }
}
