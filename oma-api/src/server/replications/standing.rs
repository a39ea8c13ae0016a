//! How jobs stand, for collectors.

use async_trait::async_trait;
use futures_util::TryStreamExt as _;
use oma_core::{Clock as _, Result, SystemClock};
use std::collections::BTreeMap;
use std::time::Duration;

use super::ReplicationRoutes;
use crate::server::figures::{Figure, FigurePage};

/// Of jobs that have ended only those of the last day are looked up: history grows for ever.
const DAY: Duration = Duration::from_hours(24);

/// Jobs, the queue, what is driven here, and exports of jobs.
#[derive(Debug)]
pub(super) struct Standing(pub(super) ReplicationRoutes);

#[async_trait]
impl Figure for Standing {
    async fn tell(&self, page: &FigurePage) -> Result<()> {
        self.jobs(page).await?;
        self.driven(page).await?;
        self.exports(page).await
    }
}

impl Standing {
    async fn jobs(&self, page: &FigurePage) -> Result<()> {
        let now = SystemClock.now();
        let summary = self.0.overview.summary(now.before(DAY)).await?;
        let live = summary.live.iter().map(|(status, jobs)| (status.as_str(), *jobs));
        page.counts("oma_jobs", "Jobs that have not ended, by how they stand", "status", live)?;
        let ended = summary.ended.iter().map(|(status, ended)| (status.as_str(), ended.jobs));
        let help = "Jobs that ended in the last 24 hours, by how";
        page.counts("oma_jobs_ended_last_day", help, "status", ended)?;
        let bytes = summary.ended.iter().map(|(status, ended)| (status.as_str(), ended.bytes.bytes()));
        let help = "Bytes that jobs which ended in the last 24 hours made durable at their targets";
        page.counts("oma_job_bytes_ended_last_day", help, "status", bytes)?;
        page.count("oma_jobs_waiting", "Jobs that anybody may take up now: the queue", summary.waiting)?;
        let oldest =
            summary.oldest_due.map_or(0, |due| now.as_millis().saturating_sub(due.as_millis()) / 1000);
        let help = "How long the one that waits longest could have been taken up";
        page.count("oma_jobs_waiting_oldest_seconds", help, u64::try_from(oldest).unwrap_or_default())?;
        let vms = summary.vms.iter().map(|(status, vms)| (status.as_str(), *vms));
        page.counts("oma_vms", "VMs in the records, by how they stand", "status", vms)
    }

    /// How far the jobs are that this process drives.
    async fn driven(&self, page: &FigurePage) -> Result<()> {
        let Some(worker) = &self.0.worker else { return Ok(()) };
        let driven = worker.driven();
        let (mut total, mut durable, mut rate) = (0, 0, 0);
        for id in &driven {
            let told = self.0.replicator.services().jobs.progress(id).await?;
            for disk in told.iter().flat_map(|told| &told.disks) {
                total += disk.total.bytes();
                durable += disk.durable.bytes();
                rate += disk.rate.map_or(0, |rate| rate.bytes());
            }
        }
        page.count(
            "oma_worker_running",
            "Whether the worker of this process looks for jobs",
            worker.is_running().into(),
        )?;
        let jobs = u64::try_from(driven.len()).unwrap_or(u64::MAX);
        page.count("oma_worker_jobs", "Jobs that this process drives", jobs)?;
        let bytes = [("total", total), ("durable", durable)];
        page.counts(
            "oma_worker_job_bytes",
            "Bytes of those jobs: to be covered, and durable",
            "kind",
            bytes,
        )?;
        page.count("oma_worker_bytes_per_second", "Durable bytes of those jobs a second, of late", rate)
    }

    async fn exports(&self, page: &FigurePage) -> Result<()> {
        let mut exports: BTreeMap<&'static str, u64> = BTreeMap::new();
        let mut all = self.0.replicator.services().exports.exports();
        while let Some(export) = all.try_next().await? {
            *exports.entry(export.status.as_str()).or_default() += 1;
        }
        page.counts("oma_exports", "Exports of jobs in the records, by how they stand", "status", exports)
    }
}
