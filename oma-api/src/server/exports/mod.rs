//! What is served: volumes for reading, until an operator withdraws them or the daemon ends, and the exports of jobs.

mod jobs;

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use axum::Json;
use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use oma_core::record::{VolumeRecord, VolumeTag};
use oma_core::state::ExportStatus;
use oma_core::traits::{Access, VolumeBackend, VolumeRegistry};
use oma_core::{Error, ErrorKind, ExportName, InstanceId, Result, VolumeId};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::asked::{Repeat, RepeatHeader};
use super::audit::Asker;
use super::conditional::tagged_by;
use super::extract::{Body, InPath, InQuery};
use super::figures::{Figure, FigurePage};
use super::origin::Origin;
use super::paging::{Part, page};
use super::problem::Answer;
use super::problems::Problems;
use super::publish::{Published, Publisher, Purpose};
use super::to_its_end::to_its_end;
use super::{Api, PREFIX};
use crate::{CreateExport, ExportRow, Page};

pub use self::jobs::JobExports;

/// What the routes of exports work with.
#[derive(Clone, Debug)]
pub struct ExportRoutes {
    /// The volumes.
    pub backend: Arc<dyn VolumeBackend>,
    /// Their records.
    pub registry: Arc<dyn VolumeRegistry>,
    /// This deployment.
    pub instance: InstanceId,
    /// Serves them.
    pub publisher: Publisher,
    /// The exports of jobs, where jobs are driven.
    pub jobs: Option<JobExports>,
}

impl Api {
    /// Volumes of this deployment served for reading.
    #[must_use]
    pub fn exports(self, routes: ExportRoutes) -> Self {
        self.figures.look_up(Served(routes.publisher.clone()));
        let group = OpenApiRouter::new().routes(routes!(create, list)).routes(routes!(get, withdraw));
        self.with(group.with_state(routes))
    }
}

/// What is served for reading.
#[derive(Debug)]
struct Served(Publisher);

#[async_trait]
impl Figure for Served {
    async fn tell(&self, page: &FigurePage) -> Result<()> {
        let published = self.0.of_operators();
        let (mut connections, mut bytes) = (0, 0);
        for one in &published {
            let moved = self.0.statistics(one).await?;
            connections += moved.connections;
            bytes += moved.bytes_read;
        }
        let exports = u64::try_from(published.len()).unwrap_or(u64::MAX);
        page.count("oma_served_exports", "Volumes served for reading", exports)?;
        page.count("oma_served_export_connections", "Connections of their clients", connections)?;
        page.count(
            "oma_served_export_bytes_read",
            "Bytes that were read of them since they are served",
            bytes,
        )
    }
}

impl ExportRoutes {
    async fn record(&self, id: &VolumeId) -> Result<VolumeRecord> {
        let unknown = || {
            Error::new(ErrorKind::NotFound, "export volume", id)
                .because("there is no record of it; GET /volumes lists what there is")
        };
        self.registry.volume(id).await?.ok_or_else(unknown)
    }

    fn find(&self, name: &ExportName) -> Option<Arc<Published>> {
        self.publisher.of_operators().into_iter().find(|one| one.name == *name)
    }

    async fn publish(&self, id: VolumeId, key: Option<String>) -> Result<Arc<Published>> {
        let VolumeRecord { disk, generation, .. } = self.record(&id).await?;
        let tag = VolumeTag { instance: self.instance.clone(), disk, generation };
        let device = self.backend.open(&id, &tag, Access::ReadOnly).await?;
        self.publisher.publish(id, device, Purpose::Operator(key)).await
    }

    /// The export of a request with this key; it is made when there is none. It goes on when whoever asked goes away (L18): the same
    /// request finds it then.
    async fn publish_once(&self, id: VolumeId, key: String) -> Result<Arc<Published>> {
        let (routes, volume) = (self.clone(), id.clone());
        to_its_end("export volume", volume, async move {
            let _turn = routes.publisher.turn(&key).await;
            while let Some(known) =
                routes.publisher.of_operators().into_iter().find(|one| one.is_of_key(&key))
            {
                if known.volume != id {
                    let reason = format!(
                        "by this Idempotency-Key volume {} is served; give another one",
                        known.volume
                    );
                    return Err(Error::new(ErrorKind::AlreadyExists, "export volume", id).because(reason));
                }
                if !known.is_let_go() {
                    return Ok(known);
                }
                known.closed().await;
            }
            routes.publish(id, Some(key)).await
        })
        .await
    }

    async fn row(&self, published: &Published, asker: Origin) -> Result<ExportRow> {
        let moved = self.publisher.statistics(published).await?;
        Ok(ExportRow {
            export_name: published.name.clone(),
            uri: Some(self.publisher.uri(&published.name, asker)?),
            volume_id: published.volume.clone(),
            job_id: None,
            status: if published.is_let_go() { ExportStatus::Draining } else { ExportStatus::Running },
            read_only: Some(published.access == Access::ReadOnly),
            capacity_bytes: Some(published.capacity),
            connections: Some(moved.connections),
            requests: Some(moved.requests),
            errors: Some(moved.errors),
            bytes_read: Some(moved.bytes_read),
            bytes_written: Some(moved.bytes_written),
        })
    }
}

/// Serves an attached volume for reading
#[utoipa::path(post, path = "/exports", tag = "exports", params(RepeatHeader), request_body = CreateExport, responses(
    (status = 201, body = ExportRow, headers(("Location" = String, description = "Where the export is found"))), Problems))]
async fn create(
    State(routes): State<ExportRoutes>,
    asker: Origin,
    Repeat(key): Repeat,
    Body(asked): Body<CreateExport>,
) -> Answer<Response> {
    if !asked.read_only {
        let reason = "a volume is written under a job's lease only; export it with `read_only: true`";
        return Err(Error::new(ErrorKind::Unsupported, "export volume", asked.volume_id)
            .because(reason)
            .into());
    }
    let published = match key {
        None => routes.publish(asked.volume_id, None).await?,
        Some(key) => routes.publish_once(asked.volume_id, key).await?,
    };
    let row = routes.row(&published, asker).await?;
    let place = HeaderValue::try_from(format!("{PREFIX}/exports/{}", row.export_name));
    let mut response = (StatusCode::CREATED, Json(row)).into_response();
    if let Ok(place) = place {
        response.headers_mut().insert(header::LOCATION, place);
    }
    Ok(response)
}

/// What is served, by name: what operators serve at this daemon, and for jobs. Of what agents write a viewer is told nothing
#[utoipa::path(get, path = "/exports", tag = "exports", params(Part), responses((status = 200, body = Page<ExportRow>), Problems))]
async fn list(
    State(routes): State<ExportRoutes>,
    by: Asker,
    asker: Origin,
    InQuery(part): InQuery<Part>,
) -> Answer<Json<Page<ExportRow>>> {
    let after = part.after::<ExportName>()?;
    let mut rows = match &routes.jobs {
        None => BTreeMap::new(),
        Some(jobs) => jobs.seen(&by.principal, &routes.publisher, asker).await?,
    };
    for published in routes.publisher.of_operators() {
        rows.insert(published.name.clone(), routes.row(&published, asker).await?);
    }
    let behind = rows.into_values().filter(|row| after.as_ref().is_none_or(|after| row.export_name > *after));
    let enough = usize::try_from(part.enough()).unwrap_or(usize::MAX);
    let (rows, next) = part.cut(behind.take(enough).collect(), |row| row.export_name.to_string());
    Ok(Json(page(rows, next)))
}

/// An export, and what went through it
#[utoipa::path(get, path = "/exports/{name}", tag = "exports", params(("name" = String, Path, description = "Name of the export")),
    responses((status = 200, body = ExportRow), Problems))]
async fn get(
    State(routes): State<ExportRoutes>,
    by: Asker,
    asker: Origin,
    InPath(name): InPath<ExportName>,
) -> Answer<Response> {
    let row = match (routes.find(&name), &routes.jobs) {
        (Some(published), _) => routes.row(&published, asker).await?,
        (None, None) => return Err(unknown(&name).into()),
        (None, Some(jobs)) => jobs.one(&by.principal, &routes.publisher, asker, &name).await?,
    };
    // Its name is given once, and nothing but its state and figures changes.
    let state = format!("{name} {}", row.status);
    Ok(tagged_by(&state, row))
}

/// Ends an export: what clients asked for is answered, then they are disconnected and the volume is closed. One that an agent writes is
/// revoked: its clients are cut off at once, its job ends as failed, and nothing is believed of what was written
#[utoipa::path(delete, path = "/exports/{name}", tag = "exports", params(("name" = String, Path, description = "Name of the export")),
    responses((status = 204, description = "It is not served any more, and its volume is closed or its job about to end"), Problems))]
async fn withdraw(
    State(routes): State<ExportRoutes>,
    InPath(name): InPath<ExportName>,
) -> Answer<StatusCode> {
    match (routes.find(&name), routes.jobs) {
        (Some(published), _) => {
            published.let_go();
            published.closed().await;
        }
        (None, None) => return Err(unknown(&name).into()),
        (None, Some(jobs)) => {
            to_its_end("revoke export", name.clone(), async move { jobs.revoke(&name).await }).await?;
        }
    }
    Ok(StatusCode::NO_CONTENT)
}

fn unknown(name: &ExportName) -> Error {
    Error::new(ErrorKind::NotFound, "find export", name)
        .because("no volume is served under this name; GET /exports lists what is")
}
