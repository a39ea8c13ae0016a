//! Records and backend are compared, and what is provably ours is repaired by a plan.

use axum::Json;
use axum::extract::State;
use oma_core::engine::{ReconcilePlan, Reconciled, Reconciliation};
use serde::Serialize;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::VolumeRoutes;
use crate::server::asked::Problems;
use crate::server::extract::Body;
use crate::server::problem::Answer;

pub(super) fn group() -> OpenApiRouter<VolumeRoutes> {
    OpenApiRouter::new().routes(routes!(compare, execute))
}

/// What was found, and what can be repaired of it.
#[derive(Debug, Serialize)]
struct Compared {
    found: Reconciliation,
    plan: ReconcilePlan,
}

/// Compare records and backend in both directions. Nothing is changed: `plan` is what can be repaired
#[utoipa::path(get, path = "/reconciliation", tag = "reconciliation",
    responses((status = 200, body = Object), Problems))]
async fn compare(State(routes): State<VolumeRoutes>) -> Answer<Json<Compared>> {
    let found = routes.reconciler.compare(None).await?;
    let plan = found.plan();
    Ok(Json(Compared { found, plan }))
}

/// Do the steps of a plan, each if the world still is as the plan saw it, then compare again
#[utoipa::path(post, path = "/reconciliation", tag = "reconciliation", request_body = Object,
    responses((status = 200, body = Object), Problems))]
async fn execute(
    State(routes): State<VolumeRoutes>,
    Body(plan): Body<ReconcilePlan>,
) -> Answer<Json<Reconciled>> {
    Ok(Json(routes.reconciler.execute(&plan).await?))
}
