use std::collections::HashMap;
use std::time::Duration;

use oma_api::client::Lines;
use oma_api::{JobLineRow, JobStepRow};
use oma_core::record::{LogFilter, Page, PageStart, ReplicationJob};
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

/// Where it is told how jobs are driven.
pub(crate) trait JobTold {
    /// Whether a job has ended.
    async fn is_over(&self, job: &JobId) -> Result<bool>;
    /// Its steps.
    async fn steps(&self, job: &JobId) -> Result<Vec<JobStepRow>>;
    /// Lines behind the last one; none where there are no more yet.
    async fn lines(&self, job: &JobId, wanted: &Lines) -> Result<Vec<JobLineRow>>;
}

/// The records of a data directory.
struct Records(SqlStore);

impl Records {
    async fn job(&self, id: &JobId) -> Result<ReplicationJob> {
        self.0.get(id).await?.ok_or_else(|| {
            Error::new(ErrorKind::NotFound, "find job", id)
                .because("there is no record of it; `oma jobs` lists what there is")
        })
    }
}

impl JobTold for Records {
    async fn is_over(&self, job: &JobId) -> Result<bool> {
        Ok(self.job(job).await?.status.is_terminal())
    }

    async fn steps(&self, job: &JobId) -> Result<Vec<JobStepRow>> {
        let job = self.job(job).await?;
        let steps = self.0.steps(&job.id, 0, Page::LARGEST).await?;
        Ok(steps.iter().map(|step| JobStepRow::new(&job, step)).collect())
    }

    async fn lines(&self, job: &JobId, wanted: &Lines) -> Result<Vec<JobLineRow>> {
        let filter = LogFilter { job: Some(job.clone()), step: wanted.step, least: wanted.least };
        let start = PageStart::After(wanted.after.map_or(LogId::FIRST, LogId));
        let events = self.0.events(&filter, &Page { start, limit: Page::LARGEST }).await?;
        Ok(events.iter().map(|(id, event)| JobLineRow::new(*id, event)).collect())
    }
}

/// Prints what is told of a job, also while another process drives it.
pub(super) async fn run(context: &Context, args: &LogsArgs) -> Result<()> {
    let records = Records(appliance::open_records(&context.data).await?);
    let printed = print(&records, args, context.json).await;
    records.0.close().await;
    printed
}

/// Wherever it is told.
pub(crate) async fn print(told: &impl JobTold, args: &LogsArgs, json: bool) -> Result<()> {
    match (args.steps, args.follow) {
        (true, _) => {
            let rows = told.steps(&args.job).await?;
            if json { output::json(&rows) } else { output::line(table(rows)) }
        }
        (false, true) => follow(told, args, json).await,
        (false, false) => lines(told, args, json).await,
    }
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
struct Reader<'a, T> {
    told: &'a T,
    job: &'a JobId,
    wanted: Lines,
    /// Of the steps that lines were read of.
    names: HashMap<u32, String>,
}

impl<'a, T: JobTold> Reader<'a, T> {
    fn new(told: &'a T, args: &'a LogsArgs) -> Self {
        let wanted = Lines { step: args.step, least: args.level, after: None };
        Self { told, job: &args.job, wanted, names: HashMap::new() }
    }

    /// The next lines; none where there are no more yet.
    async fn next(&mut self) -> Result<Vec<JobLineRow>> {
        let rows = self.told.lines(self.job, &self.wanted).await?;
        self.wanted.after = rows.last().map(|row| row.line).or(self.wanted.after);
        if rows.iter().any(|row| row.step.is_some_and(|step| !self.names.contains_key(&step))) {
            let steps = self.told.steps(self.job).await?;
            self.names = steps.into_iter().map(|step| (step.step, step.name)).collect();
        }
        Ok(rows)
    }

    fn shown(&self, row: &JobLineRow) -> String {
        let step = row.step.and_then(|step| self.names.get(&step)).map_or("-", String::as_str);
        format!("{} {:<5} {step:<9} {}", row.at, row.level, row.message)
    }
}

async fn lines(told: &impl JobTold, args: &LogsArgs, json: bool) -> Result<()> {
    told.is_over(&args.job).await?;
    let mut reader = Reader::new(told, args);
    let mut all = Vec::new();
    loop {
        let rows = reader.next().await?;
        if rows.is_empty() {
            break;
        }
        if json {
            all.extend(rows);
        } else {
            rows.iter().try_for_each(|row| output::line(reader.shown(row)))?;
        }
    }
    if json { output::json(&all) } else { Ok(()) }
}

/// With `--json` a line of JSON each.
async fn follow(told: &impl JobTold, args: &LogsArgs, json: bool) -> Result<()> {
    let signals = Signals::listen("stopped following; the job goes on")?;
    let mut reader = Reader::new(told, args);
    let mut looks = 0;
    loop {
        // Asked first: what is told before a job ends is read after that.
        let is_over = told.is_over(&args.job).await?;
        let rows = reader.next().await?;
        for row in &rows {
            if json { output::json(row)? } else { output::line(reader.shown(row))? }
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
