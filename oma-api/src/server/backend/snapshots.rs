//! Snapshots are made, found, opened and deleted.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use oma_core::VolumeId;
use oma_core::traits::SnapshotSpec;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::super::extract::{Body, InPath};
use super::super::problem::Answer;
use super::super::problems::Problems;
use super::session::{Asker, session};
use super::{BackendRoutes, lines};
use crate::backend::{BackendSnapshot, ListLine, Session, SnapshotMark};

pub(super) fn group() -> OpenApiRouter<BackendRoutes> {
    OpenApiRouter::new()
        .routes(routes!(snapshots))
        .routes(routes!(snapshot))
        .routes(routes!(open_snapshot))
        .routes(routes!(delete_snapshot))
}

impl BackendRoutes {
    fn foreign_snapshot(
        &self,
        operation: &'static str,
        mark: SnapshotMark,
    ) -> oma_core::Result<SnapshotSpec> {
        let spec = SnapshotSpec::from(mark);
        self.foreign(operation, &spec.id, spec.tag.clone())?;
        Ok(spec)
    }
}

/// The snapshots of a volume, also when it is gone: a line of JSON for each, and one for the end
#[utoipa::path(get, path = "/backend/volumes/{id}/snapshots", tag = "backend", params(("id" = String, Path, description = "Id of the volume")),
    responses((status = 200, body = ListLine<BackendSnapshot>, content_type = "application/x-ndjson"), Problems))]
async fn snapshots(State(routes): State<BackendRoutes>, InPath(id): InPath<VolumeId>) -> Response {
    lines::lines::<BackendSnapshot, _, _>(async move |entries| {
        lines::send(routes.backend.snapshots(&id), entries).await;
    })
}

/// Freezes what a volume holds now; the same id again answers the snapshot made before
#[utoipa::path(post, path = "/backend/snapshots", tag = "backend", request_body = SnapshotMark, responses((status = 200, body = BackendSnapshot), Problems))]
async fn snapshot(
    State(routes): State<BackendRoutes>,
    Body(mark): Body<SnapshotMark>,
) -> Answer<Json<BackendSnapshot>> {
    let spec = routes.foreign_snapshot("snapshot volume", mark)?;
    let made = routes.patiently(&spec.volume, || routes.backend.snapshot(&spec)).await?;
    Ok(Json(made.into()))
}

/// Opens a snapshot for reading, for as long as this answer is read
#[utoipa::path(post, path = "/backend/snapshots/open", tag = "backend",
    request_body = SnapshotMark, responses((status = 200, body = Session, content_type = "application/x-ndjson", description = "The first of its lines; it lasts while the snapshot is open"), Problems))]
async fn open_snapshot(
    State(routes): State<BackendRoutes>,
    asker: Asker,
    Body(mark): Body<SnapshotMark>,
) -> Answer<Response> {
    let spec = routes.foreign_snapshot("open snapshot", mark)?;
    let device = routes.patiently(&spec.volume, || routes.backend.open_snapshot(&spec)).await?;
    Ok(session(&routes.publisher, &spec.volume, spec.tag, device, asker).await?)
}

/// Destroys a snapshot
#[utoipa::path(post, path = "/backend/snapshots/delete", tag = "backend",
    request_body = SnapshotMark, responses((status = 204, description = "There is no such snapshot any more"), Problems))]
async fn delete_snapshot(
    State(routes): State<BackendRoutes>,
    Body(mark): Body<SnapshotMark>,
) -> Answer<StatusCode> {
    let spec = routes.foreign_snapshot("delete snapshot", mark)?;
    routes.patiently(&spec.volume, || routes.backend.delete_snapshot(&spec)).await?;
    Ok(StatusCode::NO_CONTENT)
}
