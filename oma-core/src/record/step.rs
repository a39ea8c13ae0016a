use crate::state::{LogLevel, StepStatus};
use crate::{Fence, JobId, Timestamp, WorkerId};

/// A step of a job, in one attempt to drive it (`job_steps`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobStep {
    /// The job.
    pub job: JobId,
    /// Its place among all steps of the job, from 1 on.
    pub number: u32,
    /// Which step, as the engine names it.
    pub name: String,
    /// How it stands.
    pub status: StepStatus,
    /// The token of the lease under which it was done: larger with each attempt, not by one.
    pub attempt: Fence,
    /// Who did it; `None` in records of other programs.
    pub worker: Option<WorkerId>,
    /// When it began, by the clock of whoever did it.
    pub started_at: Timestamp,
    /// When it ended, or was found not to go on.
    pub ended_at: Option<Timestamp>,
    /// Why it failed.
    pub error: Option<String>,
}

impl JobStep {
    /// Why a step failed whose end nobody told.
    pub const UNTOLD: &str = "whoever drove the job went away before it ended";
}

/// What whoever drives a job tells of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobEntry {
    /// When it happened, by the clock of whoever tells it.
    pub at: Timestamp,
    /// What happened.
    pub what: Told,
}

/// What happened to a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Told {
    /// A step of this name began.
    Begins(String),
    /// The step that is running ended.
    Ends(StepEnd),
    /// A line for readers.
    Line {
        /// How much it matters.
        level: LogLevel,
        /// What happened.
        message: String,
        /// More of it, for programs.
        attrs: Option<serde_json::Value>,
    },
}

/// How a step ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StepEnd {
    /// It did what it was for.
    Completed,
    /// It did not, for this reason.
    Failed(String),
    /// There was nothing to do for it.
    Skipped,
}

impl StepEnd {
    /// How the step stands then.
    #[must_use]
    pub const fn status(&self) -> StepStatus {
        match self {
            Self::Completed => StepStatus::Completed,
            Self::Failed(_) => StepStatus::Failed,
            Self::Skipped => StepStatus::Skipped,
        }
    }

    /// Why it failed.
    #[must_use]
    pub fn error(&self) -> Option<&str> {
        match self {
            Self::Failed(error) => Some(error),
            Self::Completed | Self::Skipped => None,
        }
    }
}
