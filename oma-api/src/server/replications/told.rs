//! What is told of replications: how a verification ended, and what the next one will cost.

use axum::Json;
use axum::extract::State;
use oma_core::seal::SealedReport;
use oma_core::{Clock as _, ContextId, Error, ErrorKind, JobId, SystemClock};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::ReplicationRoutes;
use crate::ForecastReport;
use crate::server::extract::InPath;
use crate::server::points::unknown_vm;
use crate::server::problem::Answer;
use crate::server::problems::Problems;

pub(super) fn group() -> OpenApiRouter<ReplicationRoutes> {
    OpenApiRouter::new().routes(routes!(report)).routes(routes!(forecast))
}

/// The verification report of a replication and who vouches for it, exactly as it was sealed: `oma check-report` proves it
#[utoipa::path(get, path = "/replications/{job_id}/report", tag = "replications", params(("job_id" = String, Path)),
    responses((status = 200, body = serde_json::Value), Problems))]
async fn report(
    State(routes): State<ReplicationRoutes>,
    InPath(id): InPath<JobId>,
) -> Answer<Json<SealedReport>> {
    // A report outlives nothing: it goes with the record of its job.
    routes.job(&id).await?;
    let found = routes.replicator.services().reports.report_of(&id).await?;
    Ok(Json(found.ok_or_else(|| {
        Error::new(ErrorKind::NotFound, "read the report of", &id).because(
            "the job has no verification report: it was run with --verify none, or did not come as far",
        )
    })?))
}

/// What the next epoch of a VM will cost, told from those before
#[utoipa::path(get, path = "/vms/{context_id}/forecast", tag = "vms", params(("context_id" = String, Path)),
    responses((status = 200, body = ForecastReport), Problems))]
async fn forecast(
    State(routes): State<ReplicationRoutes>,
    InPath(id): InPath<ContextId>,
) -> Answer<Json<ForecastReport>> {
    let services = routes.replicator.services();
    let vm = services.inventory.context(&id).await?.ok_or_else(|| unknown_vm(&id))?;
    let found = services.forecast(&id, SystemClock.now()).await?;
    Ok(Json(found.map(|found| ForecastReport::new(&vm.path, &found)).ok_or_else(|| {
        Error::new(ErrorKind::NotFound, "forecast", &vm.path).because(ForecastReport::TOO_EARLY)
    })?))
}
