//! Volumes as they are recorded.

use axum::Json;
use axum::extract::State;
use oma_core::record::{VolumeFilter, VolumeRecord};
use oma_core::state::VolumeStatus;
use oma_core::{ContextId, Error, ErrorKind, VolumeId};
use serde::Deserialize;
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::VolumeRoutes;
use crate::server::extract::{InPath, InQuery};
use crate::server::paging::{Part, page};
use crate::server::problem::Answer;
use crate::server::problems::Problems;
use crate::{DeviceRow, Page, VolumeRow};

pub(super) fn group() -> OpenApiRouter<VolumeRoutes> {
    OpenApiRouter::new()
        .routes(routes!(list))
        .routes(routes!(get))
        .routes(routes!(device))
        .routes(routes!(of_device))
        .routes(routes!(of_device_in_path))
}

/// Which volumes.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct Which {
    /// Only those that stand so.
    #[param(value_type = Option<String>, pattern = "^(creating|created|attached|detached|condemned|deleting)$")]
    status: Option<VolumeStatus>,
    /// Only those of this VM, by the id of its record.
    #[param(value_type = Option<String>)]
    context_id: Option<ContextId>,
}

/// List volumes by their ids; none that is deleted
#[utoipa::path(get, path = "/volumes", tag = "volumes", params(Which, Part),
    responses((status = 200, body = Page<VolumeRow>), Problems))]
async fn list(
    State(routes): State<VolumeRoutes>,
    InQuery(which): InQuery<Which>,
    InQuery(part): InQuery<Part>,
) -> Answer<Json<Page<VolumeRow>>> {
    let filter = VolumeFilter { context: which.context_id, status: which.status, after: part.after()? };
    let all = routes.service.services().volumes.volumes(filter);
    let (volumes, next) = part.of(all, |volume| volume.id.to_string()).await?;
    let vms = routes.vms(volumes.iter().map(|volume| &volume.disk.context)).await?;
    let row = |volume: &VolumeRecord| VolumeRow::new(vms.get(&volume.disk.context), volume);
    let rows = volumes.iter().map(row).collect();
    Ok(Json(page(rows, next)))
}

/// A volume
#[utoipa::path(get, path = "/volumes/{volume_id}", tag = "volumes", params(("volume_id" = String, Path)),
    responses((status = 200, body = VolumeRow), Problems))]
async fn get(State(routes): State<VolumeRoutes>, InPath(id): InPath<VolumeId>) -> Answer<Json<VolumeRow>> {
    let volume = routes.volume(&id).await?;
    Ok(Json(routes.volume_row(&volume).await?))
}

/// The local device of an attached volume
#[utoipa::path(get, path = "/volumes/{volume_id}/device", tag = "volumes", params(("volume_id" = String, Path)),
    responses((status = 200, body = DeviceRow), Problems))]
async fn device(State(routes): State<VolumeRoutes>, InPath(id): InPath<VolumeId>) -> Answer<Json<DeviceRow>> {
    let volume = routes.volume(&id).await?;
    let row = DeviceRow::of(&volume).filter(|_| routes.sees(&volume)).ok_or_else(|| {
        Error::new(ErrorKind::NotFound, "find the device of volume", &id)
            .because(format!("it is {}, and no device of this machine", volume.status))
    })?;
    Ok(Json(row))
}

/// Where a device lies.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct DevicePath {
    /// Its path.
    #[param(example = "/dev/vdb")]
    path: String,
}

/// The volume behind a local device
#[utoipa::path(get, path = "/devices/volume", tag = "volumes", params(DevicePath),
    responses((status = 200, body = VolumeRow), Problems))]
async fn of_device(
    State(routes): State<VolumeRoutes>,
    InQuery(asked): InQuery<DevicePath>,
) -> Answer<Json<VolumeRow>> {
    behind(&routes, &asked.path).await
}

/// The volume behind a local device, whose path is percent-encoded: `/devices/%2Fdev%2Fvdb/volume`
#[utoipa::path(get, path = "/devices/{path}/volume", tag = "volumes", params(("path" = String, Path)),
    responses((status = 200, body = VolumeRow), Problems))]
async fn of_device_in_path(
    State(routes): State<VolumeRoutes>,
    InPath(path): InPath<String>,
) -> Answer<Json<VolumeRow>> {
    behind(&routes, &path).await
}

async fn behind(routes: &VolumeRoutes, path: &str) -> Answer<Json<VolumeRow>> {
    let machine = routes.service.worker();
    let found = routes.service.services().volumes.volume_at(machine, path).await?;
    let volume = found.ok_or_else(|| {
        Error::new(ErrorKind::NotFound, "find the volume of device", path)
            .because("no attached volume of ours is there")
    })?;
    Ok(Json(routes.volume_row(&volume).await?))
}
