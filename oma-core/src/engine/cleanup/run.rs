//! Carries a plan out, one step after the other.

use std::fmt;
use std::time::Duration;

use futures_util::TryStreamExt as _;
use tracing::{Instrument as _, Span};

use super::CleanupService;
use crate::engine::spans;
use crate::record::{Cleanup, CleanupEnd, CleanupFilter, CleanupNews, Orphans};
use crate::state::{CleanupStatus, CleanupStepStatus};
use crate::{CleanupId, Error, ErrorKind, OperationId, Result};

/// The least time between two looks at what failed: more often would help nobody.
const LEAST: Duration = Duration::from_secs(1);

/// Why a step is not done.
#[derive(Debug)]
pub(super) enum NotDone {
    /// The world is not as the plan saw it.
    Changed(String),
    /// It is tried again.
    Failed(String),
}

/// A cleanup is carried out until this is dropped, also by a panic.
struct Driving<'a>(&'a CleanupService, CleanupId);

impl Drop for Driving<'_> {
    fn drop(&mut self) {
        self.0.driven().remove(&self.1);
        self.0.0.ended.notify_waiters();
    }
}

impl CleanupService {
    /// Goes on with what this worker has begun and not ended, also what failed. To be called at each start, after the recovery of volumes,
    /// and every now and then, which [`CleanupService::upkeep`] does. Answers what is carried out since.
    ///
    /// # Errors
    /// What the store answers. `Cancelled` once this is shut down.
    pub async fn recover(&self) -> Result<Vec<CleanupId>> {
        let filter = CleanupFilter { status: Some(CleanupStatus::Executing), ..CleanupFilter::default() };
        let left: Vec<Cleanup> = self.records().cleanups(filter).try_collect().await?;
        let mut begun = Vec::new();
        for Cleanup { spec, .. } in left.into_iter().rev() {
            self.begins(&spec.id)?;
            if spec.worker == *self.0.volumes.worker() && self.drive(&spec.id) {
                begun.push(spec.id);
            }
        }
        Ok(begun)
    }

    /// From now on [`CleanupService::recover`] is called every so often, at least a second apart, until [`CleanupService::shutdown`]. To
    /// be called once, within a Tokio runtime; a second call does nothing. A minute is a good choice.
    pub fn upkeep(&self, every: Duration) {
        if !self.is_first_upkeep() {
            return;
        }
        let this = self.clone();
        self.0.tasks.spawn(async move {
            loop {
                tokio::select! {
                    biased;
                    () = this.0.stop.cancelled() => return,
                    () = tokio::time::sleep(every.max(LEAST)) => {}
                }
                if let Err(error) = this.recover().await {
                    tracing::warn!(error = %error.chain(), "cleanups could not be looked after; tried again later");
                }
            }
        });
    }

    /// Carries one out, unless it is already.
    pub(super) fn drive(&self, id: &CleanupId) -> bool {
        if !self.driven().insert(id.clone()) {
            return false;
        }
        let (this, id, span) = (self.clone(), id.clone(), spans::cleanup(id));
        self.0.tasks.spawn(async move {
            let _driving = Driving(&this, id.clone());
            let carried_out = tokio::select! {
                biased;
                () = this.0.stop.cancelled() => return,
                carried_out = this.carry_out(&id).instrument(span.clone()) => carried_out,
            };
            if let Err(error) = carried_out {
                spans::failed(&span, &error);
                tracing::warn!(cleanup = %id, error = %error.chain(), "the cleanup is left to be gone on with");
            }
        });
        true
    }

    async fn carry_out(&self, id: &CleanupId) -> Result<()> {
        let cleanup = self.must_find(id).await?;
        spans::cleans(&Span::current(), &cleanup.spec.plan.job);
        if cleanup.status != CleanupStatus::Executing {
            return Ok(());
        }
        for at in 0..cleanup.steps.len() {
            if cleanup.steps[at].status == CleanupStepStatus::Done {
                continue;
            }
            self.tell(id, at, CleanupStepStatus::Executing, None, None).await?;
            match self.step(&cleanup, at).await {
                Ok(()) => self.tell(id, at, CleanupStepStatus::Done, None, None).await?,
                Err(not_done) => return self.not_done(&cleanup, at, not_done).await,
            }
        }
        let left = self.count(&cleanup).await?;
        if !left.is_clean() {
            // Something came since, or the process before died in between: the check is done again.
            let at = cleanup.steps.len().saturating_sub(1);
            return self.not_done(&cleanup, at, left_over(&left)).await;
        }
        self.records().end_cleanup(id, &CleanupEnd::Completed(left)).await?;
        tracing::info!(cleanup = %id, job = %cleanup.spec.plan.job, "cleaned up");
        Ok(())
    }

    async fn not_done(&self, cleanup: &Cleanup, at: usize, not_done: NotDone) -> Result<()> {
        let (id, action) = (&cleanup.spec.id, &cleanup.steps[at].action);
        tracing::warn!(cleanup = %id, %action, ?not_done, "a step of the cleanup is not done");
        match not_done {
            NotDone::Failed(why) => self.tell(id, at, CleanupStepStatus::Failed, Some(why), None).await,
            NotDone::Changed(why) => {
                self.tell(id, at, CleanupStepStatus::Refused, Some(why.clone()), None).await?;
                let why = format!("{action}: {why}");
                self.records().end_cleanup(id, &CleanupEnd::Refused(why)).await.map(drop)
            }
        }
    }

    /// Records how a step stands.
    pub(super) async fn tell(
        &self,
        id: &CleanupId,
        at: usize,
        status: CleanupStepStatus,
        error: Option<String>,
        operation: Option<OperationId>,
    ) -> Result<()> {
        self.records().tell_step(id, at, &CleanupNews { status, error, operation }).await
    }
}

/// What the cleanup itself saw to be otherwise than planned. Whatever else speaks against a step was answered by a backend or a store.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Changed(String);

/// The world is not as the plan saw it.
pub(super) fn changed(operation: &'static str, resource: &impl fmt::Display, why: String) -> Error {
    Error::new(ErrorKind::Conflict, operation, resource).with_source(Changed(why))
}

/// Whether a step is given up for good. What could not be asked, and what another one holds for now, is tried again (L21).
pub(super) fn judged(error: &Error) -> NotDone {
    let why = error.chain();
    match std::error::Error::source(error).is_some_and(|source| source.is::<Changed>()) {
        true => NotDone::Changed(why),
        false => NotDone::Failed(why),
    }
}

/// Something is left that a step should have removed.
pub(super) fn left_over(left: &Orphans) -> NotDone {
    NotDone::Failed(format!("left are {left}"))
}
