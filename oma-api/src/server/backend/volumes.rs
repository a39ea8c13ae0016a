//! Volumes are made, found, marked, attached, opened, grown and deleted.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use oma_core::record::VolumeTag;
use oma_core::traits::VolumeSpec;
use oma_core::{InstanceId, VolumeId};
use serde::Deserialize;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::super::extract::{Body, InPath, InQuery};
use super::super::problem::Answer;
use super::super::problems::Problems;
use super::session::{Asker, session};
use super::{BackendRoutes, lines};
use crate::backend::{
    BackendVolume, Capabilities, Create, ListLine, Open, Proof, Resize, Revert, Session, Stamp,
};

pub(super) fn group() -> OpenApiRouter<BackendRoutes> {
    OpenApiRouter::new()
        .routes(routes!(capabilities))
        .routes(routes!(create, list))
        .routes(routes!(get))
        .routes(routes!(retag))
        .routes(routes!(attach))
        .routes(routes!(detach))
        .routes(routes!(open))
        .routes(routes!(resize))
        .routes(routes!(stamp))
        .routes(routes!(delete))
        .routes(routes!(revert))
}

/// What the backend can do
#[utoipa::path(get, path = "/backend/capabilities", tag = "backend", responses((status = 200, body = Capabilities), Problems))]
async fn capabilities(State(routes): State<BackendRoutes>) -> Json<Capabilities> {
    Json(routes.backend.capabilities().into())
}

/// Makes a volume; the same operation again answers the volume made before
#[utoipa::path(post, path = "/backend/volumes", tag = "backend", request_body = Create, responses((status = 200, body = BackendVolume), Problems))]
async fn create(
    State(routes): State<BackendRoutes>,
    Body(asked): Body<Create>,
) -> Answer<Json<BackendVolume>> {
    let spec = VolumeSpec::from(asked);
    routes.foreign("create volume", &spec.operation, spec.tag.clone())?;
    Ok(Json(routes.backend.create(&spec).await?.into()))
}

/// Whose volumes to list.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
struct Whose {
    /// The deployment.
    #[param(value_type = String)]
    instance: InstanceId,
}

/// All volumes of a deployment: a line of JSON for each, and one for the end
#[utoipa::path(get, path = "/backend/volumes", tag = "backend", params(Whose), responses(
    (status = 200, body = ListLine<BackendVolume>, content_type = "application/x-ndjson"), Problems))]
async fn list(State(routes): State<BackendRoutes>, InQuery(Whose { instance }): InQuery<Whose>) -> Response {
    lines::lines::<BackendVolume, _, _>(async move |entries| {
        lines::send(routes.backend.list(&instance), entries).await;
    })
}

/// The volume as it is now; `null` when the backend knows for sure that there is none
#[utoipa::path(get, path = "/backend/volumes/{id}", tag = "backend", params(("id" = String, Path, description = "Id of the volume")),
    responses((status = 200, body = Option<BackendVolume>), Problems))]
async fn get(
    State(routes): State<BackendRoutes>,
    InPath(id): InPath<VolumeId>,
) -> Answer<Json<Option<BackendVolume>>> {
    Ok(Json(routes.backend.get(&id).await?.map(Into::into)))
}

/// Marks a volume of the same deployment and disk with a generation that is no smaller
#[utoipa::path(put, path = "/backend/volumes/{id}/tag", tag = "backend", params(("id" = String, Path, description = "Id of the volume")),
    request_body = Proof, responses((status = 204, description = "It bears the mark"), Problems))]
async fn retag(
    State(routes): State<BackendRoutes>,
    InPath(id): InPath<VolumeId>,
    Body(Proof { tag }): Body<Proof>,
) -> Answer<StatusCode> {
    let tag = routes.foreign("retag volume", &id, tag)?;
    routes.backend.retag(&id, &tag).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Makes it a device or file of the daemon's machine
#[utoipa::path(post, path = "/backend/volumes/{id}/attach", tag = "backend", params(("id" = String, Path, description = "Id of the volume")),
    request_body = Proof, responses((status = 200, body = BackendVolume), Problems))]
async fn attach(
    State(routes): State<BackendRoutes>,
    InPath(id): InPath<VolumeId>,
    Body(Proof { tag }): Body<Proof>,
) -> Answer<Json<BackendVolume>> {
    let tag = routes.foreign("attach volume", &id, tag)?;
    Ok(Json(routes.backend.attach(&id, &tag).await?.into()))
}

/// Takes the device away
#[utoipa::path(post, path = "/backend/volumes/{id}/detach", tag = "backend", params(("id" = String, Path, description = "Id of the volume")),
    request_body = Proof, responses((status = 200, body = BackendVolume), Problems))]
async fn detach(
    State(routes): State<BackendRoutes>,
    InPath(id): InPath<VolumeId>,
    Body(Proof { tag }): Body<Proof>,
) -> Answer<Json<BackendVolume>> {
    let tag = routes.foreign("detach volume", &id, tag)?;
    let volume = routes.patiently(&id, || routes.backend.detach(&id, &tag)).await?;
    Ok(Json(volume.into()))
}

/// Opens an attached volume, for as long as this answer is read
#[utoipa::path(post, path = "/backend/volumes/{id}/open", tag = "backend", params(("id" = String, Path, description = "Id of the volume")),
    request_body = Open, responses((status = 200, body = Session, content_type = "application/x-ndjson", description = "The first of its lines; it lasts while the volume is open"), Problems))]
async fn open(
    State(routes): State<BackendRoutes>,
    asker: Asker,
    InPath(id): InPath<VolumeId>,
    Body(Open { tag, access }): Body<Open>,
) -> Answer<Response> {
    let tag = routes.foreign("open volume", &id, tag)?;
    let device = routes.patiently(&id, || routes.backend.open(&id, &tag, access.into())).await?;
    Ok(session(&routes.publisher, &id, tag, device, asker).await?)
}

/// Makes a volume larger
#[utoipa::path(post, path = "/backend/volumes/{id}/resize", tag = "backend", params(("id" = String, Path, description = "Id of the volume")),
    request_body = Resize, responses((status = 200, body = BackendVolume), Problems))]
async fn resize(
    State(routes): State<BackendRoutes>,
    InPath(id): InPath<VolumeId>,
    Body(Resize { tag, capacity_bytes }): Body<Resize>,
) -> Answer<Json<BackendVolume>> {
    let tag = routes.foreign("resize volume", &id, tag)?;
    let volume = routes.patiently(&id, || routes.backend.resize(&id, &tag, capacity_bytes)).await?;
    Ok(Json(volume.into()))
}

/// What the content of a volume looks like now
#[utoipa::path(get, path = "/backend/volumes/{id}/stamp", tag = "backend", params(("id" = String, Path, description = "Id of the volume")),
    responses((status = 200, body = Stamp), Problems))]
async fn stamp(State(routes): State<BackendRoutes>, InPath(id): InPath<VolumeId>) -> Answer<Json<Stamp>> {
    let stamp = routes.backend.content_stamp(&id).await?;
    Ok(Json(Stamp { stamp: stamp.map(|stamp| stamp.0) }))
}

/// Destroys a volume; its snapshots stay
#[utoipa::path(post, path = "/backend/volumes/{id}/delete", tag = "backend", params(("id" = String, Path, description = "Id of the volume")),
    request_body = Proof, responses((status = 204, description = "There is no such volume any more"), Problems))]
async fn delete(
    State(routes): State<BackendRoutes>,
    InPath(id): InPath<VolumeId>,
    Body(Proof { tag }): Body<Proof>,
) -> Answer<StatusCode> {
    let tag = routes.foreign("delete volume", &id, tag)?;
    routes.patiently(&id, || routes.backend.delete(&id, &tag)).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Gives a volume the content of a snapshot of it
#[utoipa::path(post, path = "/backend/volumes/{id}/revert", tag = "backend", params(("id" = String, Path, description = "Id of the volume")),
    request_body = Revert, responses((status = 200, body = BackendVolume), Problems))]
async fn revert(
    State(routes): State<BackendRoutes>,
    InPath(id): InPath<VolumeId>,
    Body(Revert { tag, snapshot }): Body<Revert>,
) -> Answer<Json<BackendVolume>> {
    let tag: VolumeTag = routes.foreign("revert volume", &id, tag)?;
    let snapshot = snapshot.into();
    let volume = routes.patiently(&id, || routes.backend.revert(&id, &tag, &snapshot)).await?;
    Ok(Json(volume.into()))
}
