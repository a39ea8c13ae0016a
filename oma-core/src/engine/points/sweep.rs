//! Deletes what need not be kept: intent recorded, snapshots deleted, record removed (L15).

use std::collections::BTreeSet;

use futures_util::TryStreamExt as _;

use super::keep::KeepPoints;
use crate::engine::services::Services;
use crate::record::{Needless, RecoveryPoint};
use crate::state::{JobKind, PointStatus};
use crate::traits::{RecoveryPoints, Snapshot, Snapshots, VolumeBackend};
use crate::{ContextId, ErrorKind, Result, Timestamp};

/// Deletes the points of a VM that were left unfinished and those that need not be kept. Answers what could not be deleted;
/// that is tried again by the next sweep.
pub(crate) async fn sweep(
    services: &Services,
    context: &ContextId,
    keep: Option<KeepPoints>,
    now: Timestamp,
) -> Result<Vec<String>> {
    let points: Vec<RecoveryPoint> = services.points.points(context).try_collect().await?;
    let mut left = Vec::new();
    for point in &points {
        if matches!(point.status, PointStatus::Creating | PointStatus::Taken) {
            let reason = "its job ended before it was ready";
            condemn(services, point, Needless::Unfinished, reason, &mut left).await;
        }
    }
    if let Some(keep) = keep {
        for point in keep.needless(&points, now) {
            // Somebody may have deleted newer ones since they were listed.
            let needless = Needless::Behind(keep.least());
            condemn(services, point, needless, "it need not be kept any more", &mut left).await;
        }
    }
    left.extend(delete_condemned(services, context).await?);
    Ok(left)
}

/// Deletes the snapshots of a VM's volumes that no point knows. A worker that was fenced off among its snapshots may make one
/// after the point that it was for was given up, deleted and forgotten. Answers what could not be deleted.
///
/// Snapshots are listed before points: each was recorded before it was made, so what is there and not recorded was given up,
/// whoever lives. Only what bears the marks of this deployment, of the VM and of a job of it that makes points is ours (L20).
pub(crate) async fn delete_forgotten(services: &Services, context: &ContextId) -> Result<Vec<String>> {
    let mut found: Vec<Snapshot> = Vec::new();
    if services.backend.capabilities().snapshots == Snapshots::None {
        return Ok(Vec::new());
    }
    for disk in services.inventory.disks(context).await? {
        if let Some(volume) = services.volumes.volume_of(&disk.disk).await? {
            found.extend(services.backend.snapshots(&volume.id).try_collect::<Vec<_>>().await?);
        }
    }
    let points: Vec<RecoveryPoint> = services.points.points(context).try_collect().await?;
    let known: BTreeSet<_> = points.iter().flat_map(|point| &point.volumes).map(|v| &v.snapshot.id).collect();
    let instance = services.volumes.instance().await?;
    let mut left = Vec::new();
    for Snapshot { spec, .. } in found.iter().filter(|snapshot| !known.contains(&snapshot.spec.id)) {
        let job = services.jobs.get(&spec.job).await?;
        // What a job that operates made, an operator asked for.
        let is_of_job = job.is_some_and(|job| job.context == *context && job.kind != JobKind::Operate);
        if !is_of_job || spec.tag.instance != instance || spec.tag.disk.context != *context {
            continue;
        }
        if let Err(error) = services.backend.delete_snapshot(spec).await {
            left.push(format!("snapshot {} that no recovery point knows: {}", spec.id, error.chain()));
        }
    }
    Ok(left)
}

async fn condemn(
    services: &Services,
    point: &RecoveryPoint,
    needless: Needless,
    reason: &str,
    left: &mut Vec<String>,
) {
    match services.points.condemn_point(&point.id, needless, reason).await {
        // It is needed, or is not any more what it was when it was listed; or somebody was faster.
        Err(error) if matches!(error.kind(), ErrorKind::Conflict | ErrorKind::NotFound) => {}
        Err(error) => left.push(error.chain()),
        Ok(()) => {}
    }
}

/// Deletes the snapshots of every condemned point of a VM, then its record. Answers what could not be deleted.
async fn delete_condemned(services: &Services, context: &ContextId) -> Result<Vec<String>> {
    let points: Vec<RecoveryPoint> = services.points.points(context).try_collect().await?;
    let mut left = Vec::new();
    for point in points.iter().rev().filter(|point| point.status == PointStatus::Deleting) {
        if let Err(error) = delete(&*services.backend, &*services.points, point).await {
            left.push(format!("recovery point {} of epoch {}: {}", point.id, point.epoch, error.chain()));
        }
    }
    Ok(left)
}

/// Deletes the snapshots of a condemned point, then its record. One that cannot be deleted does not keep the others.
pub(in crate::engine) async fn delete(
    backend: &dyn VolumeBackend,
    points: &dyn RecoveryPoints,
    point: &RecoveryPoint,
) -> Result<()> {
    let mut first = Ok(());
    for volume in &point.volumes {
        first = first.and(backend.delete_snapshot(&volume.snapshot).await);
    }
    first?;
    points.remove_point(&point.id).await
}
