use async_trait::async_trait;

use super::{Job, MemoryStore};
use crate::record::Summary;
use crate::state::JobKind;
use crate::traits::Overview;
use crate::{ByteSize, Result, Timestamp};

#[async_trait]
impl Overview for MemoryStore {
    async fn summary(&self, since: Timestamp) -> Result<Summary> {
        let state = self.state();
        let now = self.clock.now();
        let mut summary = Summary::default();
        for context in state.contexts.values() {
            *summary.vms.entry(context.status).or_default() += 1;
        }
        for job in state.jobs.values() {
            summary.add(job, since, now);
        }
        Ok(summary)
    }
}

impl Summary {
    fn add(&mut self, job: &Job, since: Timestamp, now: Timestamp) {
        let status = job.record.status;
        if !status.is_terminal() {
            *self.live.entry(status).or_default() += 1;
        } else if job.record.completed_at.is_some_and(|at| at >= since) {
            let ended = self.ended.entry(status).or_default();
            ended.jobs += 1;
            ended.bytes = ByteSize::new(ended.bytes.bytes().saturating_add(job.bytes.bytes()));
        }
        let is_for_anybody = job.record.kind == JobKind::Replicate;
        if let Some(due_at) = job.record.due_at.filter(|due_at| is_for_anybody && *due_at <= now) {
            self.waiting += 1;
            self.oldest_due = Some(self.oldest_due.map_or(due_at, |oldest| oldest.min(due_at)));
        }
    }
}
