use std::fmt;

use async_trait::async_trait;
use futures_util::stream::BoxStream;

use crate::record::{Cleanup, CleanupEnd, CleanupFilter, CleanupNews, CleanupSpec, FailoverRecord, Orphans};
use crate::{CleanupId, ContextId, FailoverJobId, JobId, Result, Timestamp};

/// Cleanups of jobs (`cleanups`, `cleanup_steps`), and of failover jobs (`failover_jobs`) what a cleanup has to know.
///
/// Records only: whoever executes one looks at the world before each step, and changes volumes under jobs of their VMs.
#[async_trait]
pub trait Cleanups: fmt::Debug + Send + Sync + 'static {
    /// Records a plan as `planned`, each of its steps `pending`. Idempotent by id.
    ///
    /// # Errors
    /// `AlreadyExists` when the id has another plan; `NotFound` for an unknown VM.
    async fn insert_cleanup(&self, spec: &CleanupSpec) -> Result<Cleanup>;

    /// The cleanup with this id, if there is one.
    async fn cleanup(&self, id: &CleanupId) -> Result<Option<Cleanup>>;

    /// Cleanups in the order in which they were recorded, from the newest or from the oldest one on.
    ///
    /// # Errors
    /// `NotFound` when the one to begin behind is not recorded.
    fn cleanups(&self, filter: CleanupFilter) -> BoxStream<'_, Result<Cleanup>>;

    /// An operator wants it done: `executing`. Idempotent. Another one of the same job that is executing becomes `refused`: whoever
    /// carries that one out learns it with the next step that he tells of.
    ///
    /// # Errors
    /// `NotFound`; `Conflict` when it has ended.
    async fn begin_cleanup(&self, id: &CleanupId) -> Result<Cleanup>;

    /// Records how a step stands, the first being 0.
    ///
    /// # Errors
    /// `NotFound`, also for an unknown step; `Conflict` when the cleanup is not executing.
    async fn tell_step(&self, id: &CleanupId, step: usize, news: &CleanupNews) -> Result<()>;

    /// Ends it. Idempotent: the same end again answers it as it is.
    ///
    /// # Errors
    /// `NotFound`; `Conflict` when it has ended otherwise, or is said to be completed while a step is not done or something is
    /// [left](Orphans::is_clean).
    async fn end_cleanup(&self, id: &CleanupId, end: &CleanupEnd) -> Result<Cleanup>;

    /// Removes those that last changed before a moment, with their steps; one that is executing stays. Answers how many went.
    async fn prune_cleanups(&self, older_than: Timestamp) -> Result<u64>;

    /// The failover jobs of a VM, by id.
    async fn failovers(&self, context: &ContextId) -> Result<Vec<FailoverRecord>>;

    /// Removes the record of a failover job. Idempotent: an unknown one is `Ok`.
    ///
    /// # Errors
    /// `Conflict` while it is [needed](FailoverRecord::needed).
    async fn forget_failover(&self, id: &FailoverJobId) -> Result<()>;

    /// How much of a job of this VM is recorded that should not be, as far as records tell ([`Orphans::served`], [`Orphans::volumes`],
    /// [`Orphans::points`], [`Orphans::snapshots`] and [`Orphans::jobs`] are 0). Of device mappings, those of disks at whose volumes
    /// the job did something.
    async fn orphans(&self, job: &JobId, context: &ContextId) -> Result<Orphans>;
}
