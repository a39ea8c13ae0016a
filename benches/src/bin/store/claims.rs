//! Claims of waiting jobs, by one worker and by several at once.

use std::time::Duration;

use oma_benches::{Cell, Table, median};
use oma_core::record::{ClaimLimits, ClaimRequest, JobEnd};
use oma_core::traits::JobStore;
use oma_core::{Clock, SystemClock, WorkerId};

use crate::engine::{Base, Host};
use crate::fill::{self, Shape};
use crate::rate::rate;
use crate::{Effort, Result, say};

/// Jobs that wait when a measurement begins.
const QUEUE: i64 = 10_000;
const WORKERS: [u32; 4] = [1, 2, 4, 8];

/// What is measured with each number of workers.
#[derive(Clone, Copy, Debug)]
struct Kind {
    /// Each claim counts the leases of everybody; none is refused.
    bounded: bool,
    /// Each job is ended before the next one is claimed.
    ended: bool,
}

const KINDS: [Kind; 4] = [
    Kind { bounded: false, ended: false },
    Kind { bounded: true, ended: false },
    Kind { bounded: false, ended: true },
    Kind { bounded: true, ended: true },
];

pub(crate) async fn measure(host: &Host, effort: Effort) -> Result<Vec<Table>> {
    let base = host.database().await?;
    let shape = Shape { live_each: 1, held_each: 0, ..Shape::new(QUEUE, 1, SystemClock.now()) };
    fill::queue(&base, shape).await?;
    let mut rates = vec![vec![Vec::new(); KINDS.len()]; WORKERS.len()];
    for round in 0..effort.rounds {
        for (rates, workers) in rates.iter_mut().zip(WORKERS) {
            for step in 0..KINDS.len() {
                let at = (step + usize::try_from(round)?) % KINDS.len();
                refill(&base).await?;
                rates[at].push(one(&base, KINDS[at], workers, effort.window).await?);
            }
        }
        say(&format!("round {} of {}", round + 1, effort.rounds));
    }
    base.end().await?;
    let columns =
        ["workers", "claims/s", "within bounds", "claims and ends, jobs/s", "within bounds, jobs/s"];
    let title = format!("### {}: claims of {QUEUE} waiting jobs, medians of {}", host.engine, effort.rounds);
    let mut table = Table::new(title, &columns);
    for (rates, workers) in rates.iter().zip(WORKERS) {
        let middle = rates.iter().map(|rates| Cell::Number(median(rates.iter().copied()), 0));
        table.row(std::iter::once(workers.into()).chain(middle).collect());
    }
    Ok(vec![table])
}

/// Everything waits again.
async fn refill(base: &Base) -> Result<()> {
    let mut bare = base.bare().await?;
    bare.script(
        "UPDATE replication_jobs SET status = 'initializing', owner = NULL, due_at = created_at, completed_at = NULL, \
         error_message = NULL WHERE completed_at IS NOT NULL OR owner IS NOT NULL",
    )
    .await?;
    bare.script(
        "UPDATE vm_replication_contexts SET current_status = 'replicating' WHERE current_status = 'failed'",
    )
    .await
}

async fn one(base: &Base, kind: Kind, workers: u32, window: Duration) -> Result<f64> {
    let bound = kind.bounded.then_some(100_000);
    let limits = ClaimLimits { per_worker: bound, per_source: bound, per_target: bound };
    let worker = |number: u32| {
        let worker = WorkerId::parse(format!("worker-{number}"))?;
        let request = ClaimRequest { worker, ttl: Duration::from_secs(3600), limits, attempts: 5 };
        let store = base.store.clone();
        Ok(move || {
            let (store, request) = (store.clone(), request.clone());
            async move {
                let Some(lease) = store.claim_next(&request).await? else {
                    return Ok(None);
                };
                if kind.ended {
                    store.end(&lease, JobEnd::Failed("measured".to_owned())).await?;
                }
                Ok(Some(1))
            }
        })
    };
    let workers: Result<Vec<_>> = (0..workers).map(worker).collect();
    rate(workers?, window).await
}
