use std::collections::BTreeMap;

use async_trait::async_trait;
use oma_core::Timestamp;
use oma_core::record::{Ended, Summary};
use oma_core::state::{ContextStatus, JobStatus};
use oma_core::traits::Overview;

use crate::db::{Fields, Row, vals};
use crate::error::Result;
use crate::sql::overview;
use crate::store::SqlStore;

impl SqlStore {
    async fn sum_up(&self, since: Timestamp) -> Result<Summary> {
        let mut tx = self.db.snapshot().await?;
        let now = tx.now().await?;
        let vms = tx.find(overview::VMS, vals![], vms).await?.unwrap_or_default();
        let live = tx.find(overview::LIVE, vals![], live).await?.unwrap_or_default();
        let ended = tx.find(overview::ENDED, vals![since], ended).await?.unwrap_or_default();
        let (waiting, oldest_due) =
            tx.find(overview::WAITING, vals![now], waiting).await?.unwrap_or_default();
        Ok(Summary { live, ended, vms, waiting, oldest_due })
    }
}

/// The numbers in the columns of these states, without the zeroes.
fn counted<S: Ord + Copy>(
    fields: &Fields<'_>,
    states: impl Iterator<Item = S>,
    column: fn(S) -> &'static str,
) -> Result<BTreeMap<S, u64>> {
    let mut counts = BTreeMap::new();
    for state in states {
        let number = fields.count(column(state))?;
        if number > 0 {
            counts.insert(state, number);
        }
    }
    Ok(counts)
}

fn vms(row: &Row) -> Result<BTreeMap<ContextStatus, u64>> {
    let fields = row.fields("vm_replication_contexts", "id");
    counted(&fields, ContextStatus::ALL.iter().copied(), ContextStatus::as_str)
}

fn live(row: &Row) -> Result<BTreeMap<JobStatus, u64>> {
    let fields = row.fields("replication_jobs", "id");
    let live = JobStatus::ALL.iter().copied().filter(|status| !status.is_terminal());
    counted(&fields, live, JobStatus::as_str)
}

fn ended(row: &Row) -> Result<BTreeMap<JobStatus, Ended>> {
    let fields = row.fields("replication_jobs", "id");
    let ended = JobStatus::ALL.iter().copied().filter(|status| status.is_terminal());
    let mut all = BTreeMap::new();
    for (status, jobs) in counted(&fields, ended, JobStatus::as_str)? {
        let bytes = fields.size(match status {
            JobStatus::Completed => "completed_bytes",
            JobStatus::Failed => "failed_bytes",
            _ => "cancelled_bytes",
        })?;
        all.insert(status, Ended { jobs, bytes });
    }
    Ok(all)
}

fn waiting(row: &Row) -> Result<(u64, Option<Timestamp>)> {
    let fields = row.fields("replication_jobs", "id");
    Ok((fields.count("waiting")?, fields.opt_time("oldest_due")?))
}

#[async_trait]
impl Overview for SqlStore {
    async fn summary(&self, since: Timestamp) -> oma_core::Result<Summary> {
        self.sum_up(since).await.map_err(|error| error.at("sum up", "the store"))
    }
}
