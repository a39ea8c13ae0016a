//! Reverts and deletions of a process that lives on: they go on when whoever asked goes away, and a revert after a restart.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::TryStreamExt as _;
use tokio::sync::{Mutex, Notify};
use tokio_util::sync::CancellationToken;

use super::errands::Errands;
use super::revert::{Taken, check_free, destination, ready, went_back};
use super::sweep::delete;
use crate::engine::cancel::cancel;
use crate::engine::config::ReplicateConfig;
use crate::engine::services::Services;
use crate::record::{JobEnd, JobFilter, Needless, RecoveryPoint, ReplicationJob};
use crate::state::{JobKind, Wanted};
use crate::{
    Clock as _, Error, ErrorKind, Fence, JobId, RecoveryPointId, Result, Retry, SystemClock, WorkerId,
};

/// The least time between two looks at what was left: more often would help nobody.
const LEAST: Duration = Duration::from_secs(1);
/// How often it is looked whether a revert is still wanted.
const PACE: Duration = Duration::from_secs(2);
/// How long what is under way may take to rest.
const ENDING: Duration = Duration::from_secs(60);
/// The reason that is recorded with a revert which was wanted to end.
const CANCELLED: &str = "an operator cancelled it; the volumes hold nothing that is believed unless it had not begun: revert again, or replicate";

/// Goes back to recovery points and deletes them, as one worker. A clone is another handle on the same.
///
/// ```text
/// revert ─► job with its point ─► carried out ─► failed, or cancelled because it went back
///              ▲                      │
///  recover ────┘   stopped, killed ◄──┘
/// ```
///
/// What was begun goes on whoever goes away (L18); [`PointService::recover`] takes up reverts that a process before has left.
#[derive(Clone, Debug)]
pub struct PointService(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    services: Services,
    worker: WorkerId,
    config: ReplicateConfig,
    errands: Errands,
    /// One after another: a worker gets a job a second time that it holds, and would fence itself off.
    taking: Mutex<()>,
    has_upkeep: AtomicBool,
    /// Something else may be wanted of a job.
    nudge: Notify,
}

impl PointService {
    /// One that changes volumes as this worker.
    #[must_use]
    pub fn new(services: Services, worker: WorkerId, config: ReplicateConfig) -> Self {
        let (errands, taking, has_upkeep) = (Errands::default(), Mutex::default(), AtomicBool::new(false));
        let nudge = Notify::new();
        Self(Arc::new(Inner { services, worker, config, errands, taking, has_upkeep, nudge }))
    }

    /// What it works with.
    #[must_use]
    pub fn services(&self) -> &Services {
        &self.0.services
    }

    /// Begins a revert, as [`revert`](super::revert) does it, and answers its job. Idempotent by the job's id, also once it has ended. A
    /// revert of the VM that was interrupted gives way to it.
    ///
    /// # Errors
    /// `NotFound`; `AlreadyExists` when the id is of another job; `Conflict` when the point is not ready or lacks a disk, while another
    /// job of the VM is live, and when the VM's state forbids it (L07); `Busy` while another worker reverts; `Unavailable` once this is shut
    /// down. What is found out later [`PointService::wait`] tells.
    pub async fn revert(&self, job: &JobId, point: &RecoveryPointId) -> Result<ReplicationJob> {
        self.begins(point)?;
        if let Some(known) = self.jobs().get(job).await? {
            if destination(&known).as_ref() != Some(point) {
                return Err(Error::new(ErrorKind::AlreadyExists, "revert to recovery point", point)
                    .because(format!("{job} is another job; give this one another id")));
            }
            if !known.status.is_terminal() && self.is_left(&known) {
                self.take_up(&known).await?;
            }
            return self.job(job).await;
        }
        let _alone = self.0.taking.lock().await;
        let Inner { services, worker, config, .. } = &*self.0;
        let found = ready(services, point).await?;
        check_free(services, &found, |live| self.0.errands.is_under_way(live)).await?;
        let taken = Taken::take(services, worker, config, &found, Some(job)).await?;
        self.drive(taken, point.clone());
        self.job(job).await
    }

    /// The job of a revert once nobody carries it out any more, or as it is after so long.
    ///
    /// # Errors
    /// What it failed with; `Conflict` with its reason when that was in a process before; `NotFound`.
    pub async fn wait(&self, job: &JobId, within: Duration) -> Result<ReplicationJob> {
        if let Some(ended) = self.0.errands.wait(job, within).await {
            ended?;
        }
        let now = self.job(job).await?;
        match now.status.is_terminal() && !went_back(&now) {
            true => Err(Error::new(ErrorKind::Conflict, "carry out job", job)
                .because(now.error.unwrap_or_else(|| format!("it is {}", now.status)))),
            false => Ok(now),
        }
    }

    /// Deletes a recovery point with its snapshots, as [`delete_point`](super::delete_point) does; once this returned it goes on when the
    /// caller goes away. The point as it is after so long, `None` once it is gone.
    ///
    /// # Errors
    /// As there; `Unavailable` once this is shut down: the same call, or the next run of the VM, goes on.
    pub async fn delete(
        &self,
        id: &RecoveryPointId,
        reason: &str,
        within: Duration,
    ) -> Result<Option<RecoveryPoint>> {
        self.begins(id)?;
        let services = &self.0.services;
        services.points.condemn_point(id, Needless::Unwanted, reason).await?;
        let Some(found) = services.points.point(id).await? else { return Ok(None) };
        let (of, point) = (services.clone(), found.clone());
        let deleting = async move { delete(&*of.backend, &*of.points, &point).await };
        self.0.errands.begin(id, deleting);
        match self.0.errands.wait(id, within).await {
            Some(ended) => ended.map(|()| None),
            None => Ok(Some(found)),
        }
    }

    /// Goes on with the reverts that a process before has left: those of this worker at once, another one's once its lease has ended. One
    /// that is wanted to end is ended. To be called at each start, and every now and then, which [`PointService::upkeep`] does. Answers
    /// what is carried out since.
    ///
    /// # Errors
    /// What the store answers. `Unavailable` once this is shut down.
    pub async fn recover(&self) -> Result<Vec<JobId>> {
        let filter = JobFilter { live_only: true, ..JobFilter::default() };
        let reverts =
            self.jobs().list(filter).try_filter(|job| std::future::ready(job.kind == JobKind::Revert));
        let left: Vec<ReplicationJob> = reverts.try_collect().await?;
        let mut begun = Vec::new();
        for job in left.into_iter().rev().filter(|job| self.is_left(job)) {
            self.begins(&job.id)?;
            match self.take_up(&job).await {
                Ok(true) => begun.push(job.id),
                Ok(false) => {}
                Err(error) => {
                    tracing::warn!(job = %job.id, error = %error.chain(), "the revert is left to its next owner");
                }
            }
        }
        Ok(begun)
    }

    /// From now on [`PointService::recover`] is called every so often, at least a second apart, until [`PointService::shutdown`]. To be
    /// called once, within a Tokio runtime; a second call does nothing. A minute is a good choice.
    pub fn upkeep(&self, every: Duration) {
        if self.0.has_upkeep.swap(true, Ordering::Relaxed) {
            return;
        }
        let this = self.clone();
        self.0.errands.look_after(async move {
            let stop = this.0.errands.stop();
            while stop.run_until_cancelled(tokio::time::sleep(every.max(LEAST))).await.is_some() {
                if let Err(error) = this.recover().await {
                    tracing::warn!(error = %error.chain(), "reverts could not be looked after; tried again later");
                }
            }
        });
    }

    /// Looks at once for what is wanted of the reverts that are carried out.
    pub fn nudge(&self) {
        self.0.nudge.notify_waiters();
    }

    /// Begins nothing more and lets go of what is under way: the next start goes on with it.
    pub async fn shutdown(&self) {
        self.0.errands.end(ENDING).await;
    }

    /// Whether nobody carries it out, as far as can be told. One that was just recorded is about to be taken by who did.
    fn is_left(&self, job: &ReplicationJob) -> bool {
        let now = SystemClock.now();
        let is_due = job.due_at.is_some_and(|due| due <= now);
        let is_fresh = job.fence == Fence(0) && job.created_at.after(self.0.config.lease) > now;
        let is_free = job.owner.as_ref().is_none_or(|owner| *owner == self.0.worker || is_due);
        is_free && !is_fresh && !self.0.errands.is_under_way(&job.id)
    }

    /// Goes on with a revert, or ends one that is wanted to end. Not when somebody else does, or did.
    async fn take_up(&self, job: &ReplicationJob) -> Result<bool> {
        let _alone = self.0.taking.lock().await;
        let Inner { services, worker, config, errands, .. } = &*self.0;
        if errands.is_under_way(&job.id) {
            return Ok(false);
        }
        let taken = match (job.wanted, destination(job)) {
            (Wanted::Cancel, _) => cancel(services, worker, &job.id, CANCELLED).await.map(|_| None),
            // Nobody knows where it was to go: an operator reverts again, or cancels it.
            (_, None) => Ok(None),
            (_, Some(point)) => {
                let taken = Taken::claim(services, worker, config, &job.id).await;
                taken.map(|taken| Some((taken, point)))
            }
        };
        match taken {
            Ok(Some((taken, point))) => {
                tracing::info!(job = %job.id, %point, "goes on with a revert that was left");
                self.drive(taken, point);
                Ok(true)
            }
            Ok(None) => Ok(false),
            Err(error) if matches!(error.kind(), ErrorKind::Busy | ErrorKind::Conflict) => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn drive(&self, taken: Taken, point: RecoveryPointId) {
        let (this, job) = (self.clone(), taken.lease.job.clone());
        self.0.errands.begin(job, async move { this.carry_out(&taken, &point).await });
    }

    async fn carry_out(&self, taken: &Taken, id: &RecoveryPointId) -> Result<()> {
        let Inner { services, config, errands, .. } = &*self.0;
        let (stop, cancelled) = (errands.stop().child_token(), CancellationToken::new());
        let reverting = async {
            let point = ready(services, id).await?;
            taken.run(services, config, &point, &stop).await?;
            Ok(point)
        };
        let reverted: Result<RecoveryPoint> = tokio::select! {
            biased;
            reverted = reverting => reverted,
            never = self.watch(&taken.lease.job, &stop, &cancelled) => match never {},
        };
        let is_stopped = reverted.as_ref().is_err_and(|error| error.kind() == ErrorKind::Cancelled);
        let ended = match is_stopped {
            true if cancelled.is_cancelled() => {
                taken.end_as(services, JobEnd::Cancelled(CANCELLED.to_owned())).await
            }
            // The next start goes on with it.
            true if errands.stop().is_cancelled() => services.jobs.release(&taken.lease).await,
            _ => taken.end(services, id, &reverted).await,
        };
        reverted?;
        ended
    }

    /// Stops a revert that is wanted to end. A store that does not answer is asked again.
    async fn watch(
        &self,
        job: &JobId,
        stop: &CancellationToken,
        cancelled: &CancellationToken,
    ) -> std::convert::Infallible {
        loop {
            tokio::select! {
                () = self.0.nudge.notified() => {}
                () = tokio::time::sleep(PACE) => {}
            }
            if let Ok(Some(now)) = self.jobs().get(job).await
                && now.wanted == Wanted::Cancel
            {
                cancelled.cancel();
                stop.cancel();
            }
        }
    }

    fn jobs(&self) -> &dyn crate::traits::JobStore {
        &*self.0.services.jobs
    }

    async fn job(&self, id: &JobId) -> Result<ReplicationJob> {
        let found = self.jobs().get(id).await?;
        found.ok_or_else(|| Error::new(ErrorKind::NotFound, "find job", id))
    }

    fn begins(&self, of: &impl std::fmt::Display) -> Result<()> {
        match self.0.errands.stop().is_cancelled() {
            true => Err(Error::new(ErrorKind::Unavailable, "begin a change by", of)
                .because("this process is about to end; ask again once it is there anew")
                .with_retry(Retry::Later)),
            false => Ok(()),
        }
    }
}
