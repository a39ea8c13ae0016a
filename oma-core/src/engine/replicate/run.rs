//! What the steps of one run share.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::disk::RunDisk;
use crate::engine::config::{ReplicateConfig, ReplicateRequest};
use crate::engine::copier::Budget;
use crate::engine::progress::{Event, Progress};
use crate::engine::report::{Outcome, Report};
use crate::engine::services::Services;
use crate::record::{Lease, ReplicationJob, SourceVm, VmContext};
use crate::seal::SealedReport;
use crate::state::{JobEvent, JobStatus, ReplicationType};
use crate::traits::PointInTime;
use crate::{Error, ErrorKind, RecoveryPointId, Result};

/// One run of one job.
#[derive(Debug)]
pub(super) struct Run<'r> {
    pub(super) services: &'r Services,
    pub(super) config: &'r ReplicateConfig,
    pub(super) budget: &'r Budget,
    pub(super) request: &'r ReplicateRequest,
    pub(super) progress: &'r dyn Progress,
    pub(super) stop: &'r CancellationToken,
    pub(super) job: ReplicationJob,
    pub(super) vm: SourceVm,
    pub(super) context: VmContext,
    pub(super) lease: Lease,
    pub(super) point: Option<PointInTime>,
    pub(super) disks: Vec<RunDisk>,
    pub(super) verification: Option<SealedReport>,
    pub(super) recovery_point: Option<RecoveryPointId>,
    /// Another attempt cannot help.
    pub(super) is_hopeless: bool,
    warnings: Vec<String>,
}

impl<'r> Run<'r> {
    #[expect(clippy::too_many_arguments, reason = "one private caller; each is a part of its own")]
    pub(super) const fn new(
        services: &'r Services,
        config: &'r ReplicateConfig,
        budget: &'r Budget,
        request: &'r ReplicateRequest,
        progress: &'r dyn Progress,
        stop: &'r CancellationToken,
        job: ReplicationJob,
        vm: SourceVm,
        context: VmContext,
        lease: Lease,
    ) -> Self {
        Self {
            services,
            config,
            budget,
            request,
            progress,
            stop,
            job,
            vm,
            context,
            lease,
            point: None,
            disks: Vec::new(),
            verification: None,
            recovery_point: None,
            is_hopeless: false,
            warnings: Vec::new(),
        }
    }

    /// Moves the job by an event, unless an earlier run did already.
    pub(super) async fn enter(&mut self, event: JobEvent) -> Result<()> {
        let moved_already = |status: JobStatus| {
            JobStatus::ALL
                .iter()
                .any(|from| from.next(event).is_ok_and(|to| !to.is_terminal() && to <= status))
        };
        if !moved_already(self.job.status) {
            self.job = self.services.jobs.advance(&self.lease, self.job.status, event).await?;
        }
        Ok(())
    }

    /// Refuses to go on once stopped (L11).
    pub(super) fn check_stop(&self) -> Result<()> {
        if self.stop.is_cancelled() {
            return Err(
                Error::new(ErrorKind::Cancelled, "drive job", &self.job.id).because("the run was stopped")
            );
        }
        Ok(())
    }

    /// Tells an operator something that does not end the job, once.
    pub(super) fn warn(&mut self, warning: String) {
        if self.warnings.contains(&warning) {
            return;
        }
        self.progress.event(Event::Warning(&warning));
        self.warnings.push(warning);
    }

    /// What this run did.
    pub(super) fn into_report(self, outcome: Outcome, duration: Duration) -> Report {
        let full = |disk: &RunDisk| disk.mode() == ReplicationType::Initial;
        let replication_type = match self.disks.is_empty() {
            true => self.job.replication_type,
            false if self.disks.iter().any(full) => ReplicationType::Initial,
            false => ReplicationType::Incremental,
        };
        let completed = outcome.is_completed();
        let disk = |disk: RunDisk| disk.into_report(completed);
        Report {
            job: self.job.id,
            epoch: self.job.epoch,
            replication_type,
            duration,
            disks: self.disks.into_iter().map(disk).collect(),
            outcome,
            verification: self.verification,
            recovery_point: self.recovery_point.filter(|_| completed),
            warnings: self.warnings,
        }
    }
}
