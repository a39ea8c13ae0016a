pub(crate) mod events;
mod lines;
mod prune;

use async_trait::async_trait;
use oma_core::record::{JobLine, LogEvent, LogFilter, Page, Pruned, Retention};
use oma_core::traits::LogStore;
use oma_core::{AutomationJobId, LogId};

use crate::store::SqlStore;

#[async_trait]
impl LogStore for SqlStore {
    async fn append(&self, events: &[LogEvent]) -> oma_core::Result<()> {
        let appended = self.settled(|| self.append_events(events)).await;
        appended.map_err(|error| error.at("record", "log events"))
    }

    async fn events(&self, filter: &LogFilter, page: &Page) -> oma_core::Result<Vec<(LogId, LogEvent)>> {
        self.event_page(filter, page).await.map_err(|error| error.at("read", "log events"))
    }

    async fn append_lines(&self, job: &AutomationJobId, lines: &[JobLine]) -> oma_core::Result<()> {
        let appended = self.settled(|| self.append_lines_of(job, lines)).await;
        appended.map_err(|error| error.at("record lines of automation job", job))
    }

    async fn lines(&self, job: &AutomationJobId, after: u64, limit: u32) -> oma_core::Result<Vec<JobLine>> {
        let found = self.lines_of(job, after, limit).await;
        found.map_err(|error| error.at("read lines of automation job", job))
    }

    async fn prune(&self, retention: &Retention) -> oma_core::Result<Pruned> {
        self.prune_logs(retention).await.map_err(|error| error.at("delete", "old logs"))
    }
}
