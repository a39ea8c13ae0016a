use std::fmt;

use async_trait::async_trait;

use crate::record::{JobEntry, JobStep, Lease};
use crate::{JobId, Result};

/// The steps of jobs (`job_steps`) and what is told of them (`log_events`), attempt by attempt.
///
/// ```text
/// attempt 1   begins freeze · line · ends ── begins copy · line · line …   (its worker went away)
/// attempt 2   begins freeze · ends ────────── begins copy · line · ends ── …
/// ```
///
/// Lines are read, and kept for a while, by [`LogStore`](super::LogStore).
#[async_trait]
pub trait JobLog: fmt::Debug + Send + Sync + 'static {
    /// Records what was told of a job under a lease, in its order, all of it or nothing. Not idempotent. The lease need not be good any
    /// more: how a job ended is told afterwards.
    ///
    /// A line belongs to the step of its attempt that is running then. A step that is running when another one begins, or when a later
    /// attempt tells something, has failed ([`JobStep::UNTOLD`]). An end without a running step changes nothing.
    ///
    /// # Errors
    /// `NotFound` for an unknown job; `Fenced` once a step of a later attempt is recorded.
    async fn record(&self, lease: &Lease, entries: &[JobEntry]) -> Result<()>;

    /// The steps of a job behind the number `after` (0: from the first on), by number, at most `limit` and
    /// [`Page::LARGEST`](crate::record::Page::LARGEST); none of an unknown one.
    async fn steps(&self, job: &JobId, after: u32, limit: u32) -> Result<Vec<JobStep>>;

    /// Deletes the lines of a job but the `keep` recorded last, by steps of a few thousand, and answers how many that were. Its steps
    /// stay. None of an unknown one.
    async fn trim(&self, job: &JobId, keep: u64) -> Result<u64>;
}
