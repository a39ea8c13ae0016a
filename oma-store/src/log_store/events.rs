use std::cmp::Reverse;
use std::collections::BTreeSet;

use oma_core::LogId;
use oma_core::record::{LogEvent, LogFilter, Page, PageStart};
use oma_core::state::LogLevel;

use crate::batch::Insert;
use crate::db::{Tx, Val, vals};
use crate::error::{Result, StoreError};
use crate::record::{event, job};
use crate::sql::{events, jobs};
use crate::store::SqlStore;

const INSERT: Insert = Insert { one: events::INSERT_1, ten: events::INSERT_10, hundred: events::INSERT_100 };

impl SqlStore {
    pub(super) async fn append_events(&self, all: &[LogEvent]) -> Result<()> {
        let mut tx = self.begin().await?;
        for id in all.iter().filter_map(|event| event.job.as_ref()).collect::<BTreeSet<_>>() {
            let known = tx.find(jobs::BY_ID, vals![id], job).await?;
            known.ok_or_else(|| StoreError::missing("job", id))?;
        }
        INSERT.all(&mut tx, all.iter().map(values)).await?;
        tx.commit().await
    }

    pub(super) async fn event_page(&self, filter: &LogFilter, page: &Page) -> Result<Vec<(LogId, LogEvent)>> {
        let walk = Walk::new(page);
        let least = filter.least.filter(|least| *least > LogLevel::Debug);
        let mut tx = self.db.snapshot().await?;
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

fn values(event: &LogEvent) -> Result<Vec<Val>> {
    let attrs = event.attrs.as_ref().map(serde_json::to_string).transpose()?;
    vals![event.job, event.level, event.message, attrs, event.at]
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
