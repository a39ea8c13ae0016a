use std::cmp::Reverse;
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};

use oma_core::record::{LogEvent, LogFilter, Page, PageStart};
use oma_core::state::LogLevel;
use oma_core::{JobId, LogId};

use crate::batch::Insert;
use crate::db::{Row, Tx, Val, vals};
use crate::error::{Result, StoreError};
use crate::record::{event, job};
use crate::sql::{events, jobs, steps};
use crate::store::SqlStore;

pub(crate) const INSERT: Insert =
    Insert { one: events::INSERT_1, ten: events::INSERT_10, hundred: events::INSERT_100 };

impl SqlStore {
    pub(super) async fn append_events(&self, all: &[LogEvent]) -> Result<()> {
        let mut tx = self.begin().await?;
        for id in all.iter().filter_map(|event| event.job.as_ref()).collect::<BTreeSet<_>>() {
            let known = tx.find(jobs::BY_ID, vals![id], job).await?;
            known.ok_or_else(|| StoreError::missing("job", id))?;
        }
        let mut steps = BTreeMap::new();
        for event in all {
            let (Some(number), of) = (event.step, (event.job.as_ref(), event.step)) else { continue };
            if let Entry::Vacant(unknown) = steps.entry(of) {
                unknown.insert(step_id(&mut tx, event.job.as_ref(), number).await?);
            }
        }
        let rows = all.iter().map(|event| {
            let step = steps.get(&(event.job.as_ref(), event.step)).copied();
            values(event, step)
        });
        INSERT.all(&mut tx, rows).await?;
        tx.commit().await
    }

    pub(super) async fn event_page(&self, filter: &LogFilter, page: &Page) -> Result<Vec<(LogId, LogEvent)>> {
        let walk = Walk::new(page);
        let least = filter.least.filter(|least| *least > LogLevel::Debug);
        let mut tx = self.db.snapshot().await?;
        if let Some(number) = filter.step {
            let of = vals![filter.job, number]?;
            let Some(step) = tx.find(steps::ID, Ok(of), id).await? else { return Ok(Vec::new()) };
            let at_least = |level: LogLevel| level.max(least.unwrap_or(LogLevel::Debug));
            let [a, b, c, d] =
                [LogLevel::Debug, LogLevel::Info, LogLevel::Warn, LogLevel::Error].map(at_least);
            let sql = [events::OF_STEP_AFTER, events::OF_STEP_BEFORE];
            return walk.read(&mut tx, sql, vals![filter.job, step, a, b, c, d]).await;
        }
        match (&filter.job, least) {
            (None, None) => walk.read(&mut tx, [events::AFTER, events::BEFORE], vals![]).await,
            (Some(job), None) => {
                walk.read(&mut tx, [events::OF_JOB_AFTER, events::OF_JOB_BEFORE], vals![job]).await
            }
            (Some(job), Some(least)) => {
                let sql = [events::OF_JOB_AND_LEVELS_AFTER, events::OF_JOB_AND_LEVELS_BEFORE];
                let second = least.max(LogLevel::Warn);
                walk.read(&mut tx, sql, vals![job, least, second, LogLevel::Error]).await
            }
            (None, Some(least)) => {
                let mut merged = Vec::new();
                for level in LogLevel::ALL.iter().filter(|level| **level >= least) {
                    let sql = [events::OF_LEVEL_AFTER, events::OF_LEVEL_BEFORE];
                    merged.extend(walk.read(&mut tx, sql, vals![level]).await?);
                }
                Ok(walk.merged(merged))
            }
        }
    }
}

/// The row of an event in the step of this row.
pub(crate) fn values(event: &LogEvent, step: Option<i64>) -> Result<Vec<Val>> {
    let attrs = event.attrs.as_ref().map(serde_json::to_string).transpose()?;
    vals![event.job, step, event.level, event.message, attrs, event.at]
}

/// The row of a job's step.
pub(crate) async fn step_id(tx: &mut Tx, job: Option<&JobId>, number: u32) -> Result<i64> {
    let found = tx.find(steps::ID, vals![job, number], id).await?;
    found.ok_or_else(|| StoreError::missing("step of the job", &number))
}

fn id(row: &Row) -> Result<i64> {
    row.fields("job_steps", "id").int("id")
}

/// In which direction a page goes, from where, and how far.
struct Walk {
    forward: bool,
    from: i64,
    rows: u32,
}

impl Walk {
    fn new(page: &Page) -> Self {
        let id = |id: LogId| i64::try_from(id.0).unwrap_or(i64::MAX);
        let (forward, from) = match page.start {
            PageStart::Oldest => (true, -1),
            PageStart::After(last) => (true, id(last)),
            PageStart::Newest => (false, i64::MAX),
            PageStart::Before(last) => (false, id(last)),
        };
        Self { forward, from, rows: page.size() }
    }

    /// By the first statement forward, by the second backward, each with these values before its own.
    async fn read(
        &self,
        tx: &mut Tx,
        [after, before]: [crate::db::Sql; 2],
        values: Result<Vec<Val>>,
    ) -> Result<Vec<(LogId, LogEvent)>> {
        let mut values = values?;
        values.extend(vals![self.from, self.rows]?);
        tx.all(if self.forward { after } else { before }, Ok(values), event).await
    }

    /// Pages of several levels as one.
    fn merged(&self, mut all: Vec<(LogId, LogEvent)>) -> Vec<(LogId, LogEvent)> {
        if self.forward {
            all.sort_by_key(|(id, _)| *id);
        } else {
            all.sort_by_key(|(id, _)| Reverse(*id));
        }
        all.truncate(usize::try_from(self.rows).unwrap_or(usize::MAX));
        all
    }
}
