//! Whether the daemon can work, and how volumes stand.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use futures_util::TryStreamExt;
use oma_core::Result;
use oma_core::record::{Operation, OperationFilter, VolumeFilter};
use oma_core::state::OperationStatus;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::VolumeRoutes;
use crate::server::figures::{Figure, FigurePage};

/// How long the database may take to say that it is there.
const LIMIT: Duration = Duration::from_secs(5);

/// For everybody.
pub(super) fn open() -> OpenApiRouter<VolumeRoutes> {
    OpenApiRouter::new().routes(routes!(health))
}

/// Whether the daemon can work.
#[derive(Debug, Serialize, ToSchema)]
struct Health {
    /// `ok`, or `unavailable` while the database does not answer.
    status: &'static str,
    /// The daemon's version.
    version: &'static str,
}

/// Whether the daemon can work. Needs no token
#[utoipa::path(get, path = "/health", tag = "daemon", security(()),
    responses((status = 200, body = Health), (status = 503, body = Health)))]
async fn health(State(routes): State<VolumeRoutes>) -> (StatusCode, Json<Health>) {
    let version = env!("CARGO_PKG_VERSION");
    match tokio::time::timeout(LIMIT, routes.service.services().volumes.instance()).await {
        Ok(Ok(_)) => (StatusCode::OK, Json(Health { status: "ok", version })),
        Ok(Err(error)) => {
            tracing::warn!(error = error.chain(), "the database does not answer");
            (StatusCode::SERVICE_UNAVAILABLE, Json(Health { status: "unavailable", version }))
        }
        Err(_) => {
            tracing::warn!(limit = ?LIMIT, "the database does not answer in time");
            (StatusCode::SERVICE_UNAVAILABLE, Json(Health { status: "unavailable", version }))
        }
    }
}

/// How volumes and operations stand, and whether the database answers.
#[derive(Debug)]
pub(in crate::server) struct Standing(pub(in crate::server) VolumeRoutes);

#[async_trait]
impl Figure for Standing {
    async fn tell(&self, page: &FigurePage) -> Result<()> {
        let Self(routes) = self;
        let begun = Instant::now();
        let answer = routes.service.services().volumes.instance().await;
        page.count("oma_database_up", "Whether the database answers", answer.is_ok().into())?;
        let seconds = begun.elapsed().as_secs_f64();
        page.measure("oma_database_answer_seconds", "How long its answer to a small question took", seconds)?;
        answer?;
        let mut volumes: BTreeMap<&'static str, u64> = BTreeMap::new();
        let mut all = routes.service.services().volumes.volumes(VolumeFilter::default());
        while let Some(volume) = all.try_next().await? {
            *volumes.entry(volume.status.as_str()).or_default() += 1;
        }
        page.counts("oma_volumes", "Volumes in the records, by how they stand", "status", volumes)?;
        let executing = unended(routes, OperationStatus::Executing).await?;
        let pending = unended(routes, OperationStatus::Pending).await?;
        let of = |operations: &[Operation]| u64::try_from(operations.len()).unwrap_or(u64::MAX);
        let unended = [("executing", of(&executing)), ("pending", of(&pending))];
        let help = "Operations that have not ended, by how they stand";
        page.counts("oma_volume_operations", help, "status", unended)?;
        let in_doubt = executing.iter().filter(|operation| operation.error.is_some()).count();
        let help = "Operations of which nobody knows yet what the backend did";
        page.count("oma_volume_operations_in_doubt", help, u64::try_from(in_doubt).unwrap_or(u64::MAX))?;
        let Some(oldest) = executing.iter().map(|operation| operation.created_at).min() else {
            return Ok(());
        };
        let help = "When the oldest executing operation was recorded";
        let oldest = u64::try_from(oldest.as_millis() / 1000).unwrap_or_default();
        page.count("oma_volume_operation_oldest_timestamp_seconds", help, oldest)
    }
}

async fn unended(routes: &VolumeRoutes, status: OperationStatus) -> Result<Vec<Operation>> {
    let filter = OperationFilter { status: Some(status), ..OperationFilter::default() };
    routes.service.services().volumes.operations(filter).try_collect().await
}
