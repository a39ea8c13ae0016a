//! What failed and cancelled jobs left is removed: by a plan, which is read before it is executed.

use axum::extract::{FromRequestParts, State};
use axum::http::request::Parts;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use oma_core::engine::{CancellationToken, CleanupRequest, CleanupService};
use oma_core::record::{Cleanup, CleanupFilter};
use oma_core::state::CleanupStatus;
use oma_core::{CleanupId, Error, ErrorKind, JobId};
use serde::Deserialize;
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::access::{Principal, Role};
use super::asked::{Wait, repeat_key};
use super::extract::{Body, InPath, InQuery};
use super::paging::{Part, Sorted, never_answered, page};
use super::problem::{Answer, Refused};
use super::problems::Problems;
use super::to_its_end::to_its_end;
use super::{Api, PREFIX};
use crate::{CleanupRow, Page, PlanCleanup};

/// What the routes of cleanups work with.
#[derive(Clone, Debug)]
pub struct CleanupRoutes {
    /// Plans cleanups and carries them out.
    pub service: CleanupService,
    /// Cancelled when the daemon is to end: nobody is kept waiting any longer.
    pub stop: CancellationToken,
}

impl Api {
    /// With cleanups.
    #[must_use]
    pub fn cleanups(self, routes: CleanupRoutes) -> Self {
        let group =
            OpenApiRouter::new().routes(routes!(plan, list)).routes(routes!(get)).routes(routes!(execute));
        self.with(group.with_state(routes))
    }
}

/// The id that a plan is recorded with.
#[derive(Debug)]
struct NewCleanup(CleanupId);

/// The header of it, for the document.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
#[expect(dead_code, reason = "read by `NewCleanup`; here for the document")]
struct CleanupKey {
    /// 1 to 48 characters: the same request again with the same key answers the same plan, `cleanup-KEY`. Without it an id is minted.
    #[param(rename = "Idempotency-Key", pattern = "^[A-Za-z0-9._-]{1,48}$")]
    idempotency_key: Option<String>,
}

impl<S: Send + Sync> FromRequestParts<S> for NewCleanup {
    type Rejection = Refused;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Refused> {
        let Some(key) = repeat_key(&parts.headers, 48)? else { return Ok(Self(CleanupId::mint())) };
        let id = CleanupId::parse(format!("cleanup-{}", key.strip_prefix("cleanup-").unwrap_or(&key)));
        Ok(Self(id.map_err(|error| {
            Error::new(ErrorKind::Invalid, "read header", "Idempotency-Key").with_source(error)
        })?))
    }
}

/// Which cleanups.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct Which {
    /// Only those of this job.
    #[param(value_type = Option<String>)]
    job_id: Option<JobId>,
    /// Only those that stand so: `planned`, `executing`, `completed` or `refused`.
    #[param(value_type = Option<String>, pattern = "^(planned|executing|completed|refused)$")]
    status: Option<CleanupStatus>,
}

/// Plan the cleanup of a job that failed or was cancelled: what there is where, what would be done in which order, what stays and why.
/// Nothing else is done. A plan that names something to be done `first` cannot be executed
#[utoipa::path(post, path = "/cleanups", tag = "cleanups", params(CleanupKey), request_body = PlanCleanup,
    responses((status = 201, body = CleanupRow, headers(("Location" = String, description = "Where the plan is found"))), Problems))]
async fn plan(
    State(routes): State<CleanupRoutes>,
    NewCleanup(id): NewCleanup,
    Body(asked): Body<PlanCleanup>,
) -> Answer<Response> {
    let PlanCleanup { job_id, failover_job_id, volumes } = asked;
    let request = CleanupRequest { id, job: job_id, failover_job: failover_job_id, volumes };
    let planned = routes.service.plan(&request).await?;
    Ok(answered(StatusCode::CREATED, &planned))
}

/// List cleanups in the order in which they were recorded
#[utoipa::path(get, path = "/cleanups", tag = "cleanups", params(Which, Sorted, Part),
    responses((status = 200, body = Page<CleanupRow>), Problems))]
async fn list(
    State(routes): State<CleanupRoutes>,
    InQuery(which): InQuery<Which>,
    InQuery(sorted): InQuery<Sorted>,
    InQuery(part): InQuery<Part>,
) -> Answer<Json<Page<CleanupRow>>> {
    let after = part.after_in::<CleanupId>(&sorted)?;
    if let Some(id) = &after {
        routes.service.records().cleanup(id).await?.ok_or_else(|| never_answered(id))?;
    }
    let filter = CleanupFilter { job: which.job_id, status: which.status, order: sorted.order, after };
    let all = routes.service.records().cleanups(filter);
    let (found, next) = part.of(all, |cleanup| sorted.next(&cleanup.spec.id)).await?;
    Ok(Json(page(found.iter().map(CleanupRow::from).collect(), next)))
}

/// A cleanup, with each of its steps
#[utoipa::path(get, path = "/cleanups/{cleanup_id}", tag = "cleanups", params(("cleanup_id" = String, Path)),
    responses((status = 200, body = CleanupRow), Problems))]
async fn get(State(routes): State<CleanupRoutes>, InPath(id): InPath<CleanupId>) -> Answer<Json<CleanupRow>> {
    Ok(Json(CleanupRow::from(&routes.find(&id).await?)))
}

/// Execute exactly this plan, or refuse it when the world is not as it was. It goes on when whoever asked goes away, and after a restart. A
/// step that failed is tried again, now when this is asked for once more. 200 once it is completed, 202 while it goes on, also at the next
/// start of the daemon, 409 once it is refused, and 503 when the daemon ends before it is begun. Needs an admin
#[utoipa::path(post, path = "/cleanups/{cleanup_id}/execute", tag = "cleanups", params(("cleanup_id" = String, Path), Wait),
    responses((status = 200, body = CleanupRow), (status = 202, body = CleanupRow), Problems))]
async fn execute(
    State(routes): State<CleanupRoutes>,
    InPath(id): InPath<CleanupId>,
    Extension(principal): Extension<Principal>,
    InQuery(wait): InQuery<Wait>,
) -> Answer<Response> {
    principal.needs(Role::Admin, "execute", &id)?;
    let limit = wait.limit()?;
    routes.find(&id).await?;
    let (service, begun) = (routes.service.clone(), id.clone());
    to_its_end("execute cleanup", &id, async move { service.execute(&begun).await }).await?;
    let now = tokio::select! {
        biased;
        () = routes.stop.cancelled() => routes.find(&id).await?,
        now = routes.service.wait(&id, limit) => now?,
    };
    match now.status {
        CleanupStatus::Planned | CleanupStatus::Executing => Ok(answered(StatusCode::ACCEPTED, &now)),
        CleanupStatus::Completed => Ok(answered(StatusCode::OK, &now)),
        CleanupStatus::Refused => {
            let why = now.error.unwrap_or_default();
            let refused = Error::new(ErrorKind::Conflict, "execute cleanup", &id);
            Err(refused.because(format!("it was refused: {why}; make another plan")).into())
        }
    }
}

impl CleanupRoutes {
    async fn find(&self, id: &CleanupId) -> Answer<Cleanup> {
        let found = self.service.records().cleanup(id).await?;
        Ok(found.ok_or_else(|| {
            Error::new(ErrorKind::NotFound, "find cleanup", id)
                .because("there is no record of it; GET /cleanups lists what there is")
        })?)
    }
}

fn answered(status: StatusCode, cleanup: &Cleanup) -> Response {
    let mut response = (status, Json(CleanupRow::from(cleanup))).into_response();
    if let Ok(place) = HeaderValue::try_from(format!("{PREFIX}/cleanups/{}", cleanup.spec.id)) {
        response.headers_mut().insert(header::LOCATION, place);
    }
    response
}
