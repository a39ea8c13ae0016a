use std::collections::BTreeMap;

use oma_core::AutomationJobId;
use oma_core::record::{JobLine, Page};

use crate::batch::Insert;
use crate::db::{Row, ToVal, Tx, Val, vals};
use crate::error::{Result, StoreError};
use crate::record::line;
use crate::sql::lines;
use crate::store::SqlStore;

const INSERT: Insert = Insert { one: lines::INSERT_1, ten: lines::INSERT_10, hundred: lines::INSERT_100 };

/// Numbers in one question; the statement has a place for each.
const ASKED: usize = 100;

impl SqlStore {
    pub(super) async fn append_lines_of(&self, job: &AutomationJobId, all: &[JobLine]) -> Result<()> {
        let mut tx = self.begin().await?;
        let run = tx.find(lines::LOCK_RUN, vals![job], run_id).await?;
        let run = run.ok_or_else(|| StoreError::missing("automation job", job))?;
        let mut new = once(all)?;
        let numbers: Vec<u64> = new.keys().copied().collect();
        for asked in numbers.chunks(ASKED) {
            for known in numbered(&mut tx, run, asked).await? {
                if let Some(given) = new.remove(&known.number) {
                    same(&known, given)?;
                }
            }
        }
        INSERT.all(&mut tx, new.values().map(|line| values(run, line))).await?;
        tx.commit().await
    }

    pub(super) async fn lines_of(
        &self,
        job: &AutomationJobId,
        after: u64,
        limit: u32,
    ) -> Result<Vec<JobLine>> {
        let Some(run) = self.db.find(lines::RUN, vals![job], run_id).await? else {
            return Ok(Vec::new());
        };
        let after = i64::try_from(after).unwrap_or(i64::MAX);
        self.db.all(lines::AFTER, vals![run, after, limit.min(Page::LARGEST)], line).await
    }
}

fn run_id(row: &Row) -> Result<i64> {
    row.fields("jobs", "id").int("id")
}

/// The lines given, each once, by number.
fn once(all: &[JobLine]) -> Result<BTreeMap<u64, &JobLine>> {
    let impossible = |line: &&JobLine| line.number == 0 || i64::try_from(line.number).is_err();
    if let Some(line) = all.iter().find(impossible) {
        let reason = format!("line {}: lines are numbered from 1 on, below 2^63", line.number);
        return Err(StoreError::Invalid(reason));
    }
    let mut once: BTreeMap<u64, &JobLine> = BTreeMap::new();
    for line in all {
        same(once.entry(line.number).or_insert(line), line)?;
    }
    Ok(once)
}

/// The lines of a run that have one of these numbers, which grow.
async fn numbered(tx: &mut Tx, run: i64, numbers: &[u64]) -> Result<Vec<JobLine>> {
    let mut values = vals![run, numbers.first(), numbers.last()]?;
    // The places that are left over ask for the last number once more.
    let padding = numbers.last().into_iter().cycle();
    for number in numbers.iter().chain(padding).take(ASKED) {
        values.push(number.to_val()?);
    }
    tx.all(lines::NUMBERED, Ok(values), line).await
}

/// That two lines of one number say the same, as they are stored.
fn same(known: &JobLine, given: &JobLine) -> Result<()> {
    if known.stream == given.stream && known.text.to_val()? == given.text.to_val()? {
        return Ok(());
    }
    Err(StoreError::Conflict(format!(
        "line {} is recorded with another text or stream; give the line another number",
        known.number
    )))
}

fn values(run: i64, line: &JobLine) -> Result<Vec<Val>> {
    vals![run, line.number, line.stream, line.text, line.at]
}
