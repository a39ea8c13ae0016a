//! Replications are recorded, and VMs discovered.

use std::sync::Arc;

use axum::Json;
use axum::extract::{FromRequestParts, State};
use axum::http::request::Parts;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use oma_core::engine::{ReplicateRequest, Submission};
use oma_core::record::{ReplicationJob, SourceIdentity};
use oma_core::state::Role;
use oma_core::traits::DiskSource;
use oma_core::{Clock as _, Error, ErrorKind, InstanceUuid, JobId, SystemClock, VmPath};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::agents::{AgentAsker, taken};
use super::push::endpoint;
use super::{ReplicationRoutes, opened};
use crate::server::PREFIX;
use crate::server::access::Principal;
use crate::server::asked::Repeat;
use crate::server::audit::Asker;
use crate::server::extract::Body;
use crate::server::problem::{Answer, Refused};
use crate::server::problems::Problems;
use crate::server::to_its_end::to_its_end;
use crate::{DiscoverVm, PushRequest, ReplicationRequest, ReplicationRow, VmRow};

pub(super) fn group() -> OpenApiRouter<ReplicationRoutes> {
    OpenApiRouter::new().routes(routes!(discover))
}

pub(super) fn of_agents() -> OpenApiRouter<ReplicationRoutes> {
    OpenApiRouter::new().routes(routes!(create))
}

/// The id that a job is recorded with.
#[derive(Debug)]
pub(in crate::server) struct NewJob(pub(in crate::server) JobId);

/// The header of it, for the document.
#[derive(utoipa::IntoParams)]
#[into_params(parameter_in = Header)]
#[expect(dead_code, reason = "read by `NewJob`; here for the document")]
pub(in crate::server) struct JobKey {
    /// 1 to 64 characters: the same request again with the same key answers the same job, `job-KEY`, and nothing is begun a second time.
    /// Without it an id is minted.
    #[param(rename = "Idempotency-Key", pattern = "^[A-Za-z0-9._-]{1,64}$")]
    idempotency_key: Option<String>,
}

impl<S: Send + Sync> FromRequestParts<S> for NewJob {
    type Rejection = Refused;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refused> {
        let Repeat(Some(key)) = Repeat::from_request_parts(parts, state).await? else {
            return Ok(Self(JobId::mint(SystemClock.now())));
        };
        let id = JobId::parse(format!("job-{}", key.strip_prefix("job-").unwrap_or(&key)));
        Ok(Self(id.map_err(|error| {
            Error::new(ErrorKind::Invalid, "read header", "Idempotency-Key").with_source(error)
        })?))
    }
}

/// Bring every disk of a VM to a new epoch. Its source is asked for its disks; the copy begins when a worker takes the job up. With `push`
/// in place of a source an agent copies: GET /replications/{job_id}/push tells where to. Agents push only
#[utoipa::path(post, path = "/replications", tag = "replications", params(JobKey), request_body = ReplicationRequest,
    responses((status = 201, body = ReplicationRow, headers(("Location" = String, description = "Where the job is found"))), Problems))]
async fn create(
    State(routes): State<ReplicationRoutes>,
    asker: Asker,
    NewJob(id): NewJob,
    Body(asked): Body<ReplicationRequest>,
) -> Answer<Response> {
    let job = routes.submit(&asker.principal, id, &asked).await?;
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

/// Who a VM is that is pushed.
fn identity(principal: &Principal, path: &VmPath, push: &PushRequest) -> Answer<SourceIdentity> {
    let instance_uuid = push.instance_uuid.clone().unwrap_or_else(|| InstanceUuid::from_path(path));
    Ok(SourceIdentity { instance_uuid, endpoint: endpoint(principal, Some(push))? })
}

impl ReplicationRoutes {
    /// Records a job. It goes on when whoever asked goes away (L18).
    pub(super) async fn submit(
        &self,
        principal: &Principal,
        id: JobId,
        asked: &ReplicationRequest,
    ) -> Answer<ReplicationJob> {
        self.check(principal, &id, asked).await?;
        let request = serde_json::to_string(asked)
            .map_err(|error| Error::new(ErrorKind::Internal, "write", "a request").with_source(error))?;
        let replicator = match self.replicator.services().jobs.get(&id).await? {
            // The same call again: nothing is asked of the source.
            Some(_) => self.replicator.clone(),
            None => self.replicator.reading(self.source(principal, asked).await?),
        };
        let (priority, target, wanted) = (asked.priority, asked.target.clone(), asked.wanted());
        let submission = Submission { job: id, request, priority, target };
        let agent = self.agent(principal, asked)?;
        let submitted = to_its_end("record", "a replication", async move {
            match agent {
                Some(agent) => agent.submit(&replicator, &wanted, submission).await,
                None => replicator.submit(&wanted, submission).await,
            }
        });
        let job = submitted.await?;
        self.nudge();
        Ok(job)
    }

    /// Who asks, if that is an agent with an account.
    fn agent(&self, principal: &Principal, asked: &ReplicationRequest) -> Answer<Option<AgentAsker>> {
        let account = principal.account.as_ref().filter(|_| principal.role == Role::Agent);
        let Some((account, accounts)) = account.zip(self.accounts.clone()) else { return Ok(None) };
        let Some(push) = &asked.push else { return Ok(None) };
        let (vm, token) = (identity(principal, &asked.vm_path, push)?, account.token.clone());
        Ok(Some(AgentAsker { vm, token, accounts, bound: self.agent_jobs.clone() }))
    }

    /// Refuses what can never be driven, and what is another's.
    async fn check(&self, principal: &Principal, id: &JobId, asked: &ReplicationRequest) -> Answer<()> {
        let is_agent = principal.role == Role::Agent;
        let refused =
            |kind, reason| Err(Error::new(kind, "replicate", &asked.vm_path).because(reason).into());
        match &asked.push {
            None if is_agent => {
                return refused(
                    ErrorKind::PermissionDenied,
                    "an agent pushes what it reads itself; name `push` in place of a source",
                );
            }
            None => return Ok(()),
            Some(_) if !asked.source.is_nothing() => {
                return refused(ErrorKind::Invalid, "name its source or `push`, not both");
            }
            Some(push) if is_agent && push.endpoint.is_some() => {
                return refused(
                    ErrorKind::PermissionDenied,
                    "where an agent's VMs come from is its user's; leave `endpoint` out",
                );
            }
            Some(_) => {}
        }
        if !is_agent {
            return Ok(());
        }
        if asked.priority != 0 || asked.target.is_some() {
            return refused(
                ErrorKind::PermissionDenied,
                "which jobs come first, and where they go, is an operator's to say; leave `priority` and `target` out",
            );
        }
        if self.accounts.is_none() {
            return refused(
                ErrorKind::Unsupported,
                "no accounts are kept here, so no agent could see its job",
            );
        }
        // An id of another's job is an id that is taken, whatever was asked for with it.
        let services = self.replicator.services();
        let Some(known) = services.jobs.get(id).await? else { return Ok(()) };
        let vm = services.inventory.context(&known.context).await?;
        if vm.is_some_and(|vm| endpoint(principal, None).is_ok_and(|own| own == vm.identity.endpoint)) {
            return Ok(());
        }
        Err(taken(&asked.vm_path).into())
    }

    /// Where the disks are read, or who describes them.
    async fn source(&self, principal: &Principal, asked: &ReplicationRequest) -> Answer<Arc<dyn DiskSource>> {
        let Some(push) = &asked.push else {
            return Ok(opened(&self.sources, &asked.vm_path, &asked.source).await?);
        };
        Ok(push.source(&asked.vm_path, identity(principal, &asked.vm_path, push)?)?)
    }

    pub(super) async fn created(&self, job: &ReplicationJob) -> Answer<Response> {
        let mut response = (StatusCode::CREATED, Json(self.row(job).await?)).into_response();
        if let Ok(place) = HeaderValue::try_from(format!("{PREFIX}/replications/{}", job.id)) {
            response.headers_mut().insert(header::LOCATION, place);
        }
        Ok(response)
    }
}
