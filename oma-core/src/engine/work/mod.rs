//! Drives jobs that others have recorded, several at once, for as long as the process lives.
//!
//! ```text
//! submit ─► job with a request ─► claim_next ─► open its source ─► drive ─► completed · failed · waits for another attempt
//!                                    ▲                                │
//!                 lease ends, waits end, released ◄── stopped, paused ┘
//! ```
//!
//! Nothing is kept here that a restart would miss: a job that was driven is claimed again when its lease has ended, by anybody.

mod drive;
mod teller;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use self::drive::Drive;
use super::config::ReplicateRequest;
use super::replicate::Replicator;
use crate::record::{ClaimLimits, ClaimRequest, Lease, ReplicationJob, RetryPolicy, VmContext};
use crate::state::{JobKind, Wanted};
use crate::traits::DiskSource;
use crate::{JobId, Result};

/// What a job is driven with.
#[derive(Debug)]
pub struct Work {
    /// Where its disks are read.
    pub source: Arc<dyn DiskSource>,
    /// What is to be done.
    pub request: ReplicateRequest,
}

/// Understands the [requests](crate::record::JobSpec::request) that a program records with its jobs.
#[async_trait]
pub trait WorkOpener: fmt::Debug + Send + Sync + 'static {
    /// What a job's request says. Nothing is asked of the source yet.
    ///
    /// # Errors
    /// `Invalid` when the request is none that this program understands: the job can never be driven.
    async fn open(&self, job: &ReplicationJob, context: &VmContext) -> Result<Work>;
}

/// How a [`Worker`] works.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WorkerConfig {
    /// How many jobs may be driven at a time. Without a bound for this worker it drives 4.
    pub limits: ClaimLimits,
    /// How often a job is attempted, and how long it waits between attempts.
    pub attempts: RetryPolicy,
    /// How often it looks for jobs, for what is wanted of those that it drives, and tells how far they are.
    pub pace: Duration,
}

/// How long jobs that are stopped may take to end.
const ENDING: Duration = Duration::from_secs(60);
/// A worker that did not look for so long hangs.
const SILENT: Duration = Duration::from_secs(60);
/// Jobs at a time where no bound is given.
const AT_A_TIME: u32 = 4;
/// Jobs that are ended at a time beside those that are driven.
const ENDED_AT_A_TIME: usize = 4;

impl Default for WorkerConfig {
    fn default() -> Self {
        let limits = ClaimLimits { per_worker: Some(AT_A_TIME), ..ClaimLimits::default() };
        Self { limits, attempts: RetryPolicy::default(), pace: Duration::from_secs(2) }
    }
}

/// Drives jobs as one worker.
#[derive(Clone, Debug)]
pub struct Worker {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    replicator: Replicator,
    opener: Arc<dyn WorkOpener>,
    config: WorkerConfig,
    /// Somebody has recorded a job, or wants something else of one.
    nudge: Notify,
    driven: Mutex<BTreeMap<JobId, Arc<Notify>>>,
    /// Those that were said to be wanted to end, and were not looked at yet.
    to_end: Mutex<BTreeSet<JobId>>,
    /// When it last asked for a job, or was about to.
    looked: Mutex<Option<Instant>>,
}

impl Worker {
    /// A worker that reads sources as `opener` says.
    #[must_use]
    pub fn new(replicator: Replicator, opener: Arc<dyn WorkOpener>, config: WorkerConfig) -> Self {
        let per_worker = config.limits.per_worker.or(Some(AT_A_TIME));
        let config = WorkerConfig { limits: ClaimLimits { per_worker, ..config.limits }, ..config };
        let replicator = replicator.with_attempts(config.attempts);
        let (nudge, driven, to_end, looked) =
            (Notify::new(), Mutex::default(), Mutex::default(), Mutex::default());
        Self { shared: Arc::new(Shared { replicator, opener, config, nudge, driven, to_end, looked }) }
    }

    /// Looks at once for a job to drive, and for what is wanted of those that are driven.
    pub fn nudge(&self) {
        self.shared.nudge.notify_one();
        for driven in self.shared.driven().values() {
            driven.notify_one();
        }
    }

    /// Looks at once for a job that is wanted to end: one that waits is ended now, however many others are driven. One that waits for
    /// another try, or is not ended for another reason, is ended when its turn comes.
    pub fn end(&self, job: &JobId) {
        self.shared.to_end().insert(job.clone());
        self.nudge();
    }

    /// The jobs that are driven here now.
    #[must_use]
    pub fn driven(&self) -> Vec<JobId> {
        self.shared.driven().keys().cloned().collect()
    }

    /// Whether it looks for jobs, and did so of late.
    #[must_use]
    pub fn is_running(&self) -> bool {
        let patience = SILENT.max(self.shared.config.pace * 10);
        self.shared.looked().is_some_and(|looked| looked.elapsed() <= patience)
    }

    /// Drives jobs until it is stopped. Those under way end soon then, stay alive, and are given back.
    pub async fn run(&self, stop: &CancellationToken) {
        let (mut under_way, mut ending) = (JoinSet::new(), JoinSet::new());
        loop {
            *self.shared.looked() = Some(Instant::now());
            self.end_wanted(&mut ending, stop).await;
            self.take_up(&mut under_way, stop).await;
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                () = self.shared.nudge.notified() => {}
                Some(_) = under_way.join_next() => {}
                Some(_) = ending.join_next() => {}
                () = tokio::time::sleep(self.shared.config.pace) => {}
            }
        }
        *self.shared.looked() = None;
        let ended = async {
            while under_way.join_next().await.is_some() {}
            while ending.join_next().await.is_some() {}
        };
        if tokio::time::timeout(ENDING, ended).await.is_err() {
            tracing::error!("jobs are under way that do not end; their leases end by themselves");
            under_way.shutdown().await;
            ending.shutdown().await;
        }
    }

    /// Ends jobs that wait and were said to be wanted to end. One that somebody drives is that one's to end; what fails is left to the
    /// queue.
    async fn end_wanted(&self, ending: &mut JoinSet<()>, stop: &CancellationToken) {
        while ending.len() < ENDED_AT_A_TIME && !stop.is_cancelled() {
            let Some(job) = self.shared.to_end().pop_first() else { return };
            let asked = Instant::now();
            match self.claim_to_end(&job).await {
                Ok(Some(lease)) => {
                    ending.spawn(Drive::new(Arc::clone(&self.shared), lease, asked, stop.clone()).run());
                }
                Ok(None) => {}
                Err(error) => tracing::debug!(%job, error = %error.chain(), "it is not ended out of turn"),
            }
        }
    }

    /// `None` for a job that is to go on, and for what is driven here, by this or by who changes volumes: a claim would fence that off.
    async fn claim_to_end(&self, job: &JobId) -> Result<Option<Lease>> {
        let Shared { replicator, .. } = &*self.shared;
        let jobs = &replicator.services().jobs;
        let is_ended_here =
            |job: &ReplicationJob| job.kind == JobKind::Replicate && job.wanted == Wanted::Cancel;
        let is_wanted = jobs.get(job).await?.is_some_and(|job| is_ended_here(&job));
        if !is_wanted || self.shared.driven().contains_key(job) {
            return Ok(None);
        }
        jobs.claim(job, replicator.worker(), replicator.config().lease).await.map(Some)
    }

    /// Begins every job that is due and that no bound forbids.
    async fn take_up(&self, under_way: &mut JoinSet<()>, stop: &CancellationToken) {
        while !stop.is_cancelled() {
            let asked = Instant::now();
            *self.shared.looked() = Some(asked);
            match self.claim_next().await {
                Ok(Some(lease)) => {
                    let drive = Drive::new(Arc::clone(&self.shared), lease, asked, stop.clone());
                    under_way.spawn(drive.run());
                }
                Ok(None) => return,
                Err(error) => {
                    tracing::warn!(error = %error.chain(), "could not ask for the next job");
                    return;
                }
            }
        }
    }

    async fn claim_next(&self) -> Result<Option<Lease>> {
        let Shared { replicator, config, .. } = &*self.shared;
        let request = ClaimRequest {
            worker: replicator.worker().clone(),
            ttl: replicator.config().lease,
            limits: config.limits,
            attempts: config.attempts.attempts,
        };
        replicator.services().jobs.claim_next(&request).await
    }
}

impl Shared {
    fn driven(&self) -> MutexGuard<'_, BTreeMap<JobId, Arc<Notify>>> {
        self.driven.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn to_end(&self) -> MutexGuard<'_, BTreeSet<JobId>> {
        self.to_end.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn looked(&self) -> MutexGuard<'_, Option<Instant>> {
        self.looked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
