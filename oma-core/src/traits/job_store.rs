use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::stream::BoxStream;

use crate::record::{
    ClaimRequest, JobEnd, JobFilter, JobProgress, JobSpec, Lease, ReplicationJob, RetryPolicy,
};
use crate::state::{JobEvent, JobStatus, Wanted};
use crate::{ContextId, JobId, Result, WorkerId};

/// Replication jobs, their disks and the leases on them.
#[async_trait]
pub trait JobStore: fmt::Debug + Send + Sync + 'static {
    /// Records a job in `initializing` with the VM's next epoch, gives it its disks (`pending`, no byte synced) and moves
    /// the VM to `replicating`. One that operates leaves VM and disks as they are; the VM's state must allow replication all the
    /// same (L07).
    ///
    /// While a failover [protects] the volumes of the VM no job begins (L07), but for two that operate: under a cleanup that is executing
    /// and names the failover, and on a disk with an operation that is executing, which is only found out about.
    ///
    /// Idempotent by id: the same spec again (its disks in any order) answers the job as it is now.
    ///
    /// [protects]: crate::record::FailoverRecord::protects
    ///
    /// # Errors
    /// `AlreadyExists` when the id has another spec; `Conflict`, naming the live job, when the VM has one, when the
    /// VM's state forbids replication, and, naming it, when a failover does; `NotFound` for an unknown VM or disk; `Invalid` for no disk, one twice or a request that is
    /// too long.
    async fn insert(&self, spec: JobSpec) -> Result<ReplicationJob>;

    /// The job with this id, if there is one.
    async fn get(&self, id: &JobId) -> Result<Option<ReplicationJob>>;

    /// The job of a VM that has not ended, if there is one.
    async fn live(&self, context: &ContextId) -> Result<Option<ReplicationJob>>;

    /// Says what is wanted of a live job. It reads so at once, and whoever drives it follows when it looks: a lease stays what it is.
    /// One that nobody holds is due at once, however long it was to wait. Idempotent.
    ///
    /// # Errors
    /// `NotFound`; `Conflict` when it has ended, when it is to be cancelled and something else is wanted now, and when one that
    /// reverts or operates is to rest.
    async fn want(&self, id: &JobId, wanted: Wanted) -> Result<ReplicationJob>;

    /// Removes the record of a job that has ended, with its steps, its verification report and its part of the history of change ids; log
    /// lines stay, without it. What it made stays and is its VM's: volumes, change ids, journals, recovery points. Idempotent: an unknown
    /// one is `Ok`.
    ///
    /// # Errors
    /// `Conflict` when it has not ended, and when exports or unfinished operations of it are recorded.
    async fn delete(&self, id: &JobId) -> Result<()>;

    /// Jobs in the order in which they were recorded, from the newest or from the oldest one on. A job keeps its place whatever becomes of it:
    /// one that is let through while a list is read in parts, each behind the last one of the part before, is in exactly one of them.
    ///
    /// # Errors
    /// `NotFound` when the one to begin behind is not recorded.
    fn list(&self, filter: JobFilter) -> BoxStream<'_, Result<ReplicationJob>>;

    /// Takes the right to drive a job, with a token larger than every one before.
    ///
    /// Granted when nobody holds it, when its lease has expired, and to the worker that holds it already (it was
    /// restarted): its old lease is fenced off. Until somebody claims, an expired lease stays good (L17). Whoever names a
    /// job has chosen it: no bound is asked, no attempt is counted, and the wait after a failed attempt is cut short.
    ///
    /// # Errors
    /// `Busy` (retry later) when another worker holds it; `Conflict` when the job has ended; `NotFound`.
    async fn claim(&self, id: &JobId, worker: &WorkerId, ttl: Duration) -> Result<Lease>;

    /// Takes the right to drive the job that is to be driven next, with a token larger than every one before of that job;
    /// `None` when there is none. One that reverts or operates, one without a request and one that is to rest are never given out: only
    /// who names it drives it. One that is to be cancelled is given out with or without a request: whoever gets it ends it.
    ///
    /// Of the jobs that are due, the one with the largest priority, then the oldest, that no bound of
    /// [`ClaimLimits`](crate::record::ClaimLimits) forbids. Two claimers never get one job, and bounds hold however many
    /// claim at once. A worker's own job, too, is due only once its lease has ended.
    ///
    /// A job whose lease has ended without a word of its owner has had a failed attempt. When that makes
    /// `request.attempts` of them it is not given out: it ends as [`JobStore::end`] ends one that failed, with an error
    /// that says so, and the next candidate is looked at. A job that a bound forbids is not looked at.
    async fn claim_next(&self, request: &ClaimRequest) -> Result<Option<Lease>>;

    /// Prolongs a lease to `ttl` from now; the token stays. Works after it expired as long as nobody else claimed.
    ///
    /// # Errors
    /// `Fenced` when the token is not the newest, was released or the job has ended; also for an unknown job.
    async fn renew(&self, lease: &Lease, ttl: Duration) -> Result<Lease>;

    /// Gives the right back; the job stays as it is. A lease that is not the newest changes nothing and is `Ok`.
    async fn release(&self, lease: &Lease) -> Result<()>;

    /// An attempt failed: counts it, records the error, gives the lease back and lets the job wait for
    /// [`RetryPolicy::pause`]; its state stays, and with it everything that the next attempt continues from.
    ///
    /// The attempt that makes `policy.attempts` of them is the last: the job ends as [`JobStore::end`] ends one that
    /// failed, with the error "gave up after N attempts: …". Attempts are never forgotten: the job has one epoch to
    /// reach, and ends when it has reached it.
    ///
    /// # Errors
    /// `Fenced`, also the second time.
    async fn defer(&self, lease: &Lease, error: &str, policy: &RetryPolicy) -> Result<ReplicationJob>;

    /// Moves a job forward by one event, when it is in the state `from`; a second time it is not. Ending a job is
    /// [`JobStore::end`] and [`ChangeIdRepo::commit_epoch`](crate::traits::ChangeIdRepo::commit_epoch).
    ///
    /// # Errors
    /// `Fenced`; `Conflict` when it is in another state; `Invalid` for an event that is not possible in `from` or that
    /// ends a job.
    async fn advance(&self, lease: &Lease, from: JobStatus, event: JobEvent) -> Result<ReplicationJob>;

    /// Keeps how far a job is, in place of what was told before. A job that has ended is told of by whoever had its last lease.
    ///
    /// # Errors
    /// `Fenced`.
    async fn tell_progress(&self, lease: &Lease, progress: &JobProgress) -> Result<()>;

    /// How far a job is, as whoever drives or drove it told last; `None` when nobody did, and for an unknown job.
    async fn progress(&self, id: &JobId) -> Result<Option<JobProgress>>;

    /// Ends a job without its epoch: job `failed` or `cancelled`, its disks `failed`, its VM `failed`, the lease given
    /// back, in one transaction. No change id moves; journals stay for the next job. Any live state will do. One that operates ends
    /// `completed` as well, and leaves VM and disks as they are.
    ///
    /// # Errors
    /// `Fenced`, also when the job has ended already; `Conflict` when it is said to be done and does not operate.
    async fn end(&self, lease: &Lease, end: JobEnd) -> Result<ReplicationJob>;
}
