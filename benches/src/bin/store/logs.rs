//! Log lines, in batches of several sizes.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use oma_benches::{Cell, Table, median};
use oma_core::record::{JobLine, LogEvent};
use oma_core::state::{LineStream, LogLevel};
use oma_core::traits::LogStore;
use oma_core::{AutomationJobId, Clock, JobId, SystemClock};

use crate::engine::{Base, Host};
use crate::fill::{self, Shape};
use crate::rate::rate;
use crate::{Effort, Result, say};

const BATCHES: [u32; 4] = [1, 10, 100, 1000];

/// Where lines go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// `LogStore::append`, to `log_events`
    Events,
    /// `LogStore::append_lines`, to `job_logs`
    Lines,
}

pub(crate) async fn measure(host: &Host, effort: Effort) -> Result<Vec<Table>> {
    const KINDS: [Kind; 2] = [Kind::Events, Kind::Lines];
    let base = host.database().await?;
    fill::everything(&base, Shape::new(100, 10, SystemClock.now())).await?;
    // Behind the lines that are there.
    let next = Arc::new(AtomicU64::new(1000));
    let mut rates = vec![vec![Vec::new(); KINDS.len()]; BATCHES.len()];
    for round in 0..effort.rounds {
        for (rates, batch) in rates.iter_mut().zip(BATCHES) {
            for (rates, kind) in rates.iter_mut().zip(KINDS) {
                rates.push(one(&base, kind, batch, &next, effort.window).await?);
            }
        }
        say(&format!("round {} of {}", round + 1, effort.rounds));
    }
    base.end().await?;
    let title = format!("### {}: log lines, one writer, medians of {}", host.engine, effort.rounds);
    let mut table = Table::new(title, &["lines in a call", "log_events, lines/s", "job_logs, lines/s"]);
    for (rates, batch) in rates.iter().zip(BATCHES) {
        let middle = rates.iter().map(|rates| Cell::Number(median(rates.iter().copied()), 0));
        table.row(std::iter::once(batch.into()).chain(middle).collect());
    }
    Ok(vec![table])
}

async fn one(base: &Base, kind: Kind, batch: u32, next: &Arc<AtomicU64>, window: Duration) -> Result<f64> {
    let (store, next) = (base.store.clone(), next.clone());
    let job = JobId::parse(Shape::job(7).to_string())?;
    let run = AutomationJobId::parse(Shape::run(7).to_string())?;
    let writer = move || {
        let (store, run) = (store.clone(), run.clone());
        let first = next.fetch_add(u64::from(batch), Ordering::Relaxed);
        let numbers = first..first + u64::from(batch);
        let job = job.clone();
        async move {
            match kind {
                Kind::Events => {
                    let events: Vec<_> = numbers.map(|number| event(&job, number)).collect();
                    store.append(&events).await?;
                }
                Kind::Lines => store.append_lines(&run, &numbers.map(line).collect::<Vec<_>>()).await?,
            }
            Ok(Some(batch))
        }
    };
    rate(vec![writer], window).await
}

fn event(job: &JobId, number: u64) -> LogEvent {
    LogEvent {
        job: Some(job.clone()),
        step: None,
        level: LogLevel::Info,
        message: format!("copied extent {number} of disk-2000: 524288 bytes at offset {}", number * 524_288),
        attrs: None,
        at: SystemClock.now(),
    }
}

fn line(number: u64) -> JobLine {
    JobLine {
        number,
        stream: LineStream::Stdout,
        text: format!("TASK [web : install package {number}] ok: changed=0 unreachable=0 failed=0"),
        at: SystemClock.now(),
    }
}
