//! What was asked for of volumes, and what became of it.

use axum::Json;
use axum::extract::State;
use oma_core::record::{Operation, OperationFilter};
use oma_core::state::{OperationKind, OperationStatus};
use oma_core::{ContextId, Error, ErrorKind, OperationId, VolumeId};
use serde::Deserialize;
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::VolumeRoutes;
use super::paging::{Part, page};
use crate::server::asked::{Accepted, Problems, Wait};
use crate::server::extract::{InPath, InQuery};
use crate::server::problem::Answer;
use crate::{OperationRow, Page};

pub(super) fn group() -> OpenApiRouter<VolumeRoutes> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(get))
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

/// List operations, newest first
#[utoipa::path(get, path = "/operations", tag = "operations", params(Wanted, Part),
    responses((status = 200, body = Page<OperationRow>), Problems))]
async fn list(
    State(routes): State<VolumeRoutes>,
    InQuery(wanted): InQuery<Wanted>,
    InQuery(part): InQuery<Part>,
) -> Answer<Json<Page<OperationRow>>> {
    let Wanted { kind, status, volume_id, context_id } = wanted;
    let filter = OperationFilter { context: context_id, volume: volume_id, kind, status };
    let all = routes.services.volumes.operations(filter);
    let (operations, next) = part.of(all, |operation| operation.spec.id.to_string()).await?;
    let mut rows = Vec::with_capacity(operations.len());
    for operation in &operations {
        rows.push(routes.operation_row(operation).await?);
    }
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

pub(super) async fn known(routes: &VolumeRoutes, id: &OperationId) -> Answer<Operation> {
    let found = routes.services.volumes.operation(id).await?;
    Ok(found.ok_or_else(|| {
        Error::new(ErrorKind::NotFound, "find operation", id)
            .because("there is no record of it; GET /operations lists what there is")
    })?)
}
