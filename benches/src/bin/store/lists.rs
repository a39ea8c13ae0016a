//! Pages of jobs by their state, among many that stand otherwise: by the index, and by reading on until a page is full.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use futures_util::{StreamExt, TryStreamExt};
use oma_benches::{Cell, Table, quantile};
use oma_core::record::{JobFilter, Order};
use oma_core::state::JobStatus;
use oma_core::traits::JobStore;
use oma_core::{Clock, JobId, SystemClock};
use oma_store::SqlStore;

use crate::engine::{Base, Engine, Host};
use crate::fill::{self, Shape};
use crate::{Effort, Result, say};

/// What a client is answered unasked, and one more, which tells that there is more.
const ROWS: usize = 101;
/// Jobs: of so many VMs, a hundred each.
const VMS: i64 = 1000;
/// How often each page is asked for in a round.
const ASKS: u32 = 20;

/// How jobs are looked for.
#[derive(Clone, Copy, Debug)]
struct Way {
    name: &'static str,
    statuses: &'static [JobStatus],
    order: Order,
    /// Whether the store is told of the states, or every job is read and those of other states are left out.
    is_told: bool,
}

const WAYS: &[Way] = &[
    Way { name: "failed", statuses: &[JobStatus::Failed], order: Order::Newest, is_told: true },
    Way { name: "failed, oldest first", statuses: &[JobStatus::Failed], order: Order::Oldest, is_told: true },
    Way {
        name: "failed or completed",
        statuses: &[JobStatus::Failed, JobStatus::Completed],
        order: Order::Newest,
        is_told: true,
    },
    Way {
        name: "failed, of all that is read",
        statuses: &[JobStatus::Failed],
        order: Order::Newest,
        is_told: false,
    },
];

pub(crate) async fn measure(host: &Host, effort: Effort) -> Result<Vec<Table>> {
    let base = host.database().await?;
    fill::queue(&base, Shape::new(VMS, 100, SystemClock.now())).await?;
    fail_one_of_a_hundred(&base).await?;
    let jobs = VMS * 100;
    let title = format!("### {}: {jobs} jobs, 1 % failed: a page of {}, p50 and p99", host.engine, ROWS - 1);
    let columns = ["jobs that are", "first, ms", "p99, ms", "late, ms", "p99, ms"];
    let mut table = Table::new(title, &columns);
    for way in WAYS {
        let late = late(&base.store, *way).await?;
        let mut cells = vec![Cell::from(way.name)];
        for after in [None, Some(&late)] {
            let times = times(&base.store, *way, after, effort.rounds * ASKS).await?;
            let [p50, p99] = [50, 99].map(|percent| quantile(&times, percent));
            say(&format!("  {} behind {after:?}: {p50:.2?}, {p99:.2?}", way.name));
            cells.extend([p50, p99].map(|time| Cell::Number(time.as_secs_f64() * 1000.0, 2)));
        }
        table.row(cells);
    }
    base.end().await?;
    Ok(vec![table])
}

/// One of twenty was filled in as failed.
async fn fail_one_of_a_hundred(base: &Base) -> Result<()> {
    let mut bare = base.bare().await?;
    bare.script(
        "UPDATE replication_jobs SET status = 'completed', error_message = NULL WHERE status = 'failed' AND seq % 100 <> 0",
    )
    .await?;
    let analyze = match base.engine {
        Engine::Sqlite => "ANALYZE",
        Engine::Mariadb => "ANALYZE TABLE replication_jobs",
        Engine::Postgres => "VACUUM ANALYZE replication_jobs",
    };
    bare.script(analyze).await
}

/// The job behind which nine tenths of those that failed were told.
async fn late(store: &SqlStore, way: Way) -> Result<JobId> {
    let statuses = BTreeSet::from([JobStatus::Failed]);
    let filter = JobFilter { statuses, order: way.order, ..JobFilter::default() };
    let failed: Vec<_> = store.list(filter).map_ok(|job| job.id).try_collect().await?;
    let at = failed.len() * 9 / 10;
    failed.into_iter().nth(at.saturating_sub(ROWS)).ok_or_else(|| "no job has failed".into())
}

/// The first question, for which statements are prepared, is not counted.
async fn times(store: &SqlStore, way: Way, after: Option<&JobId>, count: u32) -> Result<Vec<Duration>> {
    let wanted: BTreeSet<_> = way.statuses.iter().copied().collect();
    let mut times = Vec::new();
    for turn in 0..=count {
        let statuses = if way.is_told { wanted.clone() } else { BTreeSet::new() };
        let filter = JobFilter { statuses, order: way.order, after: after.cloned(), ..JobFilter::default() };
        let begun = Instant::now();
        let is_wanted = |status: JobStatus| wanted.contains(&status);
        let page = store.list(filter).try_filter(|job| std::future::ready(is_wanted(job.status)));
        let page: Vec<_> = page.take(ROWS).try_collect().await?;
        let took = begun.elapsed();
        if page.len() < ROWS {
            return Err(format!("{}: only {} jobs behind {after:?}", way.name, page.len()).into());
        }
        if turn > 0 {
            times.push(took);
        }
    }
    Ok(times)
}
