use std::sync::Arc;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::content::{check_whole, revert_all};
use super::tell::Teller;
use crate::Clock as _;
use crate::engine::config::ReplicateConfig;
use crate::engine::keeper::LeaseKeeper;
use crate::engine::services::Services;
use crate::record::{JobEnd, JobSpec, Lease, RecoveryPoint, ReplicationJob};
use crate::state::{JobKind, JobStatus, LogLevel, PointStatus};
use crate::{Epoch, Error, ErrorKind, JobId, RecoveryPointId, Result, SystemClock, WorkerId};

/// How the reason of a job begins whose volumes hold the epoch of its point again.
const WENT_BACK: &str = "went back to epoch ";

/// Gives every volume of a VM the content that it had at a recovery point.
///
/// It takes a job of its own, so no replication runs meanwhile, and ends it as `cancelled`: no epoch comes of it. Each volume
/// begins a new generation before it is touched, so no change id of before matches (L09): the next replication compares
/// hashes and copies what differs. When a volume cannot be reverted, the volumes are recorded as inconsistent; revert again, or
/// replicate. When the process dies, the job stays: revert again, to this point, which goes on with it, or to another one, which takes
/// its place, or cancel it. One that takes over and finds a volume open leaves the job as it is. It stops soon after `stop`, between two volumes or
/// within a comparison; then as when it failed.
///
/// # Errors
/// `NotFound`; `Cancelled`; `Conflict` when it is not ready, another job of the VM is live, the VM's state forbids it (L07), the VM got a
/// disk since that the point does not know, or a disk has another volume meanwhile; `Busy` while a volume is open, or another
/// worker reverts; `Mismatch` when a volume that was reverted by a copy differs from its snapshot; `PermissionDenied` when volume
/// or snapshot are not ours; `Fenced` when another worker took it over.
pub async fn revert(
    services: &Services,
    worker: &WorkerId,
    config: &ReplicateConfig,
    id: &RecoveryPointId,
    stop: &CancellationToken,
) -> Result<RecoveryPoint> {
    let point = ready(services, id).await?;
    check_whole(services, &point).await?;
    let taken = Taken::take(services, worker, config, &point, None).await?;
    let reverted = taken.run(services, config, &point, stop).await.map(|()| point);
    let ended = taken.end(services, id, &reverted).await;
    let reverted = reverted?;
    ended?;
    Ok(reverted)
}

/// The point that a job goes back to, as it was recorded with it.
#[must_use]
pub fn destination(job: &ReplicationJob) -> Option<RecoveryPointId> {
    let request = job.request.as_deref().filter(|_| job.kind == JobKind::Revert)?;
    RecoveryPointId::parse(request).ok()
}

/// Whether a job ended with every volume as it was at its recovery point. One that was cancelled or failed did not.
#[must_use]
pub fn went_back(job: &ReplicationJob) -> bool {
    job.kind == JobKind::Revert
        && job.status == JobStatus::Cancelled
        && job.error.as_ref().is_some_and(|reason| reason.starts_with(WENT_BACK))
}

/// Refuses a point that lacks a disk, and a VM that is under a revert already.
pub(super) async fn check_free(
    services: &Services,
    point: &RecoveryPoint,
    is_driven: impl Fn(&JobId) -> bool,
) -> Result<()> {
    check_whole(services, point).await?;
    match services.jobs.live(&point.context).await? {
        Some(live) if is_driven(&live.id) => Err(refused(
            &point.id,
            format!("job {} of its VM goes back already; wait for it, or cancel it", live.id),
        )),
        _ => Ok(()),
    }
}

fn reason(epoch: Epoch, id: &RecoveryPointId) -> String {
    format!("{WENT_BACK}{epoch} by recovery point {id}")
}

/// A point that volumes can go back to.
pub(super) async fn ready(services: &Services, id: &RecoveryPointId) -> Result<RecoveryPoint> {
    let found = services.points.point(id).await?;
    let point = found.ok_or_else(|| Error::new(ErrorKind::NotFound, "revert to recovery point", id))?;
    match point.status {
        PointStatus::Ready => Ok(point),
        other => Err(refused(id, format!("it is {other}, not ready"))),
    }
}

pub(super) fn refused(id: &RecoveryPointId, reason: String) -> Error {
    Error::new(ErrorKind::Conflict, "revert to recovery point", id).because(reason)
}

/// The job of a revert, under its lease.
#[derive(Debug)]
pub(super) struct Taken {
    pub(super) lease: Lease,
    /// When the lease was asked for.
    asked: Instant,
    /// Whether somebody else began it, or another one in its place.
    is_left: bool,
}

impl Taken {
    /// The job of this revert, with this id if it is to have one. One that was interrupted and was to go to the same point goes on
    /// otherwise; any other gives way: every volume is written anew. Nobody else drives such a job, and while it is live no ready point
    /// is condemned.
    pub(super) async fn take(
        services: &Services,
        worker: &WorkerId,
        config: &ReplicateConfig,
        point: &RecoveryPoint,
        id: Option<&JobId>,
    ) -> Result<Self> {
        let mut disks: Vec<_> = point.volumes.iter().map(|volume| volume.key().clone()).collect();
        disks.sort();
        let live = services.jobs.live(&point.context).await?;
        let left = live.filter(|live| live.kind == JobKind::Revert);
        let is_left = left.is_some();
        if let Some(mut left) = left {
            let taken = Self::claim(services, worker, config, &left.id).await?;
            left.disks.sort();
            let is_same = left.disks == disks && destination(&left).as_ref() == Some(&point.id);
            if is_same && id.is_none_or(|id| *id == left.id) {
                return Ok(taken);
            }
            let end = JobEnd::Cancelled(format!("a revert to recovery point {} took its place", point.id));
            services.jobs.end(&taken.lease, end).await?;
        }
        let job = id.cloned().unwrap_or_else(|| JobId::mint(SystemClock.now()));
        let spec = JobSpec::revert(job.clone(), point.context.clone(), disks);
        services.jobs.insert(JobSpec { request: Some(point.id.to_string()), ..spec }).await?;
        let taken = Self::claim(services, worker, config, &job).await?;
        Ok(Self { is_left, ..taken })
    }

    /// A job that somebody else left.
    pub(super) async fn claim(
        services: &Services,
        worker: &WorkerId,
        config: &ReplicateConfig,
        job: &JobId,
    ) -> Result<Self> {
        let asked = Instant::now();
        let lease = services.jobs.claim(job, worker, config.lease).await?;
        Ok(Self { lease, asked, is_left: true })
    }

    /// Brings the volumes back. The job stays.
    pub(super) async fn run(
        &self,
        services: &Services,
        config: &ReplicateConfig,
        point: &RecoveryPoint,
        stop: &CancellationToken,
    ) -> Result<()> {
        let (stop, lease) = (stop.child_token(), self.lease.clone());
        let jobs = Arc::clone(&services.jobs);
        let keeper = LeaseKeeper::start(jobs, lease, config.lease, self.asked, stop.clone());
        let mut teller = Teller::new(services, &self.lease);
        let told = format!("the volumes go back to epoch {} by recovery point {}", point.epoch, point.id);
        teller.line(LogLevel::Info, told).await;
        let reverted = revert_all(services, &self.lease, config, point, &mut teller, &stop).await;
        teller.ends().await;
        let fenced =
            |error| Error::new(ErrorKind::Fenced, "revert to recovery point", &point.id).with_source(error);
        if keeper.is_lost() { reverted.map_err(fenced) } else { reverted }
    }

    /// Ends the job as its revert ended.
    pub(super) async fn end(
        &self,
        services: &Services,
        id: &RecoveryPointId,
        reverted: &Result<RecoveryPoint>,
    ) -> Result<()> {
        let end = match reverted {
            Ok(point) => JobEnd::Cancelled(reason(point.epoch, id)),
            Err(error) => {
                JobEnd::Failed(format!("could not go back to recovery point {id}: {}", error.chain()))
            }
        };
        let is_busy = reverted.as_ref().is_err_and(|error| error.kind() == ErrorKind::Busy);
        // Whoever has a volume open may be the one that this job was taken from and that does not know it yet.
        if self.is_left && is_busy {
            return services.jobs.release(&self.lease).await;
        }
        self.end_as(services, end).await
    }

    pub(super) async fn end_as(&self, services: &Services, end: JobEnd) -> Result<()> {
        let (level, told) = match &end {
            JobEnd::Failed(why) => (LogLevel::Error, why.clone()),
            JobEnd::Cancelled(why) => (LogLevel::Info, why.clone()),
            JobEnd::Done => (LogLevel::Info, "done".to_owned()),
        };
        services.jobs.end(&self.lease, end).await?;
        Teller::new(services, &self.lease).line(level, told).await;
        Ok(())
    }
}
