use std::ops::Bound;

use async_trait::async_trait;

use super::error::Refusal;
use super::logs::text;
use super::{MemoryStore, State};
use crate::record::{JobEntry, JobStep, Lease, LogEvent, Page, StepEnd, Told};
use crate::state::StepStatus;
use crate::traits::JobLog;
use crate::{JobId, LogId, Result, Timestamp};

#[async_trait]
impl JobLog for MemoryStore {
    async fn record(&self, lease: &Lease, entries: &[JobEntry]) -> Result<()> {
        self.change("record what was told of job", &lease.job, |state, _| state.record(lease, entries))
    }

    async fn steps(&self, job: &JobId, after: u32, limit: u32) -> Result<Vec<JobStep>> {
        let state = self.state();
        let (first, last) = ((job.clone(), after), (job.clone(), u32::MAX));
        let behind = state.steps.range((Bound::Excluded(first), Bound::Included(last)));
        let size = usize::try_from(limit.min(Page::LARGEST)).unwrap_or(usize::MAX);
        Ok(behind.take(size).map(|(_, step)| step.clone()).collect())
    }

    async fn trim(&self, job: &JobId, keep: u64) -> Result<u64> {
        let mut state = self.state();
        let of_job = |(_, event): &(&LogId, &LogEvent)| event.job.as_ref() == Some(job);
        let keep = usize::try_from(keep).unwrap_or(usize::MAX);
        let last = state.events.iter().rev().filter(of_job).nth(keep).map(|(id, _)| *id);
        let before = state.events.len();
        state
            .events
            .retain(|id, event| event.job.as_ref() != Some(job) || last.is_none_or(|last| *id > last));
        Ok(u64::try_from(before - state.events.len()).unwrap_or(u64::MAX))
    }
}

impl State {
    fn record(&mut self, lease: &Lease, entries: &[JobEntry]) -> Result<(), Refusal> {
        if !self.jobs.contains_key(&lease.job) {
            return Err(Refusal::unknown("job", &lease.job));
        }
        if let Some(newer) = self.last_step(&lease.job).filter(|step| step.attempt > lease.fence) {
            return Err(Refusal::Fenced { given: lease.fence, newest: newer.attempt });
        }
        for JobEntry { at, what } in entries {
            let running = self.last_step(&lease.job).filter(|step| step.status == StepStatus::Running);
            if running.is_some_and(|step| step.attempt < lease.fence || matches!(what, Told::Begins(_))) {
                self.end_step(&lease.job, &StepEnd::Failed(JobStep::UNTOLD.to_owned()), *at);
            }
            match what {
                Told::Begins(name) => self.begin_step(lease, name, *at),
                Told::Ends(end) => self.end_step(&lease.job, end, *at),
                Told::Line { level, message, attrs } => {
                    let running =
                        self.last_step(&lease.job).filter(|step| step.status == StepStatus::Running);
                    let step = running.map(|step| step.number);
                    let (job, message, attrs) = (Some(lease.job.clone()), message.clone(), attrs.clone());
                    self.add_event(LogEvent { job, step, level: *level, message, attrs, at: *at });
                }
            }
        }
        Ok(())
    }

    fn last_step(&self, job: &JobId) -> Option<&JobStep> {
        let all = (job.clone(), 0)..=(job.clone(), u32::MAX);
        self.steps.range(all).next_back().map(|(_, step)| step)
    }

    fn begin_step(&mut self, lease: &Lease, name: &str, at: Timestamp) {
        let number = self.last_step(&lease.job).map_or(1, |step| step.number + 1);
        let step = JobStep {
            job: lease.job.clone(),
            number,
            name: text(name),
            status: StepStatus::Running,
            attempt: lease.fence,
            worker: Some(lease.worker.clone()),
            started_at: at,
            ended_at: None,
            error: None,
        };
        self.steps.insert((lease.job.clone(), number), step);
    }

    /// The step that is running, if one is.
    fn end_step(&mut self, job: &JobId, end: &StepEnd, at: Timestamp) {
        let all = (job.clone(), 0)..=(job.clone(), u32::MAX);
        let last = self.steps.range_mut(all).next_back().map(|(_, step)| step);
        if let Some(step) = last.filter(|step| step.status == StepStatus::Running) {
            step.status = end.status();
            step.ended_at = Some(at);
            step.error = end.error().map(text);
        }
    }
}
