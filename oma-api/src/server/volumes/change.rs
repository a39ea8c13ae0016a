//! Volumes are changed: each change is an operation of the service, which goes on when whoever asked goes away (L18).

use std::time::Duration;

use axum::extract::State;
use futures_util::TryStreamExt;
use oma_core::engine::{VolumeChange, VolumeRequest};
use oma_core::record::Operation;
use oma_core::state::{OperationKind, OperationStatus, VolumeStatus};
use oma_core::{DiskRef, Error, ErrorKind, OperationId, Retry, VolumeId};
use serde::Deserialize;
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::VolumeRoutes;
use crate::server::asked::{Accepted, Asked, Key, Wait};
use crate::server::extract::{Body, InPath, InQuery, OptionalBody};
use crate::server::problem::Answer;
use crate::server::problems::Problems;
use crate::server::to_its_end::to_its_end;
use crate::{AttachVolume, CallOff, CreateVolume, OperationRow, ResizeVolume, WhenAttached};

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
    pub(super) async fn change(&self, asked: Asked, request: VolumeRequest) -> Answer<Accepted> {
        let begun = self.service.submit(request).await?;
        tracing::info!(operation = %begun.spec.id, kind = %begun.spec.kind, principal = asked.principal.name, "recorded");
        self.waited(begun, asked.wait).await
    }

    /// The same of a volume that is known, or was when the operation of this id was recorded.
    pub(super) async fn change_volume(
        &self,
        asked: Asked,
        id: &VolumeId,
        change: VolumeChange,
    ) -> Answer<Accepted> {
        let disk = match self.service.services().volumes.operation(&asked.id).await? {
            Some(known) if known.spec.volume.as_ref() == Some(id) => known.spec.disk,
            _ => self.volume(id).await?.disk,
        };
        let request = VolumeRequest { id: asked.id.clone(), disk, volume: Some(id.clone()), change };
        self.change(asked, request).await
    }

    /// The operation once it has ended, or as it is after so long or when the daemon is to end.
    pub(super) async fn waited(&self, operation: Operation, wait: Duration) -> Answer<Accepted> {
        if wait.is_zero() {
            return Ok(Accepted(self.operation_row(&operation).await?));
        }
        let id = &operation.spec.id;
        let now = tokio::select! {
            waited = self.service.wait(id, wait) => waited?,
            () = self.stop.cancelled() => operation,
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
    if let Some(Operation { spec, .. }) = routes.service.services().volumes.operation(&asked.id).await? {
        // Whatever was not said is as it was then.
        let change = VolumeChange::Create {
            name: name.or(spec.name).unwrap_or_default(),
            capacity: size.or(spec.capacity).unwrap_or_default(),
            provisioning,
        };
        let request = VolumeRequest { id: asked.id.clone(), disk, volume: None, change };
        return routes.change(asked, request).await;
    }
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
    let change = VolumeChange::Create { name, capacity, provisioning };
    let request = VolumeRequest { id: asked.id.clone(), disk, volume: None, change };
    routes.change(asked, request).await
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

/// How a volume is deleted.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct Deletion {
    /// What is done when the volume is attached: it is detached first (`detach`), or the deletion is refused (`refuse`). A key that
    /// is known answers its operation either way.
    #[serde(default)]
    #[param(inline)]
    attached: WhenAttached,
}

/// Delete a volume. One that is attached is detached first, for which the answer waits up to 30 s, unless `attached` says otherwise. One
/// that ever held an epoch is condemned: its operation is `pending` until it is due, and can be called off meanwhile
#[utoipa::path(delete, path = "/volumes/{volume_id}", tag = "volumes",
    params(("volume_id" = String, Path), Deletion, Wait, Key),
    responses((status = 200, body = OperationRow), (status = 202, body = OperationRow), Problems))]
async fn delete(
    State(routes): State<VolumeRoutes>,
    InPath(id): InPath<VolumeId>,
    InQuery(Deletion { attached }): InQuery<Deletion>,
    asked: Asked,
) -> Answer<Accepted> {
    to_its_end("delete", "volume", async move {
        let detaches = attached == WhenAttached::Detach;
        if detaches && routes.service.services().volumes.operation(&asked.id).await?.is_none() {
            routes.detach_first(&id).await?;
        }
        routes.change_volume(asked, &id, VolumeChange::Delete).await
    })
    .await
}

impl VolumeRoutes {
    /// Nothing is changed when the deletion would be refused for a snapshot.
    async fn detach_first(&self, id: &VolumeId) -> Answer<()> {
        let volume = self.volume(id).await?;
        if volume.status != VolumeStatus::Attached {
            return Ok(());
        }
        if let Some(snapshot) = self.service.services().backend.snapshots(id).try_next().await? {
            let reason = format!("it has snapshot {}; delete that first", snapshot.spec.id);
            return Err(Error::new(ErrorKind::Conflict, "delete volume", id).because(reason).into());
        }
        let begun = match self.service.services().volumes.unfinished(&volume.disk).await? {
            Some(under_way) if under_way.spec.kind == OperationKind::Detach => under_way,
            _ => {
                let (id, volume_id) = (OperationId::mint(), Some(id.clone()));
                let (disk, change) = (volume.disk, VolumeChange::Detach);
                self.service.submit(VolumeRequest { id, disk, volume: volume_id, change }).await?
            }
        };
        detached(&self.service.wait(&begun.spec.id, DETACH).await?)
    }
}

/// A volume is deleted once it is known to be detached.
fn detached(operation: &Operation) -> Answer<()> {
    let id = &operation.spec.id;
    let error = |kind| Error::new(kind, "detach volume by", id);
    match operation.status {
        OperationStatus::Completed => Ok(()),
        OperationStatus::Pending | OperationStatus::Executing => {
            let busy = error(ErrorKind::Busy).with_retry(Retry::Later);
            Err(busy.because("it goes on; ask for the deletion again when it has ended").into())
        }
        OperationStatus::Failed | OperationStatus::Cancelled => {
            Err(error(ErrorKind::Conflict).because(operation.error.clone().unwrap_or_default()).into())
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
    let condemned = routes.service.services().volumes.unfinished(&volume.disk).await?.ok_or_else(|| {
        Error::new(ErrorKind::Conflict, "call off the deletion of volume", &id).because("it is not condemned")
    })?;
    routes.pardon(&condemned.spec.id, wanted).await
}
