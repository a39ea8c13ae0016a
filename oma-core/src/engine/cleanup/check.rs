//! Counts what is left (seed 003, phase 5).

use futures_util::TryStreamExt as _;

use super::CleanupService;
use super::run::{NotDone, left_over};
use crate::record::{
    Cleanup, CleanupAction as A, CleanupItemKind as K, CleanupPlan, ExportRecord, Orphans, RecoveryPoint,
};
use crate::state::PointStatus;
use crate::{ExportName, Result};

impl CleanupService {
    /// The step that proves that nothing is left.
    pub(super) async fn check(&self, cleanup: &Cleanup) -> Result<(), NotDone> {
        match self.count(cleanup).await {
            Ok(left) if left.is_clean() => Ok(()),
            Ok(left) => Err(left_over(&left)),
            Err(error) => Err(NotDone::Failed(error.chain())),
        }
    }

    /// What is left of what the plan removes, and of what names the job.
    pub(super) async fn count(&self, cleanup: &Cleanup) -> Result<Orphans> {
        let mut left = self.records().orphans(&cleanup.spec.plan.job, &cleanup.spec.plan.context).await?;
        left.points = self.unready(cleanup).await?;
        left.snapshots = self.late(cleanup).await?;
        left.served = self.served(cleanup).await?;
        let services = self.volumes().services();
        for step in &cleanup.steps {
            match &step.action {
                A::Delete { volume } | A::Forget { volume } => {
                    let found = self.volumes().answered(&volume.id, services.backend.get(&volume.id)).await?;
                    let is_left = found.is_some() || services.volumes.volume(&volume.id).await?.is_some();
                    left.volumes += u64::from(is_left);
                }
                A::DeleteJob { job } => left.jobs += u64::from(services.jobs.get(job).await?.is_some()),
                A::Withdraw { .. }
                | A::DropPoint { .. }
                | A::DropSnapshot { .. }
                | A::Detach { .. }
                | A::Condemn { .. }
                | A::DeleteFailover { .. }
                | A::Check => {}
            }
        }
        Ok(left)
    }

    async fn unready(&self, cleanup: &Cleanup) -> Result<u64> {
        let plan = &cleanup.spec.plan;
        let points: Vec<RecoveryPoint> = self.0.services.points.points(&plan.context).try_collect().await?;
        let is_left = |point: &&RecoveryPoint| {
            point.job == plan.job
                && point.status != PointStatus::Ready
                && !stays(plan, K::RecoveryPoint, &point.id.to_string())
        };
        Ok(points.iter().filter(is_left).map(|_| 1).sum())
    }

    async fn late(&self, cleanup: &Cleanup) -> Result<u64> {
        let plan = &cleanup.spec.plan;
        let late = self.late_snapshots(plan).await?;
        Ok(late
            .snapshots
            .iter()
            .filter(|spec| !stays(plan, K::Snapshot, &spec.id.to_string()))
            .map(|_| 1)
            .sum())
    }

    /// Exports that the plan withdraws and that are served without a record: one that a later job publishes has one.
    async fn served(&self, cleanup: &Cleanup) -> Result<u64> {
        let services = &self.0.services;
        let served: Vec<ExportName> =
            services.server.list().map_ok(|export| export.name).try_collect().await?;
        let recorded: Vec<ExportRecord> = services.exports.exports().try_collect().await?;
        let is_recorded = |name: &ExportName| recorded.iter().any(|export| export.name == *name);
        let mut left = 0;
        for step in &cleanup.steps {
            if let A::Withdraw { export, .. } = &step.action {
                left += u64::from(served.contains(export) && !is_recorded(export));
            }
        }
        Ok(left)
    }
}

/// Whether the plan told that it stays.
fn stays(plan: &CleanupPlan, kind: K, id: &str) -> bool {
    plan.items.iter().any(|item| item.kind == kind && item.id == id && item.protected.is_some())
}
