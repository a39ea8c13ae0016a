//! What was asked for of volumes, and what became of it.

use axum::extract::State;
use axum::{Extension, Json};
use oma_core::record::{Operation, OperationFilter};
use oma_core::state::{OperationKind, OperationStatus};
use oma_core::{ContextId, Error, ErrorKind, OperationId, VolumeId};
use serde::Deserialize;
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::VolumeRoutes;
use crate::server::access::{Principal, Role};
use crate::server::asked::{Accepted, Wait};
use crate::server::extract::{Body, InPath, InQuery, OptionalBody};
use crate::server::paging::{Part, Sorted, never_answered, page};
use crate::server::problem::Answer;
use crate::server::problems::Problems;
use crate::{CallOff, OperationRow, Page};

pub(super) fn group() -> OpenApiRouter<VolumeRoutes> {
    OpenApiRouter::new()
        .routes(routes!(list))
        .routes(routes!(get))
        .routes(routes!(pardon))
        .routes(routes!(abandon))
}

/// Which operations.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct Wanted {
    /// Only those of this kind.
    #[serde(rename = "type")]
    #[param(value_type = Option<String>, rename = "type")]
    kind: Option<OperationKind>,
    /// Only those that stand so.
    #[param(value_type = Option<String>)]
    status: Option<OperationStatus>,
    /// Only those that were asked for or made this volume.
    #[param(value_type = Option<String>)]
    volume_id: Option<VolumeId>,
    /// Only those of this VM, by the id of its record.
    #[param(value_type = Option<String>)]
    context_id: Option<ContextId>,
}

/// List operations in the order in which they were recorded
#[utoipa::path(get, path = "/operations", tag = "operations", params(Wanted, Sorted, Part),
    responses((status = 200, body = Page<OperationRow>), Problems))]
async fn list(
    State(routes): State<VolumeRoutes>,
    InQuery(wanted): InQuery<Wanted>,
    InQuery(sorted): InQuery<Sorted>,
    InQuery(part): InQuery<Part>,
) -> Answer<Json<Page<OperationRow>>> {
    let Wanted { kind, status, volume_id, context_id } = wanted;
    let volumes = &routes.service.services().volumes;
    let after = match part.after_in::<OperationId>(&sorted)? {
        None => None,
        Some(id) => {
            let last = volumes.operation(&id).await?.ok_or_else(|| never_answered(&id))?;
            Some(last.place())
        }
    };
    let filter = OperationFilter {
        context: context_id,
        volume: volume_id,
        kind,
        status,
        order: sorted.order,
        after,
        ..OperationFilter::default()
    };
    let all = volumes.operations(filter);
    let (operations, next) = part.of(all, |operation| sorted.next(&operation.spec.id)).await?;
    let vms = routes.vms(operations.iter().map(|operation| &operation.spec.disk.context)).await?;
    let row = |operation: &Operation| OperationRow::new(vms.get(&operation.spec.disk.context), operation);
    let rows = operations.iter().map(row).collect();
    Ok(Json(page(rows, next)))
}

/// An operation, at once or when it has ended
#[utoipa::path(get, path = "/operations/{operation_id}", tag = "operations",
    params(("operation_id" = String, Path), Wait),
    responses((status = 200, body = OperationRow), (status = 202, body = OperationRow), Problems))]
async fn get(
    State(routes): State<VolumeRoutes>,
    InPath(id): InPath<OperationId>,
    InQuery(wait): InQuery<Wait>,
) -> Answer<Accepted> {
    let operation = known(&routes, &id).await?;
    let limit = wait.limit()?;
    routes.waited(operation, limit).await
}

/// Call off a deletion that is not due yet. Called off already, it is answered as it is
#[utoipa::path(post, path = "/operations/{operation_id}/pardon", tag = "operations",
    params(("operation_id" = String, Path)), request_body = Option<CallOff>,
    responses((status = 200, body = OperationRow), Problems))]
async fn pardon(
    State(routes): State<VolumeRoutes>,
    InPath(id): InPath<OperationId>,
    OptionalBody(wanted): OptionalBody<CallOff>,
) -> Answer<Accepted> {
    routes.pardon(&id, wanted).await
}

/// End an operation in doubt whose backend never answers again. It counts as failed, and nothing is believed of its volume. Needs an
/// admin
#[utoipa::path(post, path = "/operations/{operation_id}/abandon", tag = "operations",
    params(("operation_id" = String, Path)), request_body = CallOff,
    responses((status = 200, body = OperationRow), Problems))]
async fn abandon(
    State(routes): State<VolumeRoutes>,
    Extension(principal): Extension<Principal>,
    InPath(id): InPath<OperationId>,
    Body(wanted): Body<CallOff>,
) -> Answer<Accepted> {
    principal.needs(Role::Admin, "abandon operation", &id)?;
    let abandoned = routes.service.abandon(&id, wanted.reason.as_deref().unwrap_or_default()).await?;
    Ok(Accepted(routes.operation_row(&abandoned).await?))
}

impl VolumeRoutes {
    pub(super) async fn pardon(&self, id: &OperationId, wanted: CallOff) -> Answer<Accepted> {
        let reason = wanted.reason.unwrap_or_else(|| "called off by an operator".to_owned());
        let pardoned = self.service.pardon(id, &reason).await?;
        Ok(Accepted(self.operation_row(&pardoned).await?))
    }
}

pub(super) async fn known(routes: &VolumeRoutes, id: &OperationId) -> Answer<Operation> {
    let found = routes.service.services().volumes.operation(id).await?;
    Ok(found.ok_or_else(|| {
        Error::new(ErrorKind::NotFound, "find operation", id)
            .because("there is no record of it; GET /operations lists what there is")
    })?)
}
