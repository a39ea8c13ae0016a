//! One disk of a run.

use std::sync::Arc;
use std::time::Duration;

use super::plan::DiskPlan;
use crate::engine::config::ReplicateConfig;
use crate::engine::copier::Counters;
use crate::engine::push::PushedDevice;
use crate::engine::report::DiskReport;
use crate::engine::volumes::ReadyVolume;
use crate::record::{ContentStamp, DiskCommit, VolumeContent};
use crate::state::ReplicationType;
use crate::traits::{BlockDevice, PointDisk};
use crate::{ByteSize, ExportName, ExtentSet};

/// A disk as far as the steps have brought it.
#[derive(Debug)]
pub(super) struct RunDisk {
    pub(super) point: PointDisk,
    /// That of the run, but for promises of zeroes of a source that broke one.
    pub(super) config: ReplicateConfig,
    pub(super) volume: Option<ReadyVolume>,
    pub(super) source: Option<Arc<dyn BlockDevice>>,
    pub(super) target: Option<Arc<dyn BlockDevice>>,
    pub(super) export: Option<ExportName>,
    pub(super) plan: Option<DiskPlan>,
    pub(super) counters: Counters,
    pub(super) copy_time: Duration,
    pub(super) verified: Option<ByteSize>,
    /// What of it both sides only promise to be zero.
    pub(super) promised_zero: Option<ByteSize>,
    pub(super) error: Option<String>,
    /// This run has marked the volume as in mid-epoch.
    pub(super) marked: bool,
    /// What the volume looked like when this run left it.
    pub(super) stamp: Option<ContentStamp>,
    /// The volume as an agent has it, once it is served for writing.
    pub(super) pushed: Option<Arc<PushedDevice>>,
    /// What an agent said is finished, and is durable and in the journal.
    pub(super) finished: ExtentSet,
    /// Whether no attempt before has written to the volume for this epoch.
    pub(super) fresh: bool,
    /// An agent has reported it.
    pub(super) reported: bool,
}

impl RunDisk {
    pub(super) fn new(point: PointDisk, config: ReplicateConfig) -> Self {
        Self {
            point,
            config,
            volume: None,
            source: None,
            target: None,
            export: None,
            plan: None,
            counters: Counters::default(),
            copy_time: Duration::ZERO,
            verified: None,
            promised_zero: None,
            error: None,
            marked: false,
            stamp: None,
            pushed: None,
            finished: ExtentSet::new(),
            fresh: false,
            reported: false,
        }
    }

    /// The volume, once provisioned.
    pub(super) const fn ready_volume(&self) -> &ReadyVolume {
        self.volume.as_ref().expect("provisioning comes before")
    }

    /// The volume's device, once published.
    pub(super) fn target_device(&self) -> Arc<dyn BlockDevice> {
        Arc::clone(self.target.as_ref().expect("publishing comes before"))
    }

    /// What has to be copied, once planned.
    pub(super) const fn plan(&self) -> &DiskPlan {
        self.plan.as_ref().expect("planning comes before")
    }

    /// Whether what the volume looks like now is what this run, or one before it, left: of any other, a stamp would hide a
    /// foreign write.
    pub(super) fn can_be_stamped(&self) -> bool {
        let volume = self.ready_volume();
        let blank = volume.record.content == VolumeContent::Blank && volume.untouched;
        (self.marked || blank && volume.record.stamp.is_none()) && !self.counters.flush_in_doubt
    }

    pub(super) fn mode(&self) -> ReplicationType {
        self.plan.as_ref().map_or(ReplicationType::Initial, |plan| plan.mode)
    }

    /// What is committed of it.
    pub(super) fn commit(&self) -> DiskCommit {
        let (record, plan) = (&self.ready_volume().record, self.plan());
        DiskCommit {
            key: self.point.key.clone(),
            volume: record.id.clone(),
            generation: record.generation,
            change_id: self.point.change_id.clone(),
            capacity: self.point.capacity,
            stamp: self.stamp.clone(),
            extents: self.counters.pieces,
            bytes_transferred: self.counters.progress.written + self.counters.shared + plan.resumed,
            duration: self.copy_time,
        }
    }

    pub(super) fn into_report(self, committed: bool) -> DiskReport {
        let outside =
            |plan: &DiskPlan| self.point.capacity.bytes().saturating_sub(plan.scope.bytes().bytes());
        let unchanged = ByteSize::new(self.plan.as_ref().map_or(0, outside));
        DiskReport {
            mode: self.mode(),
            volume: self.volume.map(|volume| volume.record.id),
            capacity: self.point.capacity,
            bytes_read: self.counters.progress.read,
            bytes_written: self.counters.progress.written,
            bytes_shared: self.counters.shared,
            bytes_zero: self.counters.zero,
            bytes_skipped: self.counters.zero_promised + unchanged,
            bytes_unchanged: unchanged,
            bytes_resumed: self.plan.as_ref().map_or(ByteSize::ZERO, |plan| plan.resumed),
            bytes_equal: self.plan.as_ref().map_or(ByteSize::ZERO, |plan| plan.equal),
            bytes_recopied: self.plan.map_or(ByteSize::ZERO, |plan| plan.recopied),
            bytes_hashed: self.counters.hashed,
            bytes_verified: self.verified,
            bytes_promised_zero: self.promised_zero,
            change_id: committed.then_some(self.point.change_id),
            key: self.point.key,
            duration: self.copy_time,
            stages: self.counters.stages,
            error: self.error,
        }
    }
}
