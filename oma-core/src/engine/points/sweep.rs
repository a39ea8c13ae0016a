//! Deletes what need not be kept: intent recorded, snapshots deleted, record removed (L15).

use futures_util::TryStreamExt as _;

use super::keep::KeepPoints;
use crate::engine::services::Services;
use crate::record::RecoveryPoint;
use crate::state::PointStatus;
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
            condemn(services, point, "its job ended before it was ready", &mut left).await;
        }
    }
    for point in keep.iter().flat_map(|keep| keep.needless(&points, now)) {
        condemn(services, point, "it need not be kept any more", &mut left).await;
    }
    left.extend(delete_condemned(services, context).await?);
    Ok(left)
}

async fn condemn(services: &Services, point: &RecoveryPoint, reason: &str, left: &mut Vec<String>) {
    match services.points.condemn_point(&point.id, reason).await {
        // Another job lives, which may still want it; or somebody was faster.
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
        if let Err(error) = delete(services, point).await {
            left.push(format!("recovery point {} of epoch {}: {}", point.id, point.epoch, error.chain()));
        }
    }
    Ok(left)
}

/// Deletes the snapshots of a condemned point, then its record. One that cannot be deleted does not keep the others.
pub(super) async fn delete(services: &Services, point: &RecoveryPoint) -> Result<()> {
    let mut first = Ok(());
    for volume in &point.volumes {
        first = first.and(services.backend.delete_snapshot(&volume.snapshot).await);
    }
    first?;
    services.points.remove_point(&point.id).await
}
