//! Snapshots of a volume.

use axum::Json;
use axum::extract::State;
use futures_util::TryStreamExt;
use oma_core::engine::VolumeChange;
use oma_core::traits::Snapshot;
use oma_core::{SnapshotId, VolumeId};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::VolumeRoutes;
use crate::server::asked::{Accepted, Asked, Key, Wait};
use crate::server::extract::{Body, InPath};
use crate::server::problem::Answer;
use crate::server::problems::Problems;
use crate::{OperationRow, RevertVolume, SnapshotRow};

pub(super) fn group() -> OpenApiRouter<VolumeRoutes> {
    OpenApiRouter::new().routes(routes!(list, create)).routes(routes!(delete)).routes(routes!(revert))
}

/// The snapshots of a volume, as the backend has them now
#[utoipa::path(get, path = "/volumes/{volume_id}/snapshots", tag = "snapshots", params(("volume_id" = String, Path)),
    responses((status = 200, body = Vec<SnapshotRow>), Problems))]
async fn list(
    State(routes): State<VolumeRoutes>,
    InPath(id): InPath<VolumeId>,
) -> Answer<Json<Vec<SnapshotRow>>> {
    let volume = routes.volume(&id).await?;
    let found: Vec<Snapshot> = routes.service.services().backend.snapshots(&volume.id).try_collect().await?;
    Ok(Json(found.into_iter().map(SnapshotRow::from).collect()))
}

/// Freeze what a volume holds now; the operation tells the snapshot's id
#[utoipa::path(post, path = "/volumes/{volume_id}/snapshots", tag = "snapshots",
    params(("volume_id" = String, Path), Wait, Key),
    responses((status = 200, body = OperationRow), (status = 202, body = OperationRow), Problems))]
async fn create(
    State(routes): State<VolumeRoutes>,
    InPath(id): InPath<VolumeId>,
    asked: Asked,
) -> Answer<Accepted> {
    routes.change_volume(asked, &id, VolumeChange::Snapshot).await
}

/// Destroy a snapshot
#[utoipa::path(delete, path = "/volumes/{volume_id}/snapshots/{snapshot_id}", tag = "snapshots",
    params(("volume_id" = String, Path), ("snapshot_id" = String, Path), Wait, Key),
    responses((status = 200, body = OperationRow), (status = 202, body = OperationRow), Problems))]
async fn delete(
    State(routes): State<VolumeRoutes>,
    InPath((id, snapshot)): InPath<(VolumeId, SnapshotId)>,
    asked: Asked,
) -> Answer<Accepted> {
    routes.change_volume(asked, &id, VolumeChange::DeleteSnapshot { snapshot }).await
}

/// Give a volume the content of a snapshot of it. No change id of before matches afterwards
#[utoipa::path(post, path = "/volumes/{volume_id}/revert", tag = "snapshots",
    params(("volume_id" = String, Path), Wait, Key), request_body = RevertVolume,
    responses((status = 200, body = OperationRow), (status = 202, body = OperationRow), Problems))]
async fn revert(
    State(routes): State<VolumeRoutes>,
    InPath(id): InPath<VolumeId>,
    asked: Asked,
    Body(wanted): Body<RevertVolume>,
) -> Answer<Accepted> {
    let RevertVolume { snapshot_id } = wanted;
    routes.change_volume(asked, &id, VolumeChange::Revert { snapshot: snapshot_id }).await
}
