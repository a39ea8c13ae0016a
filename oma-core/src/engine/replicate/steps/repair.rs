//! Compares in place of copying: what is equal already need not cross the link.

use std::sync::Arc;

use super::copy::open_source;
use crate::engine::compare::{Comparison, Doubt, Found, broken_promise};
use crate::engine::config::TrustPolicy;
use crate::engine::replicate::disk::RunDisk;
use crate::engine::replicate::plan::DiskPlan;
use crate::engine::replicate::run::Run;
use crate::engine::tally::Tally;
use crate::engine::verify::{fresh_seed, leaves};
use crate::record::SampleSize;
use crate::traits::{BlockDevice, ReadManner};
use crate::{Epoch, Extent, ExtentSet, Generation, Result};

/// What is compared of one disk before it is copied.
#[derive(Debug)]
pub(super) struct Repair<'a, 'r, 't> {
    pub(super) run: &'a Run<'r>,
    pub(super) disk: &'a RunDisk,
    pub(super) tally: &'a mut Tally<'t>,
    /// The disk at the point in time, once it was opened.
    pub(super) source: Option<Arc<dyn BlockDevice>>,
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
        Ok(self.compare(&believed, Doubt::All).await?.differences)
    }

    /// What of the work of a full copy is equal at both ends already, and durable. Nothing is asked where nothing can be: of a
    /// volume that never held anything of the disk.
    ///
    /// What is read through a page cache is believed only of a volume that its last writer left in good order: after a failed
    /// flush, of whomever, the cache may hold what the device does not.
    pub(super) async fn equal(&mut self, plan: &DiskPlan, last: Epoch) -> Result<ExtentSet> {
        let volume = self.disk.ready_volume();
        // A spot check may have ended the generation that the volume was opened with.
        let generation = plan.basis.generation;
        let held = last > Epoch(0) || generation > Generation::FIRST;
        let untouched = volume.untouched && volume.record.generation == generation;
        let asked = if held { plan.work.clone() } else { plan.work.intersection(&plan.doubted) };
        if plan.basis.base.is_some() || plan.blank || asked.is_empty() {
            return Ok(ExtentSet::new());
        }
        let found = self.compare(&asked, Doubt::Some).await?;
        if found.manner == ReadManner::ThroughCache && !untouched {
            return Ok(ExtentSet::new());
        }
        Ok(asked.difference(&found.differences))
    }

    async fn compare(&mut self, scope: &ExtentSet, doubt: Doubt) -> Result<Found> {
        let (run, target) = (self.run, self.disk.target_device());
        let source = match &self.source {
            Some(source) => source.clone(),
            None => open_source(run, self.disk, run.stop).await?,
        };
        self.source = Some(source.clone());
        // What is found equal counts as durable.
        target.flush().await?;
        let held = Extent::between(0, target.info().capacity.bytes()).into_iter().collect();
        let scope = scope.intersection(&held);
        let admission = &run.budget.admission(&run.vm, &self.disk.point.key);
        let comparison = Comparison { source, target, doubt, admission, config: run.config, stop: run.stop };
        let found = comparison.run_told(&scope, self.tally).await?;
        match found.broken {
            None => Ok(found),
            Some(extent) => {
                // What was copied believing must not be built on by a run that does not (L10).
                let volume = &self.disk.ready_volume().record.id;
                run.services.volumes.advance_generation(&run.lease, volume).await?;
                Err(broken_promise(extent))
            }
        }
    }
}
