//! Volumes are changed: each change is an operation of the service, which goes on when whoever asked goes away (L18).

use std::time::Duration;

use axum::extract::State;
use oma_core::engine::{VolumeChange, VolumeRequest};
use oma_core::record::Operation;
use oma_core::state::{OperationStatus, VolumeStatus};
use oma_core::{DiskRef, Error, ErrorKind, OperationId, VolumeId};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::VolumeRoutes;
use crate::server::asked::{Accepted, Asked, Key, Problems, Wait};
use crate::server::extract::{Body, InPath, OptionalBody};
use crate::server::problem::Answer;
use crate::{AttachVolume, CallOff, CreateVolume, OperationRow, ResizeVolume};

/// How long a delete waits for the volume to be detached before it says that this goes on.
const DETACH: Duration = Duration::from_secs(30);

pub(super) fn group() -> OpenApiRouter<VolumeRoutes> {
    OpenApiRouter::new()
        .routes(routes!(create))
        .routes(routes!(attach))
        .routes(routes!(attach_root))
        .routes(routes!(detach))
        .routes(routes!(resize))
        .routes(routes!(delete))
        .routes(routes!(pardon))
}

impl VolumeRoutes {
    /// Asks for a change, and answers it as it is then.
    pub(super) async fn change(&self, asked: Asked, disk: DiskRef, change: VolumeChange) -> Answer<Accepted> {
        let Asked { id, wait } = asked;
        let begun = self.service.submit(VolumeRequest { id, disk, change }).await?;
        self.waited(begun, wait).await
    }

    /// The same of a volume that is known.
    pub(super) async fn change_volume(
        &self,
        asked: Asked,
        id: &VolumeId,
        change: VolumeChange,
    ) -> Answer<Accepted> {
        let volume = self.volume(id).await?;
        self.change(asked, volume.disk, change).await
    }

    /// The operation once it has ended, or after so long.
    pub(super) async fn waited(&self, operation: Operation, wait: Duration) -> Answer<Accepted> {
        let now = match wait.is_zero() {
            true => operation,
            false => self.service.wait(&operation.spec.id, wait).await?,
        };
        Ok(Accepted(self.operation_row(&now).await?))
    }
}

/// Make the volume of a disk that has none
#[utoipa::path(post, path = "/volumes", tag = "volumes", params(Wait, Key), request_body = CreateVolume,
    responses((status = 200, body = OperationRow), (status = 202, body = OperationRow), Problems))]
async fn create(
    State(routes): State<VolumeRoutes>,
    asked: Asked,
    Body(wanted): Body<CreateVolume>,
) -> Answer<Accepted> {
    let CreateVolume { context_id, disk_key, name, size, provisioning } = wanted;
    let disk = DiskRef { context: context_id, key: disk_key };
    let known = routes.inventory.disk(&disk).await?.ok_or_else(|| {
        Error::new(ErrorKind::NotFound, "find disk", &disk)
            .because("there is no record of it; POST /vms makes one")
    })?;
    let capacity = size.unwrap_or(known.capacity);
    if capacity < known.capacity {
        let reason = format!("the disk has {} bytes; its volume needs as many", known.capacity);
        return Err(Error::new(ErrorKind::Invalid, "create volume for", &disk).because(reason).into());
    }
    let name = match name {
        Some(name) => name,
        None => {
            let vm = routes.inventory.context(&disk.context).await?;
            vm.map_or_else(|| disk.key.to_string(), |vm| format!("{}-{}", vm.name, disk.key))
        }
    };
    routes.change(asked, disk, VolumeChange::Create { name, capacity, provisioning }).await
}

/// Make a volume visible to this daemon as a local device
#[utoipa::path(post, path = "/volumes/{volume_id}/attach", tag = "volumes",
    params(("volume_id" = String, Path), Wait, Key), request_body = Option<AttachVolume>,
    responses((status = 200, body = OperationRow), (status = 202, body = OperationRow), Problems))]
async fn attach(
    State(routes): State<VolumeRoutes>,
    InPath(id): InPath<VolumeId>,
    asked: Asked,
    OptionalBody(wanted): OptionalBody<AttachVolume>,
) -> Answer<Accepted> {
    match wanted.vm_id {
        Some(vm) if routes.machine.as_ref() != Some(&vm) => Err(elsewhere(&id)),
        _ => routes.change_volume(asked, &id, VolumeChange::Attach).await,
    }
}

/// Attach a volume as the first disk of another virtual machine. That is a step of a failover, and not done alone
#[utoipa::path(post, path = "/volumes/{volume_id}/attach-root", tag = "volumes",
    params(("volume_id" = String, Path)), request_body = Option<AttachVolume>, responses(Problems))]
async fn attach_root(
    State(routes): State<VolumeRoutes>,
    InPath(id): InPath<VolumeId>,
    OptionalBody(_): OptionalBody<AttachVolume>,
) -> Answer<Accepted> {
    let volume = routes.volume(&id).await?;
    Err(elsewhere(&volume.id))
}

fn elsewhere(id: &VolumeId) -> crate::server::problem::Refused {
    Error::new(ErrorKind::Unsupported, "attach volume", id)
        .because("volumes are attached to the machine of this daemon only; another one gets all disks of a VM by a failover")
        .into()
}

/// Take the local device of a volume away
#[utoipa::path(post, path = "/volumes/{volume_id}/detach", tag = "volumes",
    params(("volume_id" = String, Path), Wait, Key),
    responses((status = 200, body = OperationRow), (status = 202, body = OperationRow), Problems))]
async fn detach(
    State(routes): State<VolumeRoutes>,
    InPath(id): InPath<VolumeId>,
    asked: Asked,
) -> Answer<Accepted> {
    routes.change_volume(asked, &id, VolumeChange::Detach).await
}

/// Make a volume larger
#[utoipa::path(post, path = "/volumes/{volume_id}/resize", tag = "volumes",
    params(("volume_id" = String, Path), Wait, Key), request_body = ResizeVolume,
    responses((status = 200, body = OperationRow), (status = 202, body = OperationRow), Problems))]
async fn resize(
    State(routes): State<VolumeRoutes>,
    InPath(id): InPath<VolumeId>,
    asked: Asked,
    Body(wanted): Body<ResizeVolume>,
) -> Answer<Accepted> {
    routes.change_volume(asked, &id, VolumeChange::Resize { capacity: wanted.size }).await
}

/// Delete a volume; it is detached first. One that ever held an epoch is condemned: its operation is `pending` until it is due, and can
/// be called off meanwhile
#[utoipa::path(delete, path = "/volumes/{volume_id}", tag = "volumes",
    params(("volume_id" = String, Path), Wait, Key),
    responses((status = 200, body = OperationRow), (status = 202, body = OperationRow), Problems))]
async fn delete(
    State(routes): State<VolumeRoutes>,
    InPath(id): InPath<VolumeId>,
    asked: Asked,
) -> Answer<Accepted> {
    let volume = routes.volume(&id).await?;
    let is_known = routes.services.volumes.operation(&asked.id).await?.is_some();
    if volume.status == VolumeStatus::Attached && !is_known {
        let request = VolumeRequest {
            id: OperationId::mint(),
            disk: volume.disk.clone(),
            change: VolumeChange::Detach,
        };
        let begun = routes.service.submit(request).await?;
        detached(routes.service.wait(&begun.spec.id, DETACH).await?)?;
    }
    routes.change(asked, volume.disk, VolumeChange::Delete).await
}

/// A volume is deleted once it is known to be detached.
fn detached(operation: Operation) -> Answer<()> {
    let id = operation.spec.id.clone();
    let refused = |kind, reason| Err(Error::new(kind, "detach volume by", &id).because(reason).into());
    match operation.status {
        OperationStatus::Completed => Ok(()),
        OperationStatus::Pending | OperationStatus::Executing => {
            refused(ErrorKind::Busy, "it goes on; ask for the deletion again when it has ended".to_owned())
        }
        OperationStatus::Failed | OperationStatus::Cancelled => {
            refused(ErrorKind::Conflict, operation.error.unwrap_or_default())
        }
    }
}

/// Call off the deletion of a condemned volume
#[utoipa::path(post, path = "/volumes/{volume_id}/pardon", tag = "volumes", params(("volume_id" = String, Path)),
    request_body = Option<CallOff>, responses((status = 200, body = OperationRow), Problems))]
async fn pardon(
    State(routes): State<VolumeRoutes>,
    InPath(id): InPath<VolumeId>,
    OptionalBody(wanted): OptionalBody<CallOff>,
) -> Answer<Accepted> {
    let volume = routes.volume(&id).await?;
    let condemned = routes.services.volumes.unfinished(&volume.disk).await?.ok_or_else(|| {
        Error::new(ErrorKind::Conflict, "call off the deletion of volume", &id).because("it is not condemned")
    })?;
    let reason = wanted.reason.unwrap_or_else(|| "called off by an operator".to_owned());
    let pardoned = routes.service.pardon(&condemned.spec.id, &reason).await?;
    Ok(Accepted(routes.operation_row(&pardoned).await?))
}
