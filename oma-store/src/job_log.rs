use async_trait::async_trait;
use oma_core::record::{JobEntry, JobStep, Lease, LogEvent, Page, StepEnd, Told};
use oma_core::state::StepStatus;
use oma_core::traits::JobLog;
use oma_core::{JobId, Timestamp};

use crate::db::{Row, Tx, Val, vals};
use crate::error::{Result, StoreError};
use crate::log_store::events::{INSERT, step_id, values};
use crate::record::{StepMetadata, step};
use crate::sql::{events, jobs, steps};
use crate::store::SqlStore;

/// Lines that one transaction deletes.
const STEP: i64 = 2000;

impl SqlStore {
    async fn record_entries(&self, lease: &Lease, entries: &[JobEntry]) -> Result<()> {
        let mut tx = self.begin().await?;
        // From here on nobody else tells anything of this job.
        if tx.execute(jobs::LOCK, vals![lease.job]).await? == 0 {
            return Err(StoreError::missing("job", &lease.job));
        }
        let last = tx.find(steps::LAST, vals![lease.job], step).await?;
        if last.as_ref().is_some_and(|last| last.attempt > lease.fence) {
            return Err(StoreError::Fenced);
        }
        let mut telling = Telling { tx, lease, last, row: None, lines: Vec::new() };
        for entry in entries {
            telling.tell(entry).await?;
        }
        let Telling { mut tx, lines, .. } = telling;
        INSERT.all(&mut tx, lines.into_iter().map(Ok)).await?;
        tx.commit().await
    }

    async fn steps_of(&self, job: &JobId, after: u32, limit: u32) -> Result<Vec<JobStep>> {
        self.db.all(steps::AFTER, vals![job, after, limit.min(Page::LARGEST)], step).await
    }

    async fn trim_lines(&self, job: &JobId, keep: u64) -> Result<u64> {
        let keep = i64::try_from(keep).unwrap_or(i64::MAX);
        let last = self.db.find(events::NTH_NEWEST_OF_JOB, vals![job, i64::MAX, keep], line_id).await?;
        let Some(last) = last else { return Ok(0) };
        let mut gone = 0;
        loop {
            let (deleted, more) = self.settled(|| self.trim_step(job, last)).await?;
            gone += deleted;
            if !more {
                return Ok(gone);
            }
        }
    }

    /// Deletes the oldest lines of a job up to one, and tells whether there may be more.
    async fn trim_step(&self, job: &JobId, last: i64) -> Result<(u64, bool)> {
        let mut tx = self.begin().await?;
        let nth = tx.find(events::NTH_OLDEST_OF_JOB, vals![job, last, STEP - 1], line_id).await?;
        let deleted = tx.execute(events::DELETE_OF_JOB, vals![job, nth.unwrap_or(last)]).await?;
        tx.commit().await?;
        Ok((deleted, nth.is_some_and(|nth| nth < last)))
    }
}

/// What is told of a job in one transaction.
struct Telling<'a> {
    tx: Tx,
    lease: &'a Lease,
    last: Option<JobStep>,
    /// The row of the last step, once it was asked for.
    row: Option<i64>,
    lines: Vec<Vec<Val>>,
}

impl Telling<'_> {
    async fn tell(&mut self, entry: &JobEntry) -> Result<()> {
        let running = self.running();
        if running
            .is_some_and(|step| step.attempt < self.lease.fence || matches!(entry.what, Told::Begins(_)))
        {
            self.end(&StepEnd::Failed(JobStep::UNTOLD.to_owned()), entry.at).await?;
        }
        match &entry.what {
            Told::Begins(name) => self.begin(name, entry.at).await,
            Told::Ends(end) => self.end(end, entry.at).await,
            Told::Line { level, message, attrs } => {
                let (job, message, attrs) = (Some(self.lease.job.clone()), message.clone(), attrs.clone());
                let event = LogEvent { job, step: None, level: *level, message, attrs, at: entry.at };
                let row = self.running_row().await?;
                self.lines.push(values(&event, row)?);
                Ok(())
            }
        }
    }

    fn running(&self) -> Option<&JobStep> {
        self.last.as_ref().filter(|step| step.status == StepStatus::Running)
    }

    async fn running_row(&mut self) -> Result<Option<i64>> {
        let Some(number) = self.running().map(|step| step.number) else { return Ok(None) };
        if self.row.is_none() {
            self.row = Some(step_id(&mut self.tx, Some(&self.lease.job), number).await?);
        }
        Ok(self.row)
    }

    async fn begin(&mut self, name: &str, at: Timestamp) -> Result<()> {
        let step = JobStep {
            job: self.lease.job.clone(),
            number: self.last.as_ref().map_or(1, |last| last.number + 1),
            name: name.to_owned(),
            status: StepStatus::Running,
            attempt: self.lease.fence,
            worker: Some(self.lease.worker.clone()),
            started_at: at,
            ended_at: None,
            error: None,
        };
        let metadata = StepMetadata { attempt: step.attempt.0, worker: step.worker.clone() };
        let metadata = serde_json::to_string(&metadata)?;
        let values = vals![step.job, step.number, step.name, step.status, metadata, step.started_at];
        self.tx.execute(steps::INSERT, values).await?;
        (self.last, self.row) = (Some(step), None);
        Ok(())
    }

    /// The step that is running, if one is.
    async fn end(&mut self, end: &StepEnd, at: Timestamp) -> Result<()> {
        let Some(number) = self.running().map(|step| step.number) else { return Ok(()) };
        let values = vals![end.status(), at, end.error(), self.lease.job, number];
        self.tx.execute(steps::END, values).await?;
        self.last = self.last.take().map(|step| JobStep { status: end.status(), ended_at: Some(at), ..step });
        Ok(())
    }
}

fn line_id(row: &Row) -> Result<i64> {
    row.fields("log_events", "id").int("id")
}

#[async_trait]
impl JobLog for SqlStore {
    async fn record(&self, lease: &Lease, entries: &[JobEntry]) -> oma_core::Result<()> {
        let recorded = self.settled(|| self.record_entries(lease, entries)).await;
        recorded.map_err(|error| error.at("record what was told of job", &lease.job))
    }

    async fn steps(&self, job: &JobId, after: u32, limit: u32) -> oma_core::Result<Vec<JobStep>> {
        let found = self.steps_of(job, after, limit).await;
        found.map_err(|error| error.at("read the steps of job", job))
    }

    async fn trim(&self, job: &JobId, keep: u64) -> oma_core::Result<u64> {
        self.trim_lines(job, keep).await.map_err(|error| error.at("delete old lines of job", job))
    }
}
