//! Replications are recorded, and VMs discovered.

use axum::Json;
use axum::extract::{FromRequestParts, State};
use axum::http::request::Parts;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use oma_core::engine::{ReplicateRequest, Submission};
use oma_core::record::ReplicationJob;
use oma_core::{Clock as _, Error, ErrorKind, JobId, SystemClock};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::{ReplicationRoutes, opened};
use crate::server::PREFIX;
use crate::server::asked::Problems;
use crate::server::extract::Body;
use crate::server::problem::{Answer, Refused};
use crate::{DiscoverVm, ReplicationRequest, ReplicationRow, VmRow};

pub(super) fn group() -> OpenApiRouter<ReplicationRoutes> {
    OpenApiRouter::new().routes(routes!(create)).routes(routes!(discover))
}

/// The id that a job is recorded with.
#[derive(Debug)]
pub(super) struct NewJob(pub(super) JobId);

/// The header of it, for the document.
#[derive(utoipa::IntoParams)]
#[into_params(parameter_in = Header)]
#[expect(dead_code, reason = "read by `NewJob`; here for the document")]
pub(super) struct JobKey {
    /// 1 to 64 characters: the same request again with the same key answers the same job, `job-KEY`, and nothing is begun a second time.
    /// Without it an id is minted.
    #[param(rename = "Idempotency-Key", pattern = "^[A-Za-z0-9._-]{1,64}$")]
    idempotency_key: Option<String>,
}

impl<S: Send + Sync> FromRequestParts<S> for NewJob {
    type Rejection = Refused;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Refused> {
        let Some(value) = parts.headers.get("idempotency-key") else {
            return Ok(Self(JobId::mint(SystemClock.now())));
        };
        let known = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        let key = value.to_str().ok().filter(|key| (1..=64).contains(&key.len()) && key.chars().all(known));
        let invalid = || Error::new(ErrorKind::Invalid, "read header", "Idempotency-Key");
        let key = key.ok_or_else(|| invalid().because("it has 1 to 64 of A-Z a-z 0-9 . _ -"))?;
        let id = JobId::parse(format!("job-{}", key.strip_prefix("job-").unwrap_or(key)));
        Ok(Self(id.map_err(|error| invalid().with_source(error))?))
    }
}

/// Bring every disk of a VM to a new epoch. Its source is asked for its disks; the copy begins when a worker takes the job up
#[utoipa::path(post, path = "/replications", tag = "replications", params(JobKey), request_body = ReplicationRequest,
    responses((status = 201, body = ReplicationRow, headers(("Location" = String, description = "Where the job is found"))), Problems))]
async fn create(
    State(routes): State<ReplicationRoutes>,
    NewJob(id): NewJob,
    Body(asked): Body<ReplicationRequest>,
) -> Answer<Response> {
    let job = routes.submit(id, &asked).await?;
    routes.created(&job).await
}

/// Record a VM and its disks as their source describes them now, without a job
#[utoipa::path(post, path = "/vms/discover", tag = "vms", request_body = DiscoverVm,
    responses((status = 200, body = VmRow), Problems))]
async fn discover(
    State(routes): State<ReplicationRoutes>,
    Body(asked): Body<DiscoverVm>,
) -> Answer<(StatusCode, Json<VmRow>)> {
    let DiscoverVm { vm_path, source, rename } = asked;
    let replicator = routes.replicator.reading(opened(&routes.sources, &vm_path, &source).await?);
    let path = if rename { oma_core::engine::PathPolicy::Rename } else { oma_core::engine::PathPolicy::Keep };
    let vm = replicator.discover_vm(&ReplicateRequest { path, ..ReplicateRequest::new(vm_path) }).await?;
    Ok((StatusCode::OK, Json(VmRow::from(&vm))))
}

impl ReplicationRoutes {
    /// Records a job. It goes on when whoever asked goes away (L18).
    pub(super) async fn submit(&self, id: JobId, asked: &ReplicationRequest) -> Answer<ReplicationJob> {
        let request = serde_json::to_string(asked)
            .map_err(|error| Error::new(ErrorKind::Internal, "write", "a request").with_source(error))?;
        let replicator = match self.replicator.services().jobs.get(&id).await? {
            // The same call again: nothing is asked of the source.
            Some(_) => self.replicator.clone(),
            None => self.replicator.reading(opened(&self.sources, &asked.vm_path, &asked.source).await?),
        };
        let (priority, target, wanted) = (asked.priority, asked.target.clone(), asked.wanted());
        let submission = Submission { job: id, request, priority, target };
        let submitted = tokio::spawn(async move { replicator.submit(&wanted, submission).await });
        let job = submitted.await.unwrap_or_else(|lost| {
            Err(Error::new(ErrorKind::Internal, "record", "a replication").with_source(lost))
        })?;
        self.nudge();
        Ok(job)
    }

    pub(super) async fn created(&self, job: &ReplicationJob) -> Answer<Response> {
        let mut response = (StatusCode::CREATED, Json(self.row(job).await?)).into_response();
        if let Ok(place) = HeaderValue::try_from(format!("{PREFIX}/replications/{}", job.id)) {
            response.headers_mut().insert(header::LOCATION, place);
        }
        Ok(response)
    }
}
