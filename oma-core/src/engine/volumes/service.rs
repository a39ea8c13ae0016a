use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::act::{Act, operation};
use super::request::{VolumeChange, VolumeRequest, VolumesConfig};
use crate::engine::keeper::LeaseKeeper;
use crate::engine::retry::retry;
use crate::engine::services::Services;
use crate::record::{JobEnd, JobSpec, Lease, Operation, VolumeRecord};
use crate::state::{OperationKind, OperationStatus};
use crate::traits::{JobStore, VolumeBackend, VolumeRegistry};
use crate::{
    Clock, ContextId, DiskRef, Error, ErrorKind, JobId, OperationId, Result, Retry, SnapshotId, SystemClock,
    Timestamp, WorkerId,
};

/// How long a waiting caller goes without looking at an operation that another process may have ended.
const LOOK: Duration = Duration::from_secs(1);

/// What volumes are changed with.
#[derive(Clone, Debug)]
pub struct VolumeServices {
    /// Jobs and leases.
    pub jobs: Arc<dyn JobStore>,
    /// Volumes and operations.
    pub volumes: Arc<dyn VolumeRegistry>,
    /// Where volumes live.
    pub backend: Arc<dyn VolumeBackend>,
}

impl From<&Services> for VolumeServices {
    fn from(services: &Services) -> Self {
        let Services { jobs, volumes, backend, .. } = services;
        Self { jobs: Arc::clone(jobs), volumes: Arc::clone(volumes), backend: Arc::clone(backend) }
    }
}

/// Changes volumes one by one: each change is an operation that is recorded before the backend is called, carried out by this
/// service whoever asked for it (L18), and finished by [`VolumeService::recover`] when the process dies.
///
/// ```text
///  submit ──▶ job of its own, leased ──▶ operation recorded ──▶ answer
///                                              │
///                     ┌──── no answer ◀── backend called ──▶ result recorded, job ended
///                     └─▶ in doubt: asked again, until the backend has told
/// ```
/// While an operation is carried out nothing else is done with the volumes of its VM: no other operation, replication or revert.
#[derive(Clone, Debug)]
pub struct VolumeService(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    services: VolumeServices,
    worker: WorkerId,
    config: VolumesConfig,
    clock: Arc<dyn Clock>,
    stop: CancellationToken,
    tasks: TaskTracker,
    /// One at a time takes a job up: a second claim by the same worker would end the first.
    taking: tokio::sync::Mutex<()>,
    driven: Mutex<HashMap<JobId, (ContextId, OperationId)>>,
    /// Told whenever one of them is driven no more.
    ended: Notify,
}

impl VolumeService {
    /// A service that works as `worker`: the same id after a restart, so that it gets its own jobs back at once. Nothing that a
    /// process before has left is looked at before [`VolumeService::recover`].
    #[must_use]
    pub fn new(services: VolumeServices, worker: WorkerId, config: VolumesConfig) -> Self {
        Self::with_clock(services, worker, config, Arc::new(SystemClock))
    }

    /// The same; the clock says which deletions may be due and gives jobs their ids. Whether one is due, the store's clock says.
    #[must_use]
    pub fn with_clock(
        services: VolumeServices,
        worker: WorkerId,
        config: VolumesConfig,
        clock: Arc<dyn Clock>,
    ) -> Self {
        Self(Arc::new(Inner {
            services,
            worker,
            config,
            clock,
            stop: CancellationToken::new(),
            tasks: TaskTracker::new(),
            taking: tokio::sync::Mutex::new(()),
            driven: Mutex::default(),
            ended: Notify::new(),
        }))
    }

    /// Records an operation and begins it; it goes on when the caller goes away. A delete of a volume that held an epoch is
    /// `pending`: the volume is condemned. Idempotent by id: the same request again answers the operation as it is now.
    ///
    /// # Errors
    /// `AlreadyExists` when the id was given to something else; `Conflict` while another job of the VM is live or another operation
    /// of the disk has not ended, naming it, when the VM's state forbids it (L07), and when the volume's does; `NotFound` for an
    /// unknown disk and one without a volume; `Cancelled` once the service is shut down.
    pub async fn submit(&self, request: VolumeRequest) -> Result<Operation> {
        let this = self.clone();
        self.alive(&request.id)?;
        // The intent is not left half recorded when nobody waits for the answer any more.
        let task = self.0.tasks.spawn(async move { this.record(&request).await });
        task.await.unwrap_or_else(|lost| Err(Error::new(ErrorKind::Internal, "record operation", lost)))
    }

    /// Calls off the deletion of a condemned volume. Idempotent.
    ///
    /// # Errors
    /// `Conflict` when it has begun or is none, and while another job of the VM is live; `NotFound` for an unknown operation.
    pub async fn pardon(&self, id: &OperationId, reason: &str) -> Result<Operation> {
        let (this, id, reason) = (self.clone(), id.clone(), reason.to_owned());
        self.alive(&id)?;
        let task = self.0.tasks.spawn(async move { this.call_off(&id, &reason).await });
        task.await.unwrap_or_else(|lost| Err(Error::new(ErrorKind::Internal, "call off operation", lost)))
    }

    /// The operation once it has ended, or is pending, or as it is after so long.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn wait(&self, id: &OperationId, within: Duration) -> Result<Operation> {
        // For ever is ten years.
        let until = Instant::now() + within.min(Duration::from_secs(10 * 365 * 24 * 3600));
        loop {
            let ended = self.0.ended.notified();
            let now = operation(&self.0.services, id).await?;
            let has_ended = now.status != OperationStatus::Executing && !self.carries_out(id);
            if has_ended || Instant::now() >= until {
                return Ok(now);
            }
            let look = until.min(Instant::now() + LOOK);
            drop(tokio::time::timeout_at(look, ended).await);
        }
    }

    /// Begins nothing more and lets go of what is under way: the next start asks the backend what became of it.
    pub async fn shutdown(&self) {
        self.0.stop.cancel();
        self.0.tasks.close();
        self.0.tasks.wait().await;
    }

    pub(in crate::engine) fn services(&self) -> &VolumeServices {
        &self.0.services
    }

    pub(in crate::engine) fn worker(&self) -> &WorkerId {
        &self.0.worker
    }

    pub(super) fn lease_time(&self) -> Duration {
        self.0.config.lease
    }

    pub(in crate::engine) fn answer_limit(&self) -> Duration {
        self.0.config.answer_limit
    }

    pub(super) fn stop(&self) -> &CancellationToken {
        &self.0.stop
    }

    pub(super) fn alive(&self, resource: &OperationId) -> Result<()> {
        self.begins(resource)
    }

    pub(super) fn begins(&self, resource: &impl std::fmt::Display) -> Result<()> {
        match self.0.stop.is_cancelled() {
            true => Err(Error::new(ErrorKind::Cancelled, "begin operation", resource)),
            false => Ok(()),
        }
    }

    async fn record(&self, request: &VolumeRequest) -> Result<Operation> {
        let _taking = self.0.taking.lock().await;
        let volumes = &self.0.services.volumes;
        if let Some(known) = volumes.operation(&request.id).await? {
            let again = request.intent(
                known.spec.job.clone(),
                known.spec.volume.clone(),
                known.spec.snapshot.clone(),
            );
            let other = || {
                Error::new(ErrorKind::AlreadyExists, "record operation", &request.id)
                    .because("this id was given to something else; mint a new one")
            };
            return if known.spec == again { Ok(known) } else { Err(other()) };
        }
        self.settled(&request.disk.context).await?;
        let volume = self.volume_for(request).await?;
        let (lease, asked) = self.take(&request.disk).await?;
        let id = volume.as_ref().map(|volume| volume.id.clone());
        let spec = request.intent(lease.job.clone(), id, Some(SnapshotId::mint(&lease.job)));
        let recorded = match &volume {
            Some(volume) if spec.kind == OperationKind::Delete && volume.held_epoch => {
                volumes.condemn(&lease, &spec, self.0.config.grace).await
            }
            _ => volumes.begin(&lease, &spec).await,
        };
        match recorded {
            Ok(begun) if begun.status == OperationStatus::Executing => {
                self.drive(lease, asked, begun.clone());
                Ok(begun)
            }
            Ok(condemned) => {
                self.0.services.jobs.end(&lease, JobEnd::Done).await?;
                Ok(condemned)
            }
            // It may be recorded all the same: to be recovered.
            Err(error) if is_doubtful(&error) => Err(error),
            Err(error) => {
                self.0.services.jobs.end(&lease, JobEnd::Failed(error.chain())).await?;
                Err(error)
            }
        }
    }

    async fn call_off(&self, id: &OperationId, reason: &str) -> Result<Operation> {
        let _taking = self.0.taking.lock().await;
        let found = operation(&self.0.services, id).await?;
        if found.status == OperationStatus::Cancelled {
            return Ok(found);
        }
        self.settled(&found.spec.disk.context).await?;
        let (lease, _) = self.take(&found.spec.disk).await?;
        let pardoned = self.0.services.volumes.pardon(&lease, id, reason).await;
        self.0.services.jobs.end(&lease, JobEnd::Done).await?;
        pardoned
    }

    /// Waits while an operation of this VM has ended and its job has not: who saw it end may ask for the next.
    pub(super) async fn settled(&self, context: &ContextId) -> Result<()> {
        loop {
            let ended = self.0.ended.notified();
            let driven = self.driven().values().find(|(of, _)| of == context).map(|(_, id)| id.clone());
            match driven {
                Some(id) if operation(&self.0.services, &id).await?.status != OperationStatus::Executing => {
                    ended.await;
                }
                _ => return Ok(()),
            }
        }
    }

    /// The volume that the request is about: found by the disk's link alone (L03).
    async fn volume_for(&self, request: &VolumeRequest) -> Result<Option<VolumeRecord>> {
        let found = self.0.services.volumes.volume_of(&request.disk).await?;
        match (&request.change, found) {
            (VolumeChange::Create { .. }, None) => Ok(None),
            (VolumeChange::Create { .. }, Some(volume)) => {
                let reason = format!("disk {} has volume {}", request.disk, volume.id);
                Err(Error::new(ErrorKind::Conflict, "create volume", &request.id).because(reason))
            }
            (_, Some(volume)) => Ok(Some(volume)),
            (_, None) => Err(Error::new(ErrorKind::NotFound, "find the volume of disk", &request.disk)),
        }
    }

    /// A job of its own for one change on this disk.
    pub(super) async fn take(&self, disk: &DiskRef) -> Result<(Lease, Instant)> {
        let job = JobId::mint(self.now());
        self.0.services.jobs.insert(JobSpec::operate(job.clone(), disk.clone())).await?;
        self.claim(&job).await
    }

    pub(super) async fn claim(&self, job: &JobId) -> Result<(Lease, Instant)> {
        let asked = Instant::now();
        let lease = self.0.services.jobs.claim(job, &self.0.worker, self.0.config.lease).await?;
        Ok((lease, asked))
    }

    /// Keeps others from taking a job up while this is held.
    pub(super) async fn taking(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.0.taking.lock().await
    }

    pub(in crate::engine) fn now(&self) -> Timestamp {
        self.0.clock.now()
    }

    pub(in crate::engine) fn carries_out(&self, id: &OperationId) -> bool {
        self.driven().values().any(|(_, driven)| driven == id)
    }

    pub(in crate::engine) fn drives(&self, job: &JobId) -> bool {
        self.driven().contains_key(job)
    }

    fn driven(&self) -> std::sync::MutexGuard<'_, HashMap<JobId, (ContextId, OperationId)>> {
        self.0.driven.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Carries an operation out that is executing.
    pub(super) fn drive(&self, lease: Lease, asked: Instant, operation: Operation) {
        let (id, job) = (operation.spec.id.clone(), lease.job.clone());
        self.driven().insert(job.clone(), (operation.spec.disk.context.clone(), id.clone()));
        let this = self.clone();
        self.0.tasks.spawn(async move {
            if let Err(error) = this.carry_out(&lease, asked, &operation).await {
                tracing::warn!(operation = %id, job = %job, error = %error.chain(), "left to be recovered");
            }
            this.driven().remove(&job);
            this.0.ended.notify_waiters();
        });
    }

    /// The backend is asked until it has told what became of it; then that is recorded and the job ends. What is stopped or fenced
    /// stays as it is.
    async fn carry_out(&self, lease: &Lease, asked: Instant, operation: &Operation) -> Result<()> {
        let VolumeServices { jobs, volumes, .. } = &self.0.services;
        let stop = self.0.stop.child_token();
        let _keeper =
            LeaseKeeper::start(Arc::clone(jobs), lease.clone(), self.0.config.lease, asked, stop.clone());
        let act = Act { services: &self.0.services, lease, spec: &operation.spec };
        let done = match self.until_told(&act, &stop, || act.call()).await {
            Ok(volume) => self.until_told(&act, &stop, || act.complete(&volume)).await,
            Err(error) => Err(error),
        };
        let end = match done {
            Ok(()) => JobEnd::Done,
            Err(error) if error.kind() == ErrorKind::Cancelled => return jobs.release(lease).await,
            Err(error) if error.kind() == ErrorKind::Fenced => return Err(error),
            Err(error) => {
                volumes.fail(lease, &operation.spec.id, &error.chain()).await?;
                JobEnd::Failed(error.chain())
            }
        };
        jobs.end(lease, end).await.map(drop)
    }

    /// Calls until there is an answer that leaves no doubt.
    async fn until_told<T, Fut>(
        &self,
        act: &Act<'_>,
        stop: &CancellationToken,
        call: impl Fn() -> Fut,
    ) -> Result<T>
    where
        Fut: Future<Output = Result<T>>,
    {
        loop {
            let error = match retry(&self.0.config.retry, stop, || self.bounded(act, stop, call())).await {
                Err(error) if is_doubtful(&error) => error,
                told => return told,
            };
            match self.0.services.volumes.doubt(act.lease, &act.spec.id, &error.chain()).await {
                // All but the mark on the volume is done.
                Err(error) if error.kind() == ErrorKind::Conflict => {}
                kept => kept?,
            }
            tokio::select! {
                biased;
                () = stop.cancelled() => return Err(stopped(act)),
                () = tokio::time::sleep(self.0.config.doubt_pause) => {}
            }
        }
    }

    /// Waits for an answer as long as is patient.
    pub(super) async fn bounded<T>(
        &self,
        act: &Act<'_>,
        stop: &CancellationToken,
        call: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        let limit = self.0.config.answer_limit;
        let answer = tokio::select! {
            biased;
            () = stop.cancelled() => return Err(stopped(act)),
            answer = tokio::time::timeout(limit, call) => answer,
        };
        answer.unwrap_or_else(|_| {
            Err(Error::new(ErrorKind::Unavailable, "carry out operation", &act.spec.id)
                .because(format!("no answer within {} s", limit.as_secs()))
                .with_retry(Retry::Later))
        })
    }
}

fn stopped(act: &Act<'_>) -> Error {
    Error::new(ErrorKind::Cancelled, "carry out operation", &act.spec.id)
}

/// Whether nobody knows what the backend did, and it may be asked again.
fn is_doubtful(error: &Error) -> bool {
    error.kind() == ErrorKind::Unavailable && error.retry() != Retry::Never
}
