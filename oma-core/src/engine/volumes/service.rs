use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::Instrument as _;

use super::abandon::LAST_LOOK;
use super::act::{operation, refuse_snapshots};
use super::driven::Driven;
use super::leased::newer;
use super::look::find_snapshot;
use super::request::{VolumeChange, VolumeRequest, VolumesConfig};
use crate::engine::services::Services;
use crate::record::{JobEnd, Lease, Operation, VolumeRecord};
use crate::state::{OperationKind, OperationStatus, VolumeStatus};
use crate::traits::{JobStore, VolumeBackend, VolumeRegistry};
use crate::{
    Clock, Error, ErrorKind, OperationId, Result, Retry, SnapshotId, SystemClock, Timestamp, WorkerId,
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
/// service whoever asked for it (L18), and finished by [`VolumeService::recover`] when the process dies. A process that stays calls
/// that once at its start and [`VolumeService::upkeep`] afterwards.
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
    driven: Driven,
    /// Told of each volume that is condemned here.
    condemned: Notify,
    has_upkeep: AtomicBool,
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
            driven: Driven::default(),
            condemned: Notify::new(),
            has_upkeep: AtomicBool::new(false),
        }))
    }

    /// Records an operation and begins it; it goes on when the caller goes away. A delete of a volume that held an epoch is
    /// `pending`: the volume is condemned. Idempotent by id: the same request again answers the operation as it is now.
    ///
    /// # Errors
    /// `AlreadyExists` when the id was given to something else; `Conflict` while another job of the VM is live or another operation
    /// of the disk has not ended, naming it, when the VM's state forbids it (L07), when the volume's does, and when the disk has another volume than was meant; `NotFound` for an
    /// unknown disk and one without a volume; `Cancelled` once the service is shut down.
    pub async fn submit(&self, request: VolumeRequest) -> Result<Operation> {
        let this = self.clone();
        self.begins(&request.id)?;
        // The intent is not left half recorded when nobody waits for the answer any more.
        let task = self.0.tasks.spawn(async move { this.record(&request).await }.in_current_span());
        task.await.unwrap_or_else(|lost| Err(Error::new(ErrorKind::Internal, "record operation", lost)))
    }

    /// Calls off the deletion of a condemned volume, which begins a generation of the same content: a database that is restored from a
    /// backup of before does not delete it. Idempotent.
    ///
    /// # Errors
    /// `Conflict` when it has begun or is none, and while another job of the VM is live; `PermissionDenied` when the volume's mark is
    /// newer than the records; `NotFound` for an unknown operation.
    pub async fn pardon(&self, id: &OperationId, reason: &str) -> Result<Operation> {
        let (this, id, reason) = (self.clone(), id.clone(), reason.to_owned());
        self.begins(&id)?;
        let task = self.0.tasks.spawn(async move { this.call_off(&id, &reason).await });
        task.await.unwrap_or_else(|lost| Err(Error::new(ErrorKind::Internal, "call off operation", lost)))
    }

    /// The operation once it has ended, is pending or nobody carries it out any more, or as it is after so long.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn wait(&self, id: &OperationId, within: Duration) -> Result<Operation> {
        // For ever is ten years.
        let until = Instant::now() + within.min(Duration::from_secs(10 * 365 * 24 * 3600));
        loop {
            let ended = self.0.driven.one_ends();
            let now = operation(&self.0.services, id).await?;
            let is_over = !self.0.driven.has(id)
                && (now.status != OperationStatus::Executing || self.is_left(&now).await?);
            if is_over || Instant::now() >= until {
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

    /// Whether nobody carries out what has not ended.
    async fn is_left(&self, operation: &Operation) -> Result<bool> {
        let live = self.0.services.jobs.live(&operation.spec.disk.context).await?;
        let is_over = |worker| self.0.stop.is_cancelled() && worker == self.0.worker;
        Ok(live.and_then(|job| job.owner).is_none_or(is_over))
    }

    /// What volumes are changed with.
    #[must_use]
    pub fn services(&self) -> &VolumeServices {
        &self.0.services
    }

    /// Who changes them.
    #[must_use]
    pub fn worker(&self) -> &WorkerId {
        &self.0.worker
    }

    pub(in crate::engine) fn answer_limit(&self) -> Duration {
        self.0.config.answer_limit
    }

    /// How long a volume that held an epoch stays condemned.
    pub(in crate::engine) fn grace(&self) -> Duration {
        self.0.config.grace
    }

    pub(super) fn stop(&self) -> &CancellationToken {
        &self.0.stop
    }

    pub(super) fn begins(&self, resource: &impl std::fmt::Display) -> Result<()> {
        match self.0.stop.is_cancelled() {
            true => Err(Error::new(ErrorKind::Cancelled, "begin operation", resource)),
            false => Ok(()),
        }
    }

    async fn record(&self, request: &VolumeRequest) -> Result<Operation> {
        let minds_snapshots = matches!(
            request.change,
            VolumeChange::Delete | VolumeChange::Revert { .. } | VolumeChange::DeleteSnapshot { .. }
        );
        if minds_snapshots && self.0.services.volumes.operation(&request.id).await?.is_none() {
            self.bounded(&request.disk, self.stop(), self.check_snapshots(request)).await?;
        }
        let _taking = self.lock(&request.disk.context).await?;
        if let Some(known) = self.known(request).await? {
            return Ok(known);
        }
        self.volume_for(request).await?;
        let (lease, asked) = self.take(&request.disk).await?;
        // Looked at again now that nobody else changes it.
        let recorded = match self.volume_for(request).await {
            Ok(volume) => self.intend(&lease, request, volume).await,
            Err(error) => Err(error),
        };
        match recorded {
            Ok(begun) if begun.status == OperationStatus::Executing => {
                self.drive(lease, asked, begun.clone());
                Ok(begun)
            }
            Ok(condemned) => {
                self.condemned().notify_one();
                self.end(&lease, JobEnd::Done).await.map(|()| condemned)
            }
            // It may be recorded all the same: to be recovered.
            Err(error) if error.retry() != Retry::Never => Err(error),
            Err(error) => {
                self.end(&lease, JobEnd::Failed(error.chain())).await?;
                // Somebody else recorded it meanwhile.
                self.known(request).await?.ok_or(error)
            }
        }
    }

    async fn intend(
        &self,
        lease: &Lease,
        request: &VolumeRequest,
        volume: Option<VolumeRecord>,
    ) -> Result<Operation> {
        let volumes = &self.0.services.volumes;
        let id = volume.as_ref().map(|volume| volume.id.clone());
        let spec = request.intent(lease.job.clone(), id, Some(SnapshotId::mint(&lease.job)));
        let is_kept = volume.is_some_and(|volume| volume.held_epoch);
        self.patiently(|| async {
            match spec.kind == OperationKind::Delete && is_kept {
                true => volumes.condemn(lease, &spec, self.0.config.grace).await,
                false => volumes.begin(lease, &spec).await,
            }
        })
        .await
    }

    /// The operation of this request, when it is recorded; one that nobody carries out is taken up.
    async fn known(&self, request: &VolumeRequest) -> Result<Option<Operation>> {
        let Some(known) = self.0.services.volumes.operation(&request.id).await? else { return Ok(None) };
        let Operation { spec, status, .. } = &known;
        let same = request.intent(spec.job.clone(), spec.volume.clone(), spec.snapshot.clone());
        let is_meant = request.volume.is_none() || request.volume == spec.volume;
        if *spec != same || !is_meant {
            return Err(Error::new(ErrorKind::AlreadyExists, "record operation", &request.id)
                .because("this id was given to something else; mint a new one"));
        }
        if *status == OperationStatus::Executing && !self.0.driven.has(&request.id) {
            self.go_on(&known).await?;
        }
        Ok(Some(known))
    }

    async fn call_off(&self, id: &OperationId, reason: &str) -> Result<Operation> {
        let found = operation(&self.0.services, id).await?;
        let _taking = self.lock(&found.spec.disk.context).await?;
        if found.status == OperationStatus::Cancelled {
            return Ok(found);
        }
        let (lease, _) = self.take(&found.spec.disk).await?;
        let pardoned = match self.unless_old_copy(&found).await {
            Ok(()) => self.patiently(|| self.0.services.volumes.pardon(&lease, id, reason)).await,
            Err(error) => Err(error),
        };
        match &pardoned {
            Ok(_) => {
                if let Err(error) = self.mark_or_leave(&lease, &found.spec.disk).await {
                    tracing::warn!(operation = %id, error = %error.chain(), "called off; its volume is marked by recovery");
                    return pardoned;
                }
            }
            // It may be called off: recovery looks, and marks its volume.
            Err(error) if error.retry() != Retry::Never => {
                self.0.services.jobs.release(&lease).await?;
                return pardoned;
            }
            Err(_) => {}
        }
        self.end(&lease, JobEnd::Done).await?;
        pardoned
    }

    /// Refuses to count on from records that are an old copy: their next generation may be the one that the volume has. A backend that
    /// does not answer deletes nothing either, and keeps nothing from being called off.
    async fn unless_old_copy(&self, pending: &Operation) -> Result<()> {
        let services = &self.0.services;
        let Some(id) = &pending.spec.volume else { return Ok(()) };
        let Some(record) = services.volumes.volume(id).await? else { return Ok(()) };
        let found = self
            .answered_within(
                LAST_LOOK.min(self.0.config.answer_limit),
                id,
                self.stop(),
                services.backend.get(id),
            )
            .await;
        match found.ok().flatten().and_then(|found| found.tag).and_then(|tag| newer(&tag, &record)) {
            Some(reason) => {
                Err(Error::new(ErrorKind::PermissionDenied, "call off the deletion of volume", id)
                    .because(reason))
            }
            None => Ok(()),
        }
    }

    /// The volume that the request is about: found by the disk's link alone (L03). What can never be done with it is refused
    /// before it is recorded.
    async fn volume_for(&self, request: &VolumeRequest) -> Result<Option<VolumeRecord>> {
        let found = self.0.services.volumes.volume_of(&request.disk).await?;
        let refuse =
            |reason| Err(Error::new(ErrorKind::Conflict, "change volume", &request.disk).because(reason));
        let volume = match (&request.change, found) {
            (VolumeChange::Create { .. }, None) => return Ok(None),
            (VolumeChange::Create { .. }, Some(volume)) => {
                return refuse(format!("it has volume {}", volume.id));
            }
            (_, Some(volume)) => volume,
            (_, None) => {
                return Err(Error::new(ErrorKind::NotFound, "find the volume of disk", &request.disk));
            }
        };
        if let Some(meant) = request.volume.as_ref().filter(|meant| **meant != volume.id) {
            return refuse(format!("it has volume {}, not {meant}", volume.id));
        }
        if request.change == VolumeChange::Detach && volume.status != VolumeStatus::Attached {
            return refuse(format!("volume {} is {}, not attached", volume.id, volume.status));
        }
        if request.change == VolumeChange::Delete && volume.status == VolumeStatus::Attached {
            return refuse(format!("volume {} is attached; detach it first", volume.id));
        }
        if let VolumeChange::Resize { capacity } = request.change
            && capacity < volume.capacity
        {
            return Err(Error::new(ErrorKind::Invalid, "resize volume", &volume.id).because(format!(
                "it has {}, and volumes only grow; name as much or more",
                volume.capacity
            )));
        }
        Ok(Some(volume))
    }

    /// What the backend knows of snapshots and speaks against the request. Asked before anything is held: it may take its time.
    async fn check_snapshots(&self, request: &VolumeRequest) -> Result<()> {
        let services = &self.0.services;
        // Another volume is refused in the end.
        let found = services.volumes.volume_of(&request.disk).await?;
        let is_meant =
            |volume: &VolumeRecord| request.volume.as_ref().is_none_or(|meant| *meant == volume.id);
        let Some(volume) = found.filter(is_meant) else { return Ok(()) };
        match &request.change {
            VolumeChange::Revert { snapshot } | VolumeChange::DeleteSnapshot { snapshot } => {
                let found = find_snapshot(services, &volume.id, snapshot).await?;
                found.map(drop).ok_or_else(|| {
                    let reason = format!("volume {} has no such snapshot", volume.id);
                    Error::new(ErrorKind::NotFound, "find snapshot", snapshot).because(reason)
                })
            }
            VolumeChange::Delete => refuse_snapshots(services, &volume.id).await,
            _ => Ok(()),
        }
    }

    pub(super) fn config(&self) -> &VolumesConfig {
        &self.0.config
    }

    pub(in crate::engine) fn driven(&self) -> &Driven {
        &self.0.driven
    }

    /// Told of each volume that is condemned here.
    pub(super) fn condemned(&self) -> &Notify {
        &self.0.condemned
    }

    /// Whether nobody asked for upkeep before.
    pub(super) fn is_first_upkeep(&self) -> bool {
        !self.0.has_upkeep.swap(true, Ordering::Relaxed)
    }

    pub(super) fn tasks(&self) -> &TaskTracker {
        &self.0.tasks
    }

    /// Keeps others from taking a job up while this is held.
    pub(super) async fn taking(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.0.taking.lock().await
    }

    pub(in crate::engine) fn now(&self) -> Timestamp {
        self.0.clock.now()
    }
}
