//! The content of volumes becomes that of their snapshots.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::revert::refused;
use super::tell::Teller;
use crate::engine::compare::{Comparison, Doubt, STRETCH, hash_all};
use crate::engine::config::ReplicateConfig;
use crate::engine::copier::Admission;
use crate::engine::guard::GuardedDevice;
use crate::engine::services::Services;
use crate::engine::verify::mismatch;
use crate::engine::volumes::LeasedVolumes;
use crate::record::{DiskRecord, Lease, RecoveryPoint};
use crate::state::{OperationKind, PointStatus};
use crate::traits::{Access, BlockDevice, ReadFrom, Snapshots};
use crate::tree::{LEAF, LeafHash, LeafRun};
use crate::{DiskKey, Error, ErrorKind, Extent, ExtentSet, Result};

/// Refuses a point that lacks a disk of the VM's last epoch: the others alone would be of another time than that one.
pub(super) async fn check_whole(services: &Services, point: &RecoveryPoint) -> Result<()> {
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
pub(super) async fn revert_all(
    services: &Services,
    lease: &Lease,
    config: &ReplicateConfig,
    point: &RecoveryPoint,
    teller: &mut Teller<'_>,
    stop: &CancellationToken,
) -> Result<()> {
    let kept = check_possible(services, point).await?;
    let sizes = point.volumes.iter().zip(&kept);
    teller.begins(sizes.map(|(volume, frozen)| (volume.key().clone(), frozen.info().capacity))).await;
    let service = LeasedVolumes::new(services, lease);
    for volume in &point.volumes {
        service.end_content(&volume.snapshot).await?;
    }
    let mut stamps = Vec::new();
    for (volume, frozen) in point.volumes.iter().zip(kept) {
        // Whoever stops it may have to wait for this thread.
        tokio::task::yield_now().await;
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
        teller.has(volume.key()).await;
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
