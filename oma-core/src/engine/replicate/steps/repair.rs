//! Compares in place of copying: what is equal already need not cross the link.

use std::sync::Arc;

use async_trait::async_trait;

use super::copy::open_source;
use super::stamp::distrust;
use crate::engine::compare::{Comparison, Doubt, Found, Leg, Listener, broken_promise};
use crate::engine::config::{CopyMode, TrustPolicy};
use crate::engine::replicate::disk::RunDisk;
use crate::engine::replicate::plan::DiskPlan;
use crate::engine::replicate::run::Run;
use crate::engine::retry::retry;
use crate::engine::tally::Tally;
use crate::engine::verify::{fresh_seed, leaves};
use crate::record::{SampleSize, VolumeTag};
use crate::traits::{BlockDevice, ReadManner};
use crate::tree::LEAF;
use crate::{Epoch, Error, Extent, ExtentSet, Generation, Result};

/// What is found equal is recorded each time so much of a disk is compared.
const LEG: u64 = 1 << 30;
/// But no more often in one comparison: each entry names all that is finished.
const MOST_RECORDS: u64 = 64;

/// What came of a disk on the way to its plan, whether or not there is one in the end.
#[derive(Debug, Default)]
pub(super) struct Traces {
    /// The disk at the point in time, once it was opened.
    pub(super) source: Option<Arc<dyn BlockDevice>>,
    /// The volume's mark, when its generation ended.
    pub(super) tag: Option<VolumeTag>,
    /// Whether the volume was marked as in mid-epoch.
    pub(super) marked: bool,
}

/// What is compared of one disk before it is copied.
#[derive(Debug)]
pub(super) struct Repair<'a, 'r, 't> {
    pub(super) run: &'a Run<'r>,
    pub(super) disk: &'a RunDisk,
    pub(super) tally: &'a mut Tally<'t>,
    pub(super) traces: &'a mut Traces,
}

impl Repair<'_, '_, '_> {
    /// Compares some leaves that are not copied, if the policy says so: those that are said to be unchanged, and those that an
    /// interrupted run had copied. Those that differ.
    pub(super) async fn spot_check(&mut self, plan: &DiskPlan) -> Result<ExtentSet> {
        let TrustPolicy::SpotCheck { permille } = self.run.request.trust else { return Ok(ExtentSet::new()) };
        let sample = leaves(SampleSize::Permille(permille), fresh_seed(), self.disk.point.capacity);
        let believed = sample.difference(&plan.work);
        if believed.is_empty() {
            return Ok(ExtentSet::new());
        }
        Ok(self.compare(&believed, Doubt::All, None).await?.differences)
    }

    /// Settles what of the work of a full copy is equal at both ends already, and durable, and records it on the way: who is killed
    /// need not compare it again. Nothing is asked where nothing can be equal: of a volume that never held anything of the disk.
    ///
    /// What is read through a page cache is believed only of a volume that its last writer left in good order: after a failed
    /// flush, of whomever, the cache may hold what the device does not.
    pub(super) async fn settle_equal(&mut self, plan: &mut DiskPlan, last: Epoch) -> Result<()> {
        let (run, disk) = (self.run, self.disk);
        if run.request.mode == CopyMode::Push {
            // The agent compares: only it can read the source.
            return Ok(());
        }
        let volume = disk.ready_volume();
        // A spot check may have ended the generation that the volume was opened with.
        let generation = plan.basis.generation;
        let held = last > Epoch(0) || generation > Generation::FIRST;
        let untouched = volume.untouched && volume.record.generation == generation;
        let asked = if held { plan.work.clone() } else { plan.work.intersection(&plan.doubted) };
        if plan.basis.base.is_some() || plan.blank || asked.is_empty() {
            return Ok(());
        }
        let mut settling = Settling { run, disk, plan, asked: &asked, untouched, marked: false };
        let compared = self.compare(&asked, Doubt::Some, Some(&mut settling)).await;
        self.traces.marked |= settling.marked;
        compared?;
        plan.note_equal();
        Ok(())
    }

    async fn compare(
        &mut self,
        scope: &ExtentSet,
        doubt: Doubt,
        listener: Option<&mut dyn Listener>,
    ) -> Result<Found> {
        let (run, target) = (self.run, self.disk.target_device());
        let source = match &self.traces.source {
            Some(source) => source.clone(),
            None => open_source(run, self.disk, run.stop).await?,
        };
        self.traces.source = Some(source.clone());
        // What is found equal counts as durable.
        target.flush().await?;
        let held = Extent::between(0, target.info().capacity.bytes()).into_iter().collect();
        let scope = scope.intersection(&held);
        let admission = &run.budget.admission(&run.vm, &self.disk.point.key);
        let comparison =
            Comparison { source, target, doubt, admission, config: &self.disk.config, stop: run.stop };
        let found = comparison.run_told(&scope, self.tally, listener).await?;
        match found.broken {
            None => Ok(found),
            Some(extent) => Err(broken(run, self.disk, extent).await),
        }
    }
}

/// Ends the generation of a volume whose source broke a promise: what was copied believing must not be built on by a run that does
/// not (L10).
async fn broken(run: &Run<'_>, disk: &RunDisk, extent: Extent) -> Error {
    distrust(run, disk).await.err().unwrap_or_else(|| broken_promise(extent))
}

/// Settles a plan by what a comparison finds, leg by leg.
struct Settling<'a, 'r> {
    run: &'a Run<'r>,
    disk: &'a RunDisk,
    plan: &'a mut DiskPlan,
    /// What is compared.
    asked: &'a ExtentSet,
    /// Whether the last writer left the volume in good order, and nobody wrote since.
    untouched: bool,
    marked: bool,
}

#[async_trait]
impl Listener for Settling<'_, '_> {
    fn longest(&self) -> u64 {
        LEG.max(self.disk.point.capacity.bytes() / MOST_RECORDS)
    }

    async fn compared(&mut self, leg: &Leg) -> Result<()> {
        if let Some(extent) = leg.broken {
            return Err(broken(self.run, self.disk, extent).await);
        }
        if leg.manner == ReadManner::ThroughCache && !self.untouched {
            return Ok(());
        }
        // What differs was looked at through the page cache: what else its leaf has is not known to be on the device.
        let whole_leaves = |extent: Extent| {
            Extent::between(extent.offset() / LEAF * LEAF, extent.end().next_multiple_of(LEAF))
        };
        let differences = match self.untouched || leg.manner != ReadManner::PastCache {
            true => leg.differences.clone(),
            false => leg.differences.iter().filter_map(whole_leaves).collect(),
        };
        let equal = self.asked.intersection(&[leg.span].into_iter().collect()).difference(&differences);
        if equal.is_empty() {
            return Ok(());
        }
        let Run { services, lease, config, stop, .. } = self.run;
        if !self.marked {
            // Only a volume in mid-epoch has finished extents; nothing is written yet (L12).
            let volume = &self.disk.ready_volume().record.id;
            retry(&config.retry, stop, || services.volumes.mark_inconsistent(lease, volume)).await?;
            self.marked = true;
        }
        self.plan.settle(&equal);
        let (key, entry) = (&self.disk.point.key, self.plan.journal());
        retry(&config.retry, stop, || services.journal.begin(lease, key, &entry)).await
    }
}
