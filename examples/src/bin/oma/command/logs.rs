use std::collections::HashMap;
use std::time::Duration;

use oma_api::{JobLineRow, JobStepRow};
use oma_core::record::{JobStep, LogFilter, Page, PageStart, ReplicationJob};
use oma_core::traits::{JobLog, JobStore, LogStore};
use oma_core::{Error, ErrorKind, JobId, LogId, Result};
use oma_store::SqlStore;

use super::Context;
use crate::appliance;
use crate::args::LogsArgs;
use crate::table::{Align, Table};
use oma_examples::output;
use oma_examples::signals::Signals;

/// How often a follower looks.
const PACE: Duration = Duration::from_millis(500);
/// So many looks after the job has ended nothing more is told of it.
const LAST_LOOKS: u32 = 3;

/// Prints what is told of a job, also while another process drives it.
pub(super) async fn run(context: &Context, args: &LogsArgs) -> Result<()> {
    let store = appliance::open_records(&context.data).await?;
    let printed = match (args.steps, args.follow) {
        (true, _) => steps(context, &store, &args.job).await,
        (false, true) => follow(context, &store, args).await,
        (false, false) => lines(context, &store, args).await,
    };
    store.close().await;
    printed
}

async fn job(store: &SqlStore, id: &JobId) -> Result<ReplicationJob> {
    store.get(id).await?.ok_or_else(|| {
        Error::new(ErrorKind::NotFound, "find job", id)
            .because("there is no record of it; `oma jobs` lists what there is")
    })
}

async fn steps(context: &Context, store: &SqlStore, id: &JobId) -> Result<()> {
    let job = job(store, id).await?;
    let steps = store.steps(id, 0, Page::LARGEST).await?;
    let rows: Vec<_> = steps.iter().map(|step| JobStepRow::new(&job, step)).collect();
    if context.json { output::json(&rows) } else { output::line(table(rows)) }
}

fn table(rows: Vec<JobStepRow>) -> Table {
    let mut table = Table::new(&[
        ("step", Align::Right),
        ("name", Align::Left),
        ("attempt", Align::Right),
        ("status", Align::Left),
        ("began", Align::Left),
        ("ended", Align::Left),
        ("error", Align::Left),
    ]);
    for row in rows {
        table.row([
            row.step.to_string(),
            row.name,
            row.attempt.to_string(),
            row.status.to_string(),
            row.started_at,
            row.ended_at.unwrap_or_default(),
            row.error.unwrap_or_default(),
        ]);
    }
    table
}

/// Reads the lines of a job behind the last one that was read.
struct Reader<'a> {
    store: &'a SqlStore,
    filter: LogFilter,
    last: LogId,
    /// Of the steps that lines were read of.
    names: HashMap<u32, String>,
}

impl<'a> Reader<'a> {
    fn new(store: &'a SqlStore, args: &LogsArgs) -> Self {
        let filter = LogFilter { job: Some(args.job.clone()), step: args.step, least: args.level };
        Self { store, filter, last: LogId::FIRST, names: HashMap::new() }
    }

    /// The next lines; none where there are no more yet.
    async fn next(&mut self) -> Result<Vec<JobLineRow>> {
        let page = Page { start: PageStart::After(self.last), limit: Page::LARGEST };
        let events = self.store.events(&self.filter, &page).await?;
        if let Some((id, _)) = events.last() {
            self.last = *id;
        }
        if events.iter().any(|(_, event)| event.step.is_some_and(|step| !self.names.contains_key(&step))) {
            self.read_names().await?;
        }
        Ok(events.iter().map(|(id, event)| JobLineRow::new(*id, event)).collect())
    }

    async fn read_names(&mut self) -> Result<()> {
        let Some(job) = &self.filter.job else { return Ok(()) };
        let steps = self.store.steps(job, 0, Page::LARGEST).await?;
        self.names = steps.into_iter().map(|JobStep { number, name, .. }| (number, name)).collect();
        Ok(())
    }

    fn shown(&self, row: &JobLineRow) -> String {
        let step = row.step.and_then(|step| self.names.get(&step)).map_or("-", String::as_str);
        format!("{} {:<5} {step:<9} {}", row.at, row.level, row.message)
    }
}

async fn lines(context: &Context, store: &SqlStore, args: &LogsArgs) -> Result<()> {
    job(store, &args.job).await?;
    let mut reader = Reader::new(store, args);
    let mut all = Vec::new();
    loop {
        let rows = reader.next().await?;
        if rows.is_empty() {
            break;
        }
        if context.json {
            all.extend(rows);
        } else {
            rows.iter().try_for_each(|row| output::line(reader.shown(row)))?;
        }
    }
    if context.json { output::json(&all) } else { Ok(()) }
}

/// With `--json` a line of JSON each.
async fn follow(context: &Context, store: &SqlStore, args: &LogsArgs) -> Result<()> {
    let signals = Signals::listen("stopped following; the job goes on")?;
    let mut reader = Reader::new(store, args);
    let mut looks = 0;
    loop {
        // Asked first: what is told before a job ends is read after that.
        let is_over = job(store, &args.job).await?.status.is_terminal();
        let rows = reader.next().await?;
        for row in &rows {
            if context.json { output::json(row)? } else { output::line(reader.shown(row))? }
        }
        looks = if is_over && rows.is_empty() { looks + 1 } else { 0 };
        if looks >= LAST_LOOKS {
            return Ok(());
        }
        tokio::select! {
            () = signals.stop().cancelled() => return Ok(()),
            () = tokio::time::sleep(PACE) => {}
        }
    }
}
