//! Removes what a failed or cancelled job left: plan, read it, execute exactly that, count what is left (L26).
//!
//! ```text
//!  records ────────┐                                        ┌─ first: what an operator does before
//!  backend ────────┼─▶ plan ─▶ recorded ─▶ read it ─────────┤
//!  export server ──┘     ▲                                  └─ execute: the same world? ─▶ step ─▶ step ─▶ check ─▶ completed
//!                        └───────── another plan ◀── refused: it changed ◀────┴───────┘ failed: kept, tried again
//! ```
//!
//! Order: exports are withdrawn, recovery points that were never ready are dropped, volumes are detached and deleted, then records go,
//! and what is left is counted. Each step is recorded before it is begun and done under a job of its VM, so that nobody else is at
//! the volumes meanwhile; a step that was interrupted goes on where it was.
//!
//! What stays, and why:
//! - Volumes that hold or held an epoch, unless that is wished for; then they are condemned, which can be called off.
//! - Volumes that a later job has taken up, whose VM has a live job, or whose VM has failed over (L07).
//! - The record of a job while something of it stays for now: without it nobody could plan for that again.
//! - Whatever does not bear the mark of this deployment and disk (L02), and what no record knows: a name is no proof.
//! - Recovery points that were ready, failover jobs that have not ended or made a VM.
//!
//! *Could not ask* is never *gone* (L21): then nothing is planned before the backend answers.

mod act;
mod check;
mod look;
mod run;
mod snapshots;
#[cfg(test)]
mod tests;
mod volume;

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::look::Look;
use super::volumes::VolumeService;
use crate::record::{Cleanup, CleanupEnd, CleanupPlan, CleanupSpec, KeepVolumes};
use crate::state::CleanupStatus;
use crate::traits::{Cleanups, ExportRegistry, ExportServer, Inventory, RecoveryPoints};
use crate::{CleanupId, Error, ErrorKind, FailoverJobId, JobId, Result};

/// What is cleaned up beside volumes.
#[derive(Clone, Debug)]
pub struct CleanupServices {
    /// VMs and disks.
    pub inventory: Arc<dyn Inventory>,
    /// Exports as recorded.
    pub exports: Arc<dyn ExportRegistry>,
    /// Recovery points.
    pub points: Arc<dyn RecoveryPoints>,
    /// Plans and what became of them.
    pub cleanups: Arc<dyn Cleanups>,
    /// Who serves volumes on this machine.
    pub server: Arc<dyn ExportServer>,
}

/// What is to be cleaned up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CleanupRequest {
    /// Minted by the caller: the idempotency key.
    pub id: CleanupId,
    /// The job.
    pub job: JobId,
    /// The failover job to be cleaned up with it.
    pub failover_job: Option<FailoverJobId>,
    /// What becomes of volumes that hold or held an epoch.
    pub volumes: KeepVolumes,
}

impl CleanupRequest {
    /// A cleanup of this job that keeps what holds an epoch.
    #[must_use]
    pub fn new(job: JobId) -> Self {
        Self { id: CleanupId::mint(), job, failover_job: None, volumes: KeepVolumes::Keep }
    }
}

/// Plans and executes cleanups. Changes volumes through the service of the same process, and nothing else does.
///
/// What was begun goes on whoever goes away (L18); [`CleanupService::recover`] takes up what a process before has left.
#[derive(Clone, Debug)]
pub struct CleanupService(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    volumes: VolumeService,
    services: CleanupServices,
    stop: CancellationToken,
    tasks: TaskTracker,
    /// Those that are carried out now.
    driven: Mutex<BTreeSet<CleanupId>>,
    ended: Notify,
    has_upkeep: AtomicBool,
}

impl CleanupService {
    /// One that changes volumes through this service, as its worker.
    #[must_use]
    pub fn new(volumes: VolumeService, services: CleanupServices) -> Self {
        Self(Arc::new(Inner {
            volumes,
            services,
            stop: CancellationToken::new(),
            tasks: TaskTracker::new(),
            driven: Mutex::default(),
            ended: Notify::new(),
            has_upkeep: AtomicBool::new(false),
        }))
    }

    /// Looks at the world and records what would be done; nothing else is changed. Idempotent by id.
    ///
    /// # Errors
    /// `NotFound` when neither the job nor anything that names it is recorded, and for an unknown failover job; `Invalid` for a failover
    /// job of something else, for a job that changed one volume for an operator, and when the volumes of a completed job are to be condemned; `AlreadyExists` when the id was given to
    /// something else; `Unavailable` when records cannot be read. What the backend does not answer is told in the plan.
    pub async fn plan(&self, request: &CleanupRequest) -> Result<Cleanup> {
        if let Some(known) = self.known(request).await? {
            return Ok(known);
        }
        let plan = Look::make(self, request).await?.plan;
        let spec = CleanupSpec { id: request.id.clone(), worker: self.0.volumes.worker().clone(), plan };
        match self.records().insert_cleanup(&spec).await {
            // Asked for twice at once, and the world changed in between, or another process was faster.
            Err(error) if matches!(error.kind(), ErrorKind::AlreadyExists | ErrorKind::Conflict) => {
                self.known(request).await?.ok_or(error)
            }
            recorded => recorded,
        }
    }

    /// The plan that was made with this id, if it was made for the same request.
    async fn known(&self, request: &CleanupRequest) -> Result<Option<Cleanup>> {
        let Some(known) = self.records().cleanup(&request.id).await? else { return Ok(None) };
        let CleanupPlan { job, failover_job, volumes, .. } = &known.spec.plan;
        let same = (job, failover_job, volumes) == (&request.job, &request.failover_job, &request.volumes);
        if same { Ok(Some(known)) } else { Err(other_spec(&request.id)) }
    }

    /// Begins a plan, or goes on with it at once; it is carried out when the caller goes away, too. Idempotent.
    ///
    /// # Errors
    /// `NotFound`; `Unavailable` when nobody can tell whether the world changed; `Conflict` when something is to be done
    /// [first](CleanupPlan::first), when it was made on another machine, and when the world is not as the plan saw it, or was not: then it is refused for ever, and another one is to be made; `Cancelled` once
    /// this is shut down.
    pub async fn execute(&self, id: &CleanupId) -> Result<Cleanup> {
        let found = self.must_find(id).await?;
        self.begins(id)?;
        let refuse =
            |reason: String| Err(Error::new(ErrorKind::Conflict, "execute cleanup", id).because(reason));
        match found.status {
            CleanupStatus::Completed => return Ok(found),
            CleanupStatus::Refused => {
                let why = found.error.unwrap_or_default();
                return refuse(format!("it was refused: {why}; make another plan"));
            }
            CleanupStatus::Planned | CleanupStatus::Executing => {}
        }
        if found.spec.worker != *self.0.volumes.worker() {
            let reason =
                format!("it was planned by worker {}; execute it there, or plan it here", found.spec.worker);
            return refuse(reason);
        }
        if let Some(first) = found.spec.plan.first.first() {
            return refuse(first.clone());
        }
        if found.status == CleanupStatus::Planned
            && let Some(changed) = self.changed(&found).await?
        {
            self.records().end_cleanup(id, &CleanupEnd::Refused(changed.clone())).await?;
            return refuse(format!("{changed}; make another plan"));
        }
        let begun = self.records().begin_cleanup(id).await;
        if let Err(error) = &begun
            && error.kind() == ErrorKind::Conflict
        {
            // Somebody who asked for the same, or the start of this process, was done with it meanwhile.
            let now = self.must_find(id).await?;
            if now.status == CleanupStatus::Completed {
                return Ok(now);
            }
        }
        let begun = begun?;
        self.drive(id);
        Ok(begun)
    }

    /// The cleanup once it is not carried out any more, or as it is after so long. One that stands `executing` then has a step that
    /// failed and is tried again by [`CleanupService::execute`] or [`CleanupService::recover`].
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn wait(&self, id: &CleanupId, within: Duration) -> Result<Cleanup> {
        // For ever is ten years.
        let until = Instant::now() + within.min(Duration::from_secs(10 * 365 * 24 * 3600));
        loop {
            let ended = self.0.ended.notified();
            if !self.driven().contains(id) || Instant::now() >= until {
                return self.must_find(id).await;
            }
            drop(tokio::time::timeout_at(until, ended).await);
        }
    }

    /// Begins nothing more and lets go of what is under way: the next start goes on with it.
    pub async fn shutdown(&self) {
        self.0.stop.cancel();
        self.0.tasks.close();
        self.0.tasks.wait().await;
    }

    /// What is recorded of cleanups.
    #[must_use]
    pub fn records(&self) -> &dyn Cleanups {
        &*self.0.services.cleanups
    }

    /// The service that volumes are changed with.
    #[must_use]
    pub fn volumes(&self) -> &VolumeService {
        &self.0.volumes
    }

    /// What is different from what the plan saw, if anything is.
    async fn changed(&self, planned: &Cleanup) -> Result<Option<String>> {
        let CleanupPlan { job, failover_job, volumes, .. } = planned.spec.plan.clone();
        let request = CleanupRequest { id: planned.spec.id.clone(), job, failover_job, volumes };
        let now = match Look::make(self, &request).await {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Some(error.chain())),
            now => now?,
        };
        if let Some(error) = now.unasked {
            return Err(error);
        }
        let (was, now) = (&planned.spec.plan, &now.plan);
        Ok((now.digest() != was.digest()).then(|| difference(was, now)))
    }

    async fn must_find(&self, id: &CleanupId) -> Result<Cleanup> {
        let found = self.records().cleanup(id).await?;
        found.ok_or_else(|| Error::new(ErrorKind::NotFound, "find cleanup", id))
    }

    fn begins(&self, id: &CleanupId) -> Result<()> {
        match self.0.stop.is_cancelled() {
            true => Err(Error::new(ErrorKind::Cancelled, "execute cleanup", id)),
            false => Ok(()),
        }
    }

    fn driven(&self) -> MutexGuard<'_, BTreeSet<CleanupId>> {
        self.0.driven.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether nobody asked for upkeep before.
    fn is_first_upkeep(&self) -> bool {
        !self.0.has_upkeep.swap(true, Ordering::Relaxed)
    }
}

fn other_spec(id: &CleanupId) -> Error {
    Error::new(ErrorKind::AlreadyExists, "record cleanup", id)
        .because("this id was given to something else; mint a new one")
}

/// What of the world a plan did not see so, in one sentence.
fn difference(planned: &CleanupPlan, now: &CleanupPlan) -> String {
    let news = now.items.iter().find(|item| !planned.items.contains(item));
    let gone = planned.items.iter().find(|item| !now.items.contains(item));
    let about = now.first.first().cloned().or_else(|| {
        news.or(gone).map(|item| {
            let state = match (&item.protected, news) {
                (_, None) => "is not so any more".to_owned(),
                (None, Some(_)) => "is so now".to_owned(),
                (Some(why), Some(_)) => format!("stays now: {why}"),
            };
            format!("{} ({}) {state}", item.id, item.detail)
        })
    });
    format!("the world is not as the plan saw it: {}", about.unwrap_or_else(|| "other steps".to_owned()))
}
