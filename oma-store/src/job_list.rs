//! Lists of jobs: in the order of their insertion, a page of each state by its index, merged.

use std::collections::BTreeSet;

use futures_util::TryStreamExt as _;
use futures_util::stream::BoxStream;
use oma_core::record::{JobFilter, Order, ReplicationJob};
use oma_core::state::JobStatus;
use oma_core::{ContextId, WorkerId};

use crate::db::{Row, vals};
use crate::error::{Result, StoreError};
use crate::page::{PAGE, merged, pages};
use crate::record::job;
use crate::sql::jobs;
use crate::store::SqlStore;

/// A job and its place in the order of insertion.
type Placed = (i64, ReplicationJob);

impl SqlStore {
    pub(crate) fn list_jobs(&self, filter: JobFilter) -> BoxStream<'_, oma_core::Result<ReplicationJob>> {
        let page = move |behind| {
            let filter = filter.clone();
            async move {
                let page = self.job_page(&filter, behind).await;
                page.map_err(|error| error.at("list", "jobs"))
            }
        };
        Box::pin(pages(None, |(seq, _): &Placed| *seq, page).map_ok(|(_, job)| job))
    }

    async fn job_page(&self, filter: &JobFilter, last: Option<i64>) -> Result<Vec<Placed>> {
        let behind = match (last, &filter.after) {
            (Some(seq), _) => seq,
            (None, Some(id)) => {
                let seq = self.db.find(jobs::SEQ, vals![id], seq).await?;
                seq.ok_or_else(|| StoreError::missing("job", id))?
            }
            (None, None) => match filter.order {
                Order::Newest => i64::MAX,
                Order::Oldest => i64::MIN,
            },
        };
        match (&filter.left_to, &filter.context, filter.states()) {
            // They are few: one page, ended by an empty second one.
            (Some(_), ..) if last.is_some() => Ok(Vec::new()),
            (Some(worker), ..) => self.jobs_left_to(worker, filter, behind).await,
            // There is one at most.
            (None, Some(vm), Some(_)) if filter.live_only => {
                let live = self.db.find(jobs::LIVE, vals![vm], placed).await?;
                Ok(live.filter(|live| is_wanted(filter, behind, live)).into_iter().collect())
            }
            (None, vm, Some(states)) => self.jobs_in(&states, vm.as_ref(), filter.order, behind).await,
            (None, Some(vm), None) => {
                let sql = match filter.order {
                    Order::Newest => jobs::NEWEST_OF_CONTEXT,
                    Order::Oldest => jobs::OLDEST_OF_CONTEXT,
                };
                self.db.all(sql, vals![vm, behind, PAGE], placed).await
            }
            (None, None, None) => {
                let sql = match filter.order {
                    Order::Newest => jobs::NEWEST,
                    Order::Oldest => jobs::OLDEST,
                };
                self.db.all(sql, vals![behind, PAGE], placed).await
            }
        }
    }

    /// A page of what stands in these states, as of one moment: a job that goes from one of them to another is in neither page of theirs,
    /// or in both, when they are read at two.
    async fn jobs_in(
        &self,
        states: &BTreeSet<JobStatus>,
        vm: Option<&ContextId>,
        order: Order,
        behind: i64,
    ) -> Result<Vec<Placed>> {
        let of_state = |status: JobStatus| match (vm, order) {
            (Some(vm), Order::Newest) => (jobs::NEWEST_OF_BOTH, vals![vm, status, behind, PAGE]),
            (Some(vm), Order::Oldest) => (jobs::OLDEST_OF_BOTH, vals![vm, status, behind, PAGE]),
            (None, Order::Newest) => (jobs::NEWEST_OF_STATUS, vals![status, behind, PAGE]),
            (None, Order::Oldest) => (jobs::OLDEST_OF_STATUS, vals![status, behind, PAGE]),
        };
        if let (1, Some(status)) = (states.len(), states.first()) {
            let (sql, values) = of_state(*status);
            return self.db.all(sql, values, placed).await;
        }
        let mut tx = self.db.snapshot().await?;
        let mut found = Vec::new();
        for status in states {
            let (sql, values) = of_state(*status);
            found.extend(tx.all(sql, values, placed).await?);
        }
        Ok(merged(found, order, |(seq, _)| *seq))
    }

    /// As of one moment of the database's clock.
    async fn jobs_left_to(&self, worker: &WorkerId, filter: &JobFilter, behind: i64) -> Result<Vec<Placed>> {
        let mut tx = self.db.snapshot().await?;
        let now = tx.now().await?;
        let mut left = tx.all(jobs::LEFT_TO, vals![worker, now], placed).await?;
        left.retain(|one| is_wanted(filter, behind, one));
        left.sort_by(|(one, _), (other, _)| filter.order.compare(one, other));
        Ok(left)
    }
}

fn is_wanted(filter: &JobFilter, behind: i64, (seq, job): &Placed) -> bool {
    filter.order.is_behind(seq, &behind) && filter.lets_through(job)
}

fn placed(row: &Row) -> Result<Placed> {
    Ok((seq(row)?, job(row)?))
}

fn seq(row: &Row) -> Result<i64> {
    row.fields("replication_jobs", "id").int("seq")
}
