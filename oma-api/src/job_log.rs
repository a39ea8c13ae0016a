use oma_core::record::{JobStep, LogEvent, ReplicationJob};
use oma_core::state::{LogLevel, StepStatus};
use oma_core::{Clock as _, JobId, LogId, SystemClock, Timestamp, WorkerId};
use serde::{Deserialize, Serialize};

/// Once a job has ended for so long, nobody tells any more how its steps did.
const SILENCE: std::time::Duration = std::time::Duration::from_secs(60);

/// A step of a job, in one attempt to drive it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
pub struct JobStepRow {
    /// The job.
    #[cfg_attr(feature = "server", schema(value_type = String))]
    pub job_id: JobId,
    /// Its place among all steps of the job, from 1 on.
    pub step: u32,
    /// Which step.
    pub name: String,
    /// `running`, `completed`, `failed` or `skipped`.
    #[cfg_attr(feature = "server", schema(value_type = String))]
    pub status: StepStatus,
    /// In which attempt: a number that grows, not by one.
    pub attempt: u64,
    /// Who did it.
    #[cfg_attr(feature = "server", schema(value_type = Option<String>))]
    pub worker: Option<WorkerId>,
    /// When it began, RFC 3339 in UTC.
    pub started_at: String,
    /// When it ended, or was found not to go on.
    pub ended_at: Option<String>,
    /// Why it failed.
    pub error: Option<String>,
}

impl JobStepRow {
    /// The row of a step. One that runs in a job which has ended a while ago was left so by whoever drove it.
    #[must_use]
    pub fn new(job: &ReplicationJob, step: &JobStep) -> Self {
        let is_over = job.completed_at.filter(|ended| SystemClock.now() > ended.after(SILENCE));
        let left = is_over.filter(|_| step.status == StepStatus::Running);
        let text = |time: Timestamp| time.to_string();
        Self {
            job_id: step.job.clone(),
            step: step.number,
            name: step.name.clone(),
            status: if left.is_some() { StepStatus::Failed } else { step.status },
            attempt: step.attempt.0,
            worker: step.worker.clone(),
            started_at: text(step.started_at),
            ended_at: step.ended_at.or(left).map(text),
            error: step.error.clone().or_else(|| left.map(|_| JobStep::UNTOLD.to_owned())),
        }
    }
}

/// A line of the log of a job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
pub struct JobLineRow {
    /// Its number among the lines of all jobs: grows.
    pub line: u64,
    /// In which step of the job, if it was in one.
    pub step: Option<u32>,
    /// How much it matters: `DEBUG`, `INFO`, `WARN` or `ERROR`.
    #[cfg_attr(feature = "server", schema(value_type = String))]
    pub level: LogLevel,
    /// What happened.
    pub message: String,
    /// More of it, for programs.
    #[cfg_attr(feature = "server", schema(value_type = Option<Object>))]
    pub fields: Option<serde_json::Value>,
    /// When it happened, RFC 3339 in UTC.
    pub at: String,
}

impl JobLineRow {
    /// The row of an event.
    #[must_use]
    pub fn new(id: LogId, event: &LogEvent) -> Self {
        Self {
            line: id.0,
            step: event.step,
            level: event.level,
            message: event.message.clone(),
            fields: event.attrs.clone(),
            at: event.at.to_string(),
        }
    }
}
