use std::fmt;

use async_trait::async_trait;

use crate::record::{JobLine, LogEvent, LogFilter, Page, Pruned, Retention};
use crate::{AutomationJobId, LogId, Result};

/// What happened (`log_events`) and what automation jobs wrote (`job_logs`): much of it, read by pages, kept for a while.
#[async_trait]
pub trait LogStore: fmt::Debug + Send + Sync + 'static {
    /// Records any number of events at once, all of them or none; their ids grow in the order given. Not idempotent.
    ///
    /// # Errors
    /// `NotFound`, naming the job, when an event is of a job that is not recorded.
    async fn append(&self, events: &[LogEvent]) -> Result<()>;

    /// A page of the events that the filter lets through, in the direction of the page: oldest first towards newer, newest
    /// first towards older. None of an unknown job.
    ///
    /// Events that are being recorded while a page is read may get smaller ids than some of that page and appear later:
    /// whoever follows the end reads the last few once more.
    async fn events(&self, filter: &LogFilter, page: &Page) -> Result<Vec<(LogId, LogEvent)>>;

    /// Records lines of an automation job at once, all of them or none. Idempotent by number: a line that is recorded
    /// already, with the same text of the same stream, stays as it is.
    ///
    /// # Errors
    /// `Conflict` when a line of that number has another text or stream; `NotFound` for an unknown automation job;
    /// `Invalid` for the number 0 or one beyond 2^63-1.
    async fn append_lines(&self, job: &AutomationJobId, lines: &[JobLine]) -> Result<()>;

    /// The lines of an automation job behind the number `after` (0: from the first on), by number, at most `limit` and
    /// [`Page::LARGEST`]; none of an unknown one.
    async fn lines(&self, job: &AutomationJobId, after: u64, limit: u32) -> Result<Vec<JobLine>>;

    /// Deletes what is not to be kept any more and answers how much that was.
    ///
    /// It goes by steps of a few thousand, so that others can write in between; interrupted, it has done some of it.
    async fn prune(&self, retention: &Retention) -> Result<Pruned>;
}
