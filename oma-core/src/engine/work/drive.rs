//! One job, from its claim to its end or the next wait.

use std::sync::Arc;

use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{Instrument as _, Span};

use super::teller::Teller;
use super::{Shared, Work};
use crate::engine::cancel::{cancel, let_go};
use crate::engine::recorder::tell;
use crate::engine::spans;
use crate::record::{JobEnd, Lease, ReplicationJob};
use crate::state::{LogLevel, Wanted};
use crate::{Error, ErrorKind, JobId, Result, Retry};

/// The reason that is recorded with a job which was wanted to end.
const CANCELLED: &str = "an operator cancelled it";

/// One job under its lease.
pub(super) struct Drive {
    shared: Arc<Shared>,
    lease: Lease,
    asked: Instant,
    /// The worker's.
    stop: CancellationToken,
    nudge: Arc<Notify>,
}

impl Drive {
    pub(super) fn new(shared: Arc<Shared>, lease: Lease, asked: Instant, stop: CancellationToken) -> Self {
        let nudge = Arc::<Notify>::default();
        shared.driven().insert(lease.job.clone(), Arc::clone(&nudge));
        Self { shared, lease, asked, stop, nudge }
    }

    /// Drives it. Whatever it meets is logged and recorded with the job.
    pub(super) async fn run(self) {
        let id = self.lease.job.clone();
        let span = spans::attempt(&id);
        if let Err(error) = self.drive(&id, &span).instrument(span.clone()).await {
            spans::failed(&span, &error);
            tracing::error!(job = %id, error = %error.chain(), "the job is left to its next owner");
        }
    }

    async fn drive(&self, id: &JobId, span: &Span) -> Result<()> {
        let job = self.job(id).await?;
        spans::drives(span, &job);
        let work = match self.open(&job).await {
            Ok(work) => work,
            // Not for ever: an operator wants it to end.
            Err(error) if job.wanted == Wanted::Cancel && self.is_hopeless(&job, &error) => {
                tracing::warn!(job = %id, error = %error.chain(), "cancelled without a word to its source");
                return self.cancel(id, None).await;
            }
            Err(error) => {
                spans::failed(span, &error);
                return self.refuse(&job, error).await;
            }
        };
        if job.wanted == Wanted::Cancel {
            return self.cancel(id, Some(&work)).await;
        }
        let stop = self.stop.child_token();
        let teller = Teller::new();
        let replicator = self.shared.replicator.reading(Arc::clone(&work.source));
        let driving = replicator.drive(self.lease.clone(), self.asked, &work.request, &teller, &stop);
        let report = tokio::select! {
            biased;
            report = driving => report?,
            never = self.watch(&stop, &teller) => match never {},
        };
        spans::ended(span, &report.outcome);
        // The end is told as well: the last news may be of after the last look.
        self.tell(&teller).await;
        for warning in &report.warnings {
            tracing::warn!(job = %id, warning, "the job was driven with a warning");
        }
        tracing::info!(job = %id, outcome = ?report.outcome, "the job was driven");
        // One that is to end is given out again at once.
        self.shared.nudge.notify_one();
        Ok(())
    }

    /// Whether another attempt to open it cannot help, or was made often enough.
    fn is_hopeless(&self, job: &ReplicationJob, error: &Error) -> bool {
        error.retry() == Retry::Never || job.attempts + 1 >= self.shared.config.attempts.attempts
    }

    async fn tell(&self, teller: &Teller) {
        let Some(progress) = teller.news() else { return };
        if let Err(error) = self.shared.replicator.services().jobs.tell_progress(&self.lease, &progress).await
        {
            teller.unheard();
            tracing::debug!(job = %self.lease.job, error = %error.chain(), "could not tell how far it is");
        }
    }

    async fn job(&self, id: &JobId) -> Result<ReplicationJob> {
        let found = self.shared.replicator.services().jobs.get(id).await?;
        found.ok_or_else(|| Error::new(ErrorKind::NotFound, "drive job", id))
    }

    async fn open(&self, job: &ReplicationJob) -> Result<Work> {
        let context = self.shared.replicator.services().inventory.context(&job.context).await?;
        let context = context.ok_or_else(|| Error::new(ErrorKind::NotFound, "drive job", &job.id))?;
        self.shared.opener.open(job, &context).await
    }

    /// Cancels it, and lets its point in time at the source go.
    async fn cancel(&self, id: &JobId, work: Option<&Work>) -> Result<()> {
        let replicator = &self.shared.replicator;
        let replicator = match work {
            Some(work) => replicator.reading(Arc::clone(&work.source)),
            None => replicator.clone(),
        };
        let ended = cancel(replicator.services(), replicator.worker(), id, CANCELLED).await?;
        tracing::info!(job = %ended.id, "the job was cancelled");
        Ok(())
    }

    /// Ends a job that cannot be driven here, or lets it wait when that may pass.
    async fn refuse(&self, job: &ReplicationJob, error: Error) -> Result<()> {
        let (services, reason) = (self.shared.replicator.services(), error.chain());
        tracing::warn!(job = %self.lease.job, error = %reason, "the job cannot be begun");
        let told = format!("the job cannot be begun: {reason}");
        tell(services.job_log.as_ref(), &self.lease, LogLevel::Error, told).await;
        if error.retry() != Retry::Never {
            return services.jobs.defer(&self.lease, &reason, &self.shared.config.attempts).await.map(drop);
        }
        // What an attempt before has left: nobody else comes for it.
        if let Err(left) = let_go(services, &self.lease, job.kind).await {
            tracing::warn!(job = %self.lease.job, error = %left.chain(), "an earlier attempt has left something");
        }
        services.jobs.end(&self.lease, JobEnd::Failed(reason)).await.map(drop)
    }

    /// Tells how far the job is, and stops it when something else is wanted of it. A store that does not answer is asked again:
    /// the lease decides when the job is nobody's any more.
    async fn watch(&self, stop: &CancellationToken, teller: &Teller) -> std::convert::Infallible {
        let jobs = &self.shared.replicator.services().jobs;
        loop {
            tokio::select! {
                () = self.nudge.notified() => {}
                () = tokio::time::sleep(self.shared.config.pace) => {}
            }
            self.tell(teller).await;
            match jobs.get(&self.lease.job).await {
                Ok(Some(job)) if job.wanted == Wanted::Run => {}
                Ok(_) => stop.cancel(),
                Err(error) => {
                    tracing::debug!(job = %self.lease.job, error = %error.chain(), "could not ask what is wanted");
                }
            }
        }
    }
}

impl Drop for Drive {
    fn drop(&mut self) {
        // The job may have been given out again meanwhile, to the next of these.
        let mut driven = self.shared.driven();
        if driven.get(&self.lease.job).is_some_and(|nudge| Arc::ptr_eq(nudge, &self.nudge)) {
            driven.remove(&self.lease.job);
        }
    }
}
