//! Deletes old logs in steps that hold few rows, and so that each finds its rows through an index.

use oma_core::Timestamp;
use oma_core::record::{Pruned, Retention};

use crate::db::{Row, Sql, vals};
use crate::error::Result;
use crate::sql::{events, lines};
use crate::store::SqlStore;

/// Rows that one transaction deletes.
const STEP: i64 = 2000;

/// A table of logs and the statements that its pruning needs.
struct Log {
    /// As it is named in the database.
    name: &'static str,
    nth_newest: Sql,
    nth_oldest: Sql,
    delete_up_to: Sql,
    nth_before: Sql,
    delete_before: Sql,
    delete_at: Sql,
}

const EVENTS: Log = Log {
    name: "log_events",
    nth_newest: events::NTH_NEWEST,
    nth_oldest: events::NTH_OLDEST,
    delete_up_to: events::DELETE_UP_TO,
    nth_before: events::NTH_BEFORE,
    delete_before: events::DELETE_BEFORE,
    delete_at: events::DELETE_AT,
};

const LINES: Log = Log {
    name: "job_logs",
    nth_newest: lines::NTH_NEWEST,
    nth_oldest: lines::NTH_OLDEST,
    delete_up_to: lines::DELETE_UP_TO,
    nth_before: lines::NTH_BEFORE,
    delete_before: lines::DELETE_BEFORE,
    delete_at: lines::DELETE_AT,
};

impl SqlStore {
    pub(super) async fn prune_logs(&self, retention: &Retention) -> Result<Pruned> {
        let events = self.prune_log(&EVENTS, retention).await?;
        let lines = self.prune_log(&LINES, retention).await?;
        Ok(Pruned { events, lines })
    }

    async fn prune_log(&self, log: &Log, retention: &Retention) -> Result<u64> {
        // Looked for first: what goes because of its age makes no room for others.
        let last = match retention.keep {
            Some(keep) => {
                let keep = i64::try_from(keep).unwrap_or(i64::MAX);
                self.db.find(log.nth_newest, vals![i64::MAX, keep], id).await?
            }
            None => None,
        };
        let mut gone = 0;
        if let Some(oldest) = retention.older_than {
            gone += self.drop_months(log.name, oldest).await?;
            gone += self.prune_by_age(log, oldest).await?;
        }
        if let Some(last) = last {
            gone += self.prune_up_to(log, last).await?;
        }
        self.add_months(log.name).await?;
        Ok(gone)
    }

    async fn prune_by_age(&self, log: &Log, oldest: Timestamp) -> Result<u64> {
        let mut gone = 0;
        loop {
            let (deleted, more) = self.settled(|| self.prune_aged_step(log, oldest)).await?;
            gone += deleted;
            if !more {
                return Ok(gone);
            }
        }
    }

    /// Deletes the oldest by (time, id), and tells whether there may be more.
    async fn prune_aged_step(&self, log: &Log, oldest: Timestamp) -> Result<(u64, bool)> {
        let mut tx = self.begin().await?;
        let last = |row: &Row| {
            let fields = row.fields("logs", "id");
            Ok((fields.time("ts")?, fields.int("id")?))
        };
        let last = tx.find(log.nth_before, vals![oldest, STEP - 1], last).await?;
        let deleted = match last {
            None => tx.execute(log.delete_before, vals![oldest]).await?,
            Some((at, id)) => {
                tx.execute(log.delete_before, vals![at]).await?
                    + tx.execute(log.delete_at, vals![at, id]).await?
            }
        };
        tx.commit().await?;
        Ok((deleted, last.is_some()))
    }

    async fn prune_up_to(&self, log: &Log, last: i64) -> Result<u64> {
        let mut gone = 0;
        loop {
            let (deleted, more) = self.settled(|| self.prune_step_up_to(log, last)).await?;
            gone += deleted;
            if !more {
                return Ok(gone);
            }
        }
    }

    /// Deletes the oldest by id up to `last`, and tells whether there may be more.
    async fn prune_step_up_to(&self, log: &Log, last: i64) -> Result<(u64, bool)> {
        let mut tx = self.begin().await?;
        let nth = tx.find(log.nth_oldest, vals![last, STEP - 1], id).await?;
        let deleted = tx.execute(log.delete_up_to, vals![nth.unwrap_or(last)]).await?;
        tx.commit().await?;
        Ok((deleted, nth.is_some_and(|nth| nth < last)))
    }
}

fn id(row: &Row) -> Result<i64> {
    row.fields("logs", "id").int("id")
}
