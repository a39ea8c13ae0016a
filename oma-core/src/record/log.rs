use crate::state::{LineStream, LogLevel};
use crate::{JobId, LogId, Timestamp};

/// Something that happened (`log_events`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogEvent {
    /// The replication job it happened to, if it was one.
    pub job: Option<JobId>,
    /// The number of the job's step in which it happened, if it was in one.
    pub step: Option<u32>,
    /// How much it matters.
    pub level: LogLevel,
    /// What happened. A NUL is kept as U+FFFD: not every database can hold it.
    pub message: String,
    /// More of it, for programs.
    pub attrs: Option<serde_json::Value>,
    /// When it happened, by the clock of whoever tells it.
    pub at: Timestamp,
}

/// Which events to list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogFilter {
    /// Only those of this job.
    pub job: Option<JobId>,
    /// Only those of the step of this number; without a job none are.
    pub step: Option<u32>,
    /// Only those that matter at least so much.
    pub least: Option<LogLevel>,
}

/// A page of a list that is read by id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Page {
    /// Where it starts, and in which direction it goes.
    pub start: PageStart,
    /// How many it has at most; more than [`Page::LARGEST`] counts as that.
    pub limit: u32,
}

/// Where a page starts, and in which direction it goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PageStart {
    /// At the oldest, towards newer.
    Oldest,
    /// Behind this one, towards newer.
    After(LogId),
    /// At the newest, towards older.
    Newest,
    /// Before this one, towards older.
    Before(LogId),
}

impl Page {
    /// No page has more.
    pub const LARGEST: u32 = 10_000;

    /// How many it has at most, [`Page::LARGEST`] considered.
    #[must_use]
    pub const fn size(&self) -> u32 {
        if self.limit < Self::LARGEST { self.limit } else { Self::LARGEST }
    }
}

/// A line that an automation job wrote (`job_logs`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobLine {
    /// Its number in the job, from 1 on.
    pub number: u64,
    /// Where it was written to.
    pub stream: LineStream,
    /// The line, without its end. A NUL is kept as U+FFFD: not every database can hold it.
    pub text: String,
    /// When it was written.
    pub at: Timestamp,
}

/// Which logs are kept. What either rule gives up is deleted; without a rule everything is kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Retention {
    /// What is older than this is deleted.
    pub older_than: Option<Timestamp>,
    /// Only so many are kept, those recorded last: of all events, and of the lines of all jobs together.
    pub keep: Option<u64>,
}

/// How much was deleted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pruned {
    /// Log events.
    pub events: u64,
    /// Lines of automation jobs.
    pub lines: u64,
}
