//! VMs: whom volumes are for.

use axum::extract::State;
use axum::http::StatusCode;
use axum::{Extension, Json};
use futures_util::{StreamExt as _, stream};
use oma_core::record::{SourceDisk, SourceIdentity, SourceVm};
use oma_core::{ContextId, Error, ErrorKind, VmPath};
use serde::Deserialize;
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::VolumeRoutes;
use crate::server::access::{Principal, Role};
use crate::server::extract::{Body, InPath, InQuery};
use crate::server::paging::{Part, page};
use crate::server::problem::Answer;
use crate::server::problems::Problems;
use crate::{DiskRow, Page, RecordDisk, RecordVm, VmRow, VolumeRow};

pub(super) fn group() -> OpenApiRouter<VolumeRoutes> {
    OpenApiRouter::new()
        .routes(routes!(list, record))
        .routes(routes!(get, remove))
        .routes(routes!(disks))
        .routes(routes!(volumes))
}

/// Which VMs.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct Which {
    /// Only the one that has this path; of several, the one that was recorded last.
    #[param(value_type = Option<String>)]
    vm_path: Option<VmPath>,
}

/// List VMs
#[utoipa::path(get, path = "/vms", tag = "vms", params(Which, Part), responses((status = 200, body = Page<VmRow>), Problems))]
async fn list(
    State(routes): State<VolumeRoutes>,
    InQuery(which): InQuery<Which>,
    InQuery(part): InQuery<Part>,
) -> Answer<Json<Page<VmRow>>> {
    let after: Option<ContextId> = part.after()?;
    let all = match &which.vm_path {
        None => routes.inventory.contexts(after.as_ref()),
        Some(path) => {
            let found = routes.inventory.by_path(path).await?;
            let behind = found.filter(|vm| after.is_none_or(|after| vm.id > after));
            stream::iter(behind.map(Ok)).boxed()
        }
    };
    let (vms, next) = part.of(all, |vm| vm.id.to_string()).await?;
    Ok(Json(page(vms.iter().map(VmRow::from).collect(), next)))
}

/// Record a VM and its disks as their source describes them now. The same VM again changes its record and nothing that hangs on it
#[utoipa::path(post, path = "/vms", tag = "vms", request_body = RecordVm,
    responses((status = 200, body = VmRow), Problems))]
async fn record(
    State(routes): State<VolumeRoutes>,
    Body(asked): Body<RecordVm>,
) -> Answer<(StatusCode, Json<VmRow>)> {
    let RecordVm { instance_uuid, endpoint, name, path, disks } = asked;
    let identity = SourceIdentity { instance_uuid, endpoint };
    let disks = disks.into_iter().map(source_disk).collect();
    let vm = routes.inventory.record(&SourceVm { identity, name, path, disks }).await?;
    Ok((StatusCode::OK, Json(VmRow::from(&vm))))
}

fn source_disk(disk: RecordDisk) -> SourceDisk {
    let RecordDisk { key, capacity_bytes, label, location, unit_number } = disk;
    SourceDisk { key, label, location, capacity: capacity_bytes, unit_number }
}

/// A VM
#[utoipa::path(get, path = "/vms/{context_id}", tag = "vms", params(("context_id" = String, Path)),
    responses((status = 200, body = VmRow), Problems))]
async fn get(State(routes): State<VolumeRoutes>, InPath(id): InPath<ContextId>) -> Answer<Json<VmRow>> {
    let vm = routes.inventory.context(&id).await?;
    Ok(Json(vm.as_ref().map(VmRow::from).ok_or_else(|| unknown(&id))?))
}

/// Remove the record of a VM that is no longer wanted, with its disks and ended jobs. Refused while anything of it is there: a live job,
/// a volume, an unfinished operation, an export, a recovery point, a failover. Idempotent. Needs an admin
#[utoipa::path(delete, path = "/vms/{context_id}", tag = "vms", params(("context_id" = String, Path)),
    responses((status = 204), Problems))]
async fn remove(
    State(routes): State<VolumeRoutes>,
    Extension(principal): Extension<Principal>,
    InPath(id): InPath<ContextId>,
) -> Answer<StatusCode> {
    principal.needs(Role::Admin, "remove VM", &id)?;
    routes.inventory.remove_vm(&id).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// The disks of a VM
#[utoipa::path(get, path = "/vms/{context_id}/disks", tag = "vms", params(("context_id" = String, Path)),
    responses((status = 200, body = Vec<DiskRow>), Problems))]
async fn disks(
    State(routes): State<VolumeRoutes>,
    InPath(id): InPath<ContextId>,
) -> Answer<Json<Vec<DiskRow>>> {
    let vm = routes.inventory.context(&id).await?.ok_or_else(|| unknown(&id))?;
    let mut rows = Vec::new();
    for disk in routes.inventory.disks(&id).await? {
        let volume = routes.service.services().volumes.volume_of(&disk.disk).await?;
        rows.push(DiskRow::new(&vm, &disk, volume.as_ref()));
    }
    Ok(Json(rows))
}

/// The volumes of a VM
#[utoipa::path(get, path = "/vms/{context_id}/volumes", tag = "vms", params(("context_id" = String, Path)),
    responses((status = 200, body = Vec<VolumeRow>), Problems))]
async fn volumes(
    State(routes): State<VolumeRoutes>,
    InPath(id): InPath<ContextId>,
) -> Answer<Json<Vec<VolumeRow>>> {
    let vm = routes.inventory.context(&id).await?.ok_or_else(|| unknown(&id))?;
    let mut rows = Vec::new();
    for disk in routes.inventory.disks(&id).await? {
        let volume = routes.service.services().volumes.volume_of(&disk.disk).await?;
        rows.extend(volume.map(|volume| VolumeRow::new(Some(&vm), &volume)));
    }
    Ok(Json(rows))
}

fn unknown(id: &ContextId) -> Error {
    Error::new(ErrorKind::NotFound, "find VM", id)
        .because("there is no record of it; GET /vms lists what there is")
}
