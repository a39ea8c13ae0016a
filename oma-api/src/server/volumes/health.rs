//! Whether the daemon can work, and figures for a collector.

use std::collections::BTreeMap;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures_util::TryStreamExt;
use oma_core::record::{Operation, OperationFilter};
use oma_core::state::OperationStatus;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::VolumeRoutes;
use crate::metrics::{family, sample};
use crate::server::asked::Problems;
use crate::server::problem::Answer;

/// How long the database may take to say that it is there.
const LIMIT: Duration = Duration::from_secs(5);

/// For everybody.
pub(super) fn open() -> OpenApiRouter<VolumeRoutes> {
    OpenApiRouter::new().routes(routes!(health))
}

/// For principals.
pub(super) fn group() -> OpenApiRouter<VolumeRoutes> {
    OpenApiRouter::new().routes(routes!(metrics))
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

/// Figures in Prometheus' text format
#[utoipa::path(get, path = "/metrics", tag = "daemon",
    responses((status = 200, body = String, content_type = "text/plain"), Problems))]
async fn metrics(State(routes): State<VolumeRoutes>) -> Answer<Response> {
    let mut volumes: BTreeMap<&'static str, u64> = BTreeMap::new();
    let mut all = routes.service.services().volumes.volumes(None);
    while let Some(volume) = all.try_next().await? {
        *volumes.entry(volume.status.as_str()).or_default() += 1;
    }
    let mut text = String::new();
    family(&mut text, "oma_volumes", "Volumes in the records, by how they stand");
    for (status, count) in volumes {
        sample(&mut text, "oma_volumes", &format!("status=\"{status}\""), count);
    }
    let executing = unended(&routes, OperationStatus::Executing).await?;
    let pending = unended(&routes, OperationStatus::Pending).await?;
    family(&mut text, "oma_volume_operations", "Operations that have not ended, by how they stand");
    for (status, operations) in
        [(OperationStatus::Executing, &executing), (OperationStatus::Pending, &pending)]
    {
        sample(&mut text, "oma_volume_operations", &format!("status=\"{status}\""), operations.len());
    }
    let in_doubt = executing.iter().filter(|operation| operation.error.is_some());
    family(
        &mut text,
        "oma_volume_operations_in_doubt",
        "Operations of which nobody knows yet what the backend did",
    );
    sample(&mut text, "oma_volume_operations_in_doubt", "", in_doubt.count());
    family(
        &mut text,
        "oma_volume_operation_oldest_timestamp_seconds",
        "When the oldest executing operation was recorded",
    );
    if let Some(oldest) = executing.iter().map(|operation| operation.created_at).min() {
        sample(&mut text, "oma_volume_operation_oldest_timestamp_seconds", "", i64::from(oldest) / 1000);
    }
    let kind = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    Ok(([(header::CONTENT_TYPE, kind)], text).into_response())
}

async fn unended(routes: &VolumeRoutes, status: OperationStatus) -> Answer<Vec<Operation>> {
    let filter = OperationFilter { status: Some(status), ..OperationFilter::default() };
    Ok(routes.service.services().volumes.operations(filter).try_collect().await?)
}
