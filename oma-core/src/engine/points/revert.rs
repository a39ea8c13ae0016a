use std::sync::Arc;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::Clock as _;
use crate::engine::compare::{Comparison, Doubt, STRETCH, hash_all};
use crate::engine::config::ReplicateConfig;
use crate::engine::copier::Admission;
use crate::engine::guard::GuardedDevice;
use crate::engine::keeper::LeaseKeeper;
use crate::engine::services::Services;
use crate::engine::verify::mismatch;
use crate::engine::volumes::LeasedVolumes;
use crate::record::{DiskRecord, JobEnd, JobSpec, Lease, RecoveryPoint};
use crate::state::{JobKind, OperationKind, PointStatus};
use crate::traits::{Access, BlockDevice, ReadFrom, Snapshots};
use crate::tree::{LEAF, LeafHash, LeafRun};
use crate::{
    DiskKey, Error, ErrorKind, Extent, ExtentSet, JobId, RecoveryPointId, Result, SystemClock, WorkerId,
};

/// Gives every volume of a VM the content that it had at a recovery point.
///
/// It takes a job of its own, so no replication runs meanwhile, and ends it as `cancelled`: no epoch comes of it. Each volume
/// begins a new generation before it is touched, so no change id of before matches (L09): the next replication compares
/// hashes and copies what differs. When a volume cannot be reverted, the volumes are recorded as inconsistent; revert again, or
/// replicate. When the process dies, the job stays: revert again, to this point or another one, which takes it over, or cancel
/// it. One that takes over and finds a volume open leaves the job as it is. It stops soon after `stop`, between two volumes or
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
    let found = services.points.point(id).await?;
    let point = found.ok_or_else(|| Error::new(ErrorKind::NotFound, "revert to recovery point", id))?;
    if point.status != PointStatus::Ready {
        return Err(refused(id, format!("it is {}, not ready", point.status)));
    }
    check_whole(services, &point).await?;
    let Taken { lease, asked, is_left } = take_job(services, worker, config, &point).await?;
    let stop = stop.child_token();
    let keeper =
        LeaseKeeper::start(Arc::clone(&services.jobs), lease.clone(), config.lease, asked, stop.clone());
    let mut reverted = revert_all(services, &lease, config, &point, &stop).await;
    if keeper.is_lost() {
        let fenced = |error| Error::new(ErrorKind::Fenced, "revert to recovery point", id).with_source(error);
        reverted = reverted.map_err(fenced);
    }
    drop(keeper);
    let end = match &reverted {
        Ok(()) => JobEnd::Cancelled(format!("went back to epoch {} by recovery point {id}", point.epoch)),
        Err(error) => JobEnd::Failed(format!("could not go back to recovery point {id}: {}", error.chain())),
    };
    let is_busy = reverted.as_ref().is_err_and(|error| error.kind() == ErrorKind::Busy);
    // Whoever has a volume open may be the one that this job was taken from and that does not know it yet.
    let ended = match is_left && is_busy {
        true => services.jobs.release(&lease).await,
        false => services.jobs.end(&lease, end).await.map(drop),
    };
    reverted?;
    ended?;
    Ok(point)
}

/// The job of a revert.
struct Taken {
    lease: Lease,
    /// When the lease was asked for.
    asked: Instant,
    /// Whether somebody else began it.
    is_left: bool,
}

/// The job of this revert. One that was interrupted is taken over, to whichever point it was
/// to go: every volume is written anew. Nobody else drives such a job, and while it is live no ready point is condemned.
async fn take_job(
    services: &Services,
    worker: &WorkerId,
    config: &ReplicateConfig,
    point: &RecoveryPoint,
) -> Result<Taken> {
    let mut disks: Vec<_> = point.volumes.iter().map(|volume| volume.key().clone()).collect();
    disks.sort();
    let live = services.jobs.live(&point.context).await?;
    if let Some(mut left) = live.filter(|live| live.kind == JobKind::Revert) {
        let asked = Instant::now();
        let lease = services.jobs.claim(&left.id, worker, config.lease).await?;
        left.disks.sort();
        if left.disks == disks {
            return Ok(Taken { lease, asked, is_left: true });
        }
        let end = JobEnd::Cancelled(format!("a revert to recovery point {} took its place", point.id));
        services.jobs.end(&lease, end).await?;
    }
    let job = JobId::mint(SystemClock.now());
    services.jobs.insert(JobSpec::revert(job.clone(), point.context.clone(), disks)).await?;
    let asked = Instant::now();
    let lease = services.jobs.claim(&job, worker, config.lease).await?;
    Ok(Taken { lease, asked, is_left: false })
}

fn refused(id: &RecoveryPointId, reason: String) -> Error {
    Error::new(ErrorKind::Conflict, "revert to recovery point", id).because(reason)
}

/// Refuses a point that lacks a disk of the VM's last epoch: the others alone would be of another time than that one.
async fn check_whole(services: &Services, point: &RecoveryPoint) -> Result<()> {
    let vm = services.inventory.context(&point.context).await?;
    let disks = services.inventory.disks(&point.context).await?;
    let is_of_last = |disk: &DiskRecord| vm.as_ref().is_some_and(|vm| disk.epoch == vm.epoch);
    let unknown =
        |disk: &DiskRecord| point.volumes.iter().all(|volume| volume.snapshot.tag.disk != disk.disk);
    match disks.iter().find(|disk| is_of_last(disk) && unknown(disk)) {
        None => Ok(()),
        Some(disk) => Err(refused(&point.id, format!("it was made before disk {} was there", disk.disk.key))),
    }
}

/// All volumes lose their generation before the first is touched: a crash in between leaves none that is believed. Nothing is
/// touched before everything was looked at that could stand in the way, and nothing is recorded as held that was not compared.
async fn revert_all(
    services: &Services,
    lease: &Lease,
    config: &ReplicateConfig,
    point: &RecoveryPoint,
    stop: &CancellationToken,
) -> Result<()> {
    let kept = check_possible(services, point).await?;
    let service = LeasedVolumes::new(services, lease);
    for volume in &point.volumes {
        service.end_content(&volume.snapshot).await?;
    }
    let mut stamps = Vec::new();
    for (volume, frozen) in point.volumes.iter().zip(kept) {
        if stop.is_cancelled() {
            return Err(Error::new(ErrorKind::Cancelled, "revert to recovery point", &point.id));
        }
        let record = service.revert(&volume.snapshot).await?;
        // A snapshot that shares blocks is gone back to by sharing them again: there is nothing that could differ.
        let compared = match services.backend.capabilities().snapshots {
            Snapshots::ByCopy => Some(service.open(record.clone(), &volume.snapshot.tag.disk).await?),
            _ => None,
        };
        // Before it is compared: who writes after that is seen by the next run.
        stamps.push((record.id.clone(), services.backend.content_stamp(&record.id).await?));
        if let Some(target) = compared {
            let frozen = Arc::new(GuardedDevice::new(frozen, config));
            compare(volume.key(), frozen, target, config, stop).await?;
        }
    }
    services.points.reverted_to(lease, &point.id, &stamps).await
}

/// Refuses a volume that is not as its snapshot, and zero behind that.
async fn compare(
    key: &DiskKey,
    frozen: Arc<dyn BlockDevice>,
    target: Arc<dyn BlockDevice>,
    config: &ReplicateConfig,
    stop: &CancellationToken,
) -> Result<()> {
    let (end, capacity) = (frozen.info().capacity.bytes(), target.info().capacity.bytes());
    let whole: ExtentSet = Extent::between(0, end.min(capacity)).into_iter().collect();
    // Both lie here.
    let admission = &Admission::without_limits(config.memory);
    let (source, doubt) = (frozen, Doubt::Some);
    let comparison = Comparison { source, target: Arc::clone(&target), doubt, admission, config, stop };
    let mut differences = comparison.run(&whole).await?.differences;
    differences.extend(Extent::between(capacity, end));
    for behind in Extent::between(end, capacity).into_iter().flat_map(|rest| rest.pieces(STRETCH)) {
        if stop.is_cancelled() {
            return Err(Error::new(ErrorKind::Cancelled, "compare", behind));
        }
        let (runs, _) = hash_all(&*target, behind, Some(ReadFrom::Device), &config.retry, stop).await?;
        let is_zero = |run: &LeafRun| {
            run.extent.pieces(LEAF).all(|leaf| run.hash == LeafHash::of_zeroes(leaf.length()))
        };
        differences.extend(runs.iter().filter(|run| !is_zero(run)).map(|run| run.extent));
    }
    match differences.is_empty() {
        true => Ok(()),
        false => Err(mismatch(key, &differences)),
    }
}

/// Opens every snapshot, whole and with its content, and proves that every volume is the disk's still and closed. While the
/// snapshots are open nobody deletes them.
async fn check_possible(services: &Services, point: &RecoveryPoint) -> Result<Vec<Arc<dyn BlockDevice>>> {
    let now = services.points.point(&point.id).await?;
    if now.is_none_or(|now| now.status != PointStatus::Ready) {
        return Err(refused(&point.id, "it is being deleted".to_owned()));
    }
    let mut kept = Vec::new();
    for volume in &point.volumes {
        let (disk, id) = (&volume.snapshot.tag.disk, &volume.snapshot.volume);
        let linked = services.volumes.volume_of(disk).await?;
        if linked.is_none_or(|linked| linked.id != *id) {
            return Err(refused(&point.id, format!("disk {disk} does not have volume {id} any more")));
        }
        if let Some(left) = services.volumes.unfinished(disk).await?
            && matches!(left.spec.kind, OperationKind::Create | OperationKind::Delete)
        {
            let reason =
                format!("operation {} on disk {disk} ({}) has not ended", left.spec.id, left.spec.kind);
            return Err(refused(&point.id, reason));
        }
        let tag = services.backend.get(id).await?.and_then(|now| now.tag);
        let Some(tag) = tag.filter(|tag| tag.disk == *disk) else {
            return Err(refused(
                &point.id,
                format!("volume {id} is gone, or is not of disk {disk} any more"),
            ));
        };
        kept.push(services.backend.open_snapshot(&volume.snapshot).await?);
        match services.backend.open(id, &tag, Access::ReadWrite).await {
            // One that is not attached is open nowhere.
            Err(error) if error.kind() != ErrorKind::Conflict => return Err(error),
            Ok(_) | Err(_) => {}
        }
    }
    Ok(kept)
}
