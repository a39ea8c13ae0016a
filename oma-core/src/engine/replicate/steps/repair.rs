//! Compares in place of copying: what is equal already need not cross the link.

use std::sync::Arc;

use super::copy::open_source;
use crate::engine::compare::{Comparison, Found};
use crate::engine::config::TrustPolicy;
use crate::engine::replicate::disk::RunDisk;
use crate::engine::replicate::plan::DiskPlan;
use crate::engine::replicate::run::Run;
use crate::engine::verify::{fresh_seed, leaves};
use crate::record::SampleSize;
use crate::traits::BlockDevice;
use crate::{Epoch, Extent, ExtentSet, Generation, Result};

/// What is compared of one disk before it is copied.
#[derive(Debug)]
pub(super) struct Repair<'a, 'r> {
    pub(super) run: &'a Run<'r>,
    pub(super) disk: &'a RunDisk,
    /// The disk at the point in time, once it was opened.
    pub(super) source: Option<Arc<dyn BlockDevice>>,
}

impl Repair<'_, '_> {
    /// Compares some leaves that are said to be unchanged, if the policy says so; those that differ.
    pub(super) async fn spot_check(&mut self, plan: &DiskPlan) -> Result<ExtentSet> {
        let TrustPolicy::SpotCheck { permille } = self.run.request.trust else { return Ok(ExtentSet::new()) };
        if plan.basis.base.is_none() {
            return Ok(ExtentSet::new());
        }
        let sample = leaves(SampleSize::Permille(permille), fresh_seed(), self.disk.point.capacity);
        let unchanged = sample.difference(&plan.scope);
        Ok(self.compare(&unchanged).await?.differences)
    }

    /// What of the work of a full copy is equal at both ends already. Nothing is asked where nothing can be: of a volume
    /// that never held the disk.
    pub(super) async fn equal(&mut self, plan: &DiskPlan, last: Epoch) -> Result<ExtentSet> {
        let held = last > Epoch(0) || self.disk.ready_volume().record.generation > Generation::FIRST;
        if plan.basis.base.is_some() || plan.blank || plan.work.is_empty() || !held {
            return Ok(ExtentSet::new());
        }
        let found = self.compare(&plan.work).await?;
        Ok(plan.work.difference(&found.differences))
    }

    async fn compare(&mut self, scope: &ExtentSet) -> Result<Found> {
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
        Comparison { source, target, config: run.config, stop: run.stop }.run(&scope).await
    }
}
