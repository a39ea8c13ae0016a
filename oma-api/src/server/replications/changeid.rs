//! Change ids, by the routes of the original system.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use oma_core::record::DiskRecord;
use oma_core::state::Role;
use oma_core::{DiskKey, Error, ErrorKind, JobId, VmPath};
use serde::Deserialize;
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::ReplicationRoutes;
use super::push::endpoint;
use crate::server::audit::Asker;
use crate::server::extract::{Body, InPath, InQuery};
use crate::server::problem::Answer;
use crate::server::problems::Problems;
use crate::{ChangeIdAnswer, RecordChangeId};

pub(super) fn group() -> OpenApiRouter<ReplicationRoutes> {
    OpenApiRouter::new().routes(routes!(get)).routes(routes!(record))
}

/// Of which disk.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct OfDisk {
    /// The VM, as its source names it.
    #[param(value_type = String, example = "/DC/vm/web01")]
    vm_path: VmPath,
    /// The disk; may be left out when the VM has one only.
    #[param(value_type = Option<String>)]
    disk_id: Option<DiskKey>,
}

/// The change id of a disk's last committed epoch
#[utoipa::path(get, path = "/replications/changeid", tag = "change ids", params(OfDisk),
    responses((status = 200, body = ChangeIdAnswer), Problems))]
async fn get(
    State(routes): State<ReplicationRoutes>,
    asker: Asker,
    InQuery(of): InQuery<OfDisk>,
) -> Answer<Json<ChangeIdAnswer>> {
    let inventory = &routes.replicator.services().inventory;
    let vm = inventory.by_path(&of.vm_path).await?;
    // Another's VM is told no other than one that is not there.
    let vm = match asker.principal.role {
        Role::Agent => {
            let own = endpoint(&asker.principal, None)?;
            vm.filter(|vm| vm.identity.endpoint == own)
        }
        Role::Viewer | Role::Operator | Role::Admin => vm,
    };
    let vm = vm.ok_or_else(|| {
        Error::new(ErrorKind::NotFound, "find VM", &of.vm_path)
            .because("there is no record of it; GET /vms lists what there is")
    })?;
    let disk = only(inventory.disks(&vm.id).await?, of.disk_id.as_ref(), &of.vm_path)?;
    let message = match &disk.change_id {
        Some(change_id) => format!("epoch {} of {} is at {change_id}", disk.epoch, disk.disk.key),
        None => format!("{} has no committed epoch: the first copy is a full one", disk.disk.key),
    };
    let DiskRecord { disk, change_id, .. } = disk;
    Ok(Json(ChangeIdAnswer { vm_path: of.vm_path, disk_id: disk.key, change_id, message }))
}

/// The disk that is named, or the only one there is.
fn only(mut disks: Vec<DiskRecord>, named: Option<&DiskKey>, vm: &VmPath) -> Answer<DiskRecord> {
    let keys: Vec<_> = disks.iter().map(|disk| disk.disk.key.to_string()).collect();
    if let Some(named) = named {
        disks.retain(|disk| disk.disk.key == *named);
    }
    match (disks.pop(), disks.is_empty(), named) {
        (Some(disk), true, _) => Ok(disk),
        (Some(_), false, _) => Err(Error::new(ErrorKind::Invalid, "find the disk of", vm)
            .because(format!("it has {}; name one with disk_id", keys.join(", ")))
            .into()),
        (None, _, named) => {
            let named = named.map_or("a disk".to_owned(), DiskKey::to_string);
            let has = if keys.is_empty() { "none".to_owned() } else { keys.join(", ") };
            Err(Error::new(ErrorKind::NotFound, "find the disk of", vm)
                .because(format!("{named} is not recorded; it has {has}"))
                .into())
        }
    }
}

/// Report the change id that a job's disk was copied at. Of a live job that an agent pushes it says that the disk is complete: 202, and
/// durable; it is recorded with those of all disks once all are reported. Whoever asks again then is answered 200: the one that is
/// recorded is confirmed, any other refused
#[utoipa::path(post, path = "/replications/{job_id}/changeid", tag = "change ids", params(("job_id" = String, Path)),
    request_body = RecordChangeId, responses((status = 200, body = ChangeIdAnswer), (status = 202, body = ChangeIdAnswer), Problems))]
async fn record(
    State(routes): State<ReplicationRoutes>,
    asker: Asker,
    InPath(id): InPath<JobId>,
    Body(told): Body<RecordChangeId>,
) -> Answer<(StatusCode, Json<ChangeIdAnswer>)> {
    let job = routes.visible(&asker.principal, &id).await?;
    if let Some(noted) = routes.report(&job, &told).await? {
        return Ok((StatusCode::ACCEPTED, Json(noted)));
    }
    let services = routes.replicator.services();
    let vm = services
        .inventory
        .context(&job.context)
        .await?
        .ok_or_else(|| Error::new(ErrorKind::NotFound, "find the VM of replication", &id))?;
    let mut disks = services.inventory.disks(&job.context).await?;
    disks.retain(|disk| job.disks.contains(&disk.disk.key));
    let disk = only(disks, told.disk_id.as_ref(), &vm.path)?;
    if disk.change_id.as_ref() != Some(&told.change_id) || disk.epoch != job.epoch {
        let recorded = match &disk.change_id {
            Some(change_id) => format!("epoch {} at {change_id} is recorded", disk.epoch),
            None => "no epoch of it is committed".to_owned(),
        };
        let reason =
            format!("{recorded}; the change id of {id} is recorded by whoever drives it, with its epoch");
        return Err(Error::new(ErrorKind::Conflict, "record the change id of", &disk.disk)
            .because(reason)
            .into());
    }
    let message = format!("epoch {} of {} is at {}", disk.epoch, disk.disk.key, told.change_id);
    let answer =
        ChangeIdAnswer { vm_path: vm.path, disk_id: disk.disk.key, change_id: disk.change_id, message };
    Ok((StatusCode::OK, Json(answer)))
}
