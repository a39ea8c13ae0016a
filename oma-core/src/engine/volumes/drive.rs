//! Operations are carried out: the backend is asked until it has told what became of them.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{Instrument as _, Span};

use super::act::{Act, mark_renewed};
use super::driven::Driving;
use super::leased::leave_old_intent;
use super::look::Looked;
use super::service::VolumeService;
use crate::engine::keeper::LeaseKeeper;
use crate::engine::retry::retry;
use crate::engine::spans;
use crate::record::{JobEnd, Lease, Operation};
use crate::state::OperationKind;
use crate::traits::Volume;
use crate::{DiskRef, Error, ErrorKind, Result, Retry};

/// How long the backend may take to mark a volume whose operation has ended.
const MARK: Duration = Duration::from_secs(30);

impl VolumeService {
    /// Carries an operation out of which the backend was not told yet.
    pub(super) fn drive(&self, lease: Lease, asked: Instant, operation: Operation) {
        self.spawn_drive(lease, asked, operation, false);
    }

    /// Carries an operation out that somebody may have begun before: nobody knows what he had done, also when he told of no doubt.
    pub(super) fn drive_on(&self, lease: Lease, asked: Instant, operation: Operation) {
        self.spawn_drive(lease, asked, operation, true);
    }

    fn spawn_drive(&self, lease: Lease, asked: Instant, operation: Operation, is_in_doubt: bool) {
        let spec = &operation.spec;
        let driving = Driving::begin(self, &lease.job, &spec.disk.context, Some(&spec.id));
        let this = self.clone();
        let span = spans::operation(spec);
        self.tasks().spawn(async move {
            let carried_out = this.carry_out((&lease, asked), &operation, is_in_doubt, &driving.stop);
            if let Err(error) = carried_out.instrument(span.clone()).await {
                spans::failed(&span, &error);
                let (id, job) = (&operation.spec.id, &lease.job);
                tracing::warn!(operation = %id, %job, error = %error.chain(), "left to be recovered");
            }
        });
    }

    /// The backend is asked until it has told what became of it; then that is recorded and the job ends. What is stopped or fenced
    /// stays as it is, and so does what the backend did and the records refuse.
    async fn carry_out(
        &self,
        (lease, asked): (&Lease, Instant),
        operation: &Operation,
        is_in_doubt: bool,
        stop: &CancellationToken,
    ) -> Result<()> {
        let jobs = &self.services().jobs;
        let stop = stop.child_token();
        let ttl = self.config().lease;
        let _keeper = LeaseKeeper::start(Arc::clone(jobs), lease.clone(), ttl, asked, stop.clone());
        let act = Act::new(self.services(), lease, &operation.spec);
        let end = match self.until_told(&act, &stop, is_in_doubt).await {
            Ok(volume) => match self.until_recorded(&act, &stop, &volume).await {
                Ok(()) => JobEnd::Done,
                Err(error) if is_given_up(&error) => return self.let_go(&act, error).await,
                Err(error) => {
                    let why = format!("the backend did it, and it cannot be recorded: {}", error.chain());
                    self.keep_doubt(&act, &why).await?;
                    JobEnd::Failed(why)
                }
            },
            Err(error) if is_given_up(&error) => return self.let_go(&act, error).await,
            Err(error) => {
                let volumes = &self.services().volumes;
                let why = error.chain();
                spans::failed(&Span::current(), &error);
                self.patiently(|| leave_old_intent(&**volumes, lease, act.spec, &error)).await?;
                self.patiently(|| volumes.fail(lease, &act.spec.id, &why)).await?;
                if act.spec.kind == OperationKind::Delete {
                    self.mark_or_leave(lease, &act.spec.disk).await?;
                }
                JobEnd::Failed(why)
            }
        };
        self.end(lease, end).await
    }

    /// Has the disk's volume bear the generation that its record has, if that was renewed; what the backend cannot be told now is
    /// left to recovery, with the job.
    pub(super) async fn mark_or_leave(&self, lease: &Lease, disk: &DiskRef) -> Result<()> {
        let limit = MARK.min(self.config().answer_limit);
        let marked =
            self.answered_within(limit, disk, self.stop(), mark_renewed(self.services(), disk)).await;
        match marked {
            Err(error) if error.retry() != Retry::Never || error.kind() == ErrorKind::Cancelled => {
                self.services().jobs.release(lease).await?;
                Err(error)
            }
            Err(error) => {
                tracing::warn!(%disk, error = %error.chain(), "its volume is not marked anew");
                Ok(())
            }
            Ok(()) => Ok(()),
        }
    }

    async fn let_go(&self, act: &Act<'_>, error: Error) -> Result<()> {
        match error.kind() {
            // Its owner tells at which machine it is to be. We get it back at once, and nobody else is to have it.
            ErrorKind::Cancelled if act.spec.kind == OperationKind::Attach => Ok(()),
            ErrorKind::Cancelled => self.services().jobs.release(act.lease).await,
            _ => Err(error),
        }
    }

    /// Asks until there is an answer that leaves no doubt. What was in doubt before it was refused may have been done all the same.
    async fn until_told(&self, act: &Act<'_>, stop: &CancellationToken, was_doubted: bool) -> Result<Volume> {
        let doubted = AtomicBool::new(was_doubted);
        loop {
            let call = || async {
                let answer = self.bounded(&act.spec.id, stop, act.call()).await;
                if answer.as_ref().is_err_and(|error| error.kind() == ErrorKind::Unavailable) {
                    doubted.store(true, Ordering::Relaxed);
                }
                answer
            };
            let error = match retry(&self.config().retry, stop, call).await {
                Err(error) if !is_given_up(&error) => error,
                told => return told,
            };
            if !doubted.load(Ordering::Relaxed) {
                return Err(error);
            }
            let is_refused = error.kind() != ErrorKind::Unavailable || error.retry() == Retry::Never;
            let mut why = error.chain();
            // What was done may be refused for ever, with an answer that promises more.
            if is_refused || act.is_seen() {
                match self.bounded(&act.spec.id, stop, act.look()).await {
                    Ok(Looked::Done(done)) => return Ok(done),
                    Ok(Looked::NotDone) if is_refused => return Err(error),
                    Ok(Looked::NotDone) => {}
                    Ok(Looked::Unclear(reason)) => why = format!("{why}; {reason}"),
                    Err(given_up) if is_given_up(&given_up) => return Err(given_up),
                    Err(unknown) => tracing::debug!(error = %unknown.chain(), "still in doubt"),
                }
            }
            self.keep_doubt(act, &why).await?;
            self.rest(act, stop).await?;
        }
    }

    /// Records what the backend did, as long as that can help.
    async fn until_recorded(&self, act: &Act<'_>, stop: &CancellationToken, done: &Volume) -> Result<()> {
        loop {
            let recorded =
                retry(&self.config().retry, stop, || self.bounded(&act.spec.id, stop, act.complete(done)))
                    .await;
            match recorded {
                Err(error) if !is_given_up(&error) && error.retry() != Retry::Never => {
                    self.keep_doubt(act, &error.chain()).await?;
                    self.rest(act, stop).await?;
                }
                recorded => return recorded,
            }
        }
    }

    /// Keeps why it is in doubt, for readers. What else goes wrong with that ends nothing.
    async fn keep_doubt(&self, act: &Act<'_>, why: &str) -> Result<()> {
        match self.services().volumes.doubt(act.lease, &act.spec.id, why).await {
            Err(error) if error.kind() == ErrorKind::Fenced => Err(error),
            kept => {
                if let Err(error) = kept {
                    tracing::debug!(operation = %act.spec.id, error = %error.chain(), "a doubt is not kept");
                }
                Ok(())
            }
        }
    }

    async fn rest(&self, act: &Act<'_>, stop: &CancellationToken) -> Result<()> {
        tokio::select! {
            biased;
            () = stop.cancelled() => Err(stopped(&act.spec.id)),
            () = tokio::time::sleep(self.config().doubt_pause) => Ok(()),
        }
    }

    /// Waits for an answer as long as is patient.
    pub(super) async fn bounded<T>(
        &self,
        about: &impl fmt::Display,
        stop: &CancellationToken,
        call: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        self.answered_within(self.config().answer_limit, about, stop, call).await
    }

    pub(super) async fn answered_within<T>(
        &self,
        limit: Duration,
        about: &impl fmt::Display,
        stop: &CancellationToken,
        call: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        let answer = tokio::select! {
            biased;
            () = stop.cancelled() => return Err(stopped(about)),
            answer = tokio::time::timeout(limit, call) => answer,
        };
        answer.unwrap_or_else(|_| {
            Err(Error::new(ErrorKind::Unavailable, "ask the backend about", about)
                .because(format!("no answer within {} s", limit.as_secs()))
                .with_retry(Retry::Later))
        })
    }
}

fn stopped(about: &impl fmt::Display) -> Error {
    Error::new(ErrorKind::Cancelled, "ask the backend about", about)
}

/// Whether this process is not to go on, whatever the backend says.
fn is_given_up(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Cancelled | ErrorKind::Fenced)
}
