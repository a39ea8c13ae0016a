use serde::{Deserialize, Serialize};

use crate::traits::ReadManner;
use crate::tree::TreeRoot;
use crate::{
    ByteSize, ChangeId, ContextId, DiskKey, Epoch, ExtentSet, Generation, JobId, Timestamp, VmPath, VolumeId,
};

/// What a comparison of a VM's disks with their volumes found (L14).
///
/// Its JSON is what is signed: fields stand in this order, and unknown ones are refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VerificationReport {
    /// [`VerificationReport::VERSION`] of the program that made it.
    pub version: u32,
    /// The job that it was a part of; `None` for a comparison by itself.
    pub job: Option<JobId>,
    /// The VM.
    pub context: ContextId,
    /// The VM as its source names it.
    pub vm: VmPath,
    /// The epoch that the job makes; without a job, the one that all volumes hold.
    pub epoch: Option<Epoch>,
    /// How much was compared.
    pub scope: VerificationScope,
    /// Bytes of a leaf: see [`crate::tree`].
    pub leaf_bytes: u64,
    /// When the comparison began.
    pub begun: Timestamp,
    /// When it ended.
    pub ended: Timestamp,
    /// Its disks, in the source's order.
    pub disks: Vec<DiskVerification>,
}

/// How much of each disk was compared.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "level", deny_unknown_fields)]
pub enum VerificationScope {
    /// Leaves chosen at random: it tells how likely it is that much differs, and proves nothing of the others.
    Sample {
        /// How many of each disk were asked for.
        size: SampleSize,
        /// What the choice was made from: with it anybody can choose the same leaves again.
        seed: u64,
    },
    /// What the epoch copied.
    Changed,
    /// Every byte of the disk.
    Full,
}

/// How many leaves are chosen of each disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SampleSize {
    /// So many, or all when there are not more.
    Leaves(u64),
    /// So many of a thousand, rounded up.
    Permille(u16),
}

/// What a comparison of one disk found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DiskVerification {
    /// The disk.
    pub key: DiskKey,
    /// Its volume.
    pub volume: VolumeId,
    /// The volume's generation.
    pub generation: Generation,
    /// The marker of the source's point in time.
    pub change_id: ChangeId,
    /// The size of the disk at the source.
    pub capacity: ByteSize,
    /// Bytes whose content was compared. In a report of version 1 those that were only promised, too.
    pub compared: ByteSize,
    /// Bytes that both sides promise to read as zero, and are believed: nobody read them. None in a report of version 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub promised_zero: Option<ByteSize>,
    /// The root of the source's hash tree; only of a whole disk.
    pub source_root: Option<TreeRoot>,
    /// The root of the volume's, over the capacity of the source.
    pub target_root: Option<TreeRoot>,
    /// How the volume was read back.
    pub read_back: ReadManner,
    /// Every extent that differs, as `[offset, length]` in units of 4 KiB.
    pub differences: ExtentSet,
    /// When the comparison of this disk began.
    pub begun: Timestamp,
    /// When it ended.
    pub ended: Timestamp,
}

impl VerificationReport {
    /// The version that this program writes; it reads those before too.
    pub const VERSION: u32 = 2;

    /// Whether nothing of what was compared differs.
    #[must_use]
    pub fn is_identical(&self) -> bool {
        self.disks.iter().all(|disk| disk.differences.is_empty())
    }
}

impl DiskVerification {
    /// Bytes of which something is known: compared, or promised by both sides to be zero.
    #[must_use]
    pub fn covered(&self) -> ByteSize {
        self.compared + self.promised_zero.unwrap_or_default()
    }
}
