//! What agents that push ask and say: see [`oma_core::engine::Pushes`].

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use oma_core::engine::{PushDiskState, PushFailure, PushReport};
use oma_core::record::ReplicationJob;
use oma_core::state::Role;
use oma_core::{DiskKey, Endpoint, Error, ErrorKind, Fence, JobId};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::{ReplicationRoutes, recorded};
use crate::server::access::Principal;
use crate::server::audit::Asker;
use crate::server::extract::{Body, InPath};
use crate::server::origin::Origin;
use crate::server::problem::Answer;
use crate::server::problems::Problems;
use crate::{
    ChangeIdAnswer, FinishedExtents, PushDiskRow, PushFailed, PushRequest, PushRow, PushedDisk,
    RecordChangeId, ReplicationRow,
};

/// Extents of one word.
const MOST_EXTENTS: usize = 1000;
/// How the names begin of where agents' VMs come from.
const OF_AGENT: &str = "agent-";
/// Characters of a reason.
const LONGEST_REASON: usize = 1000;

pub(super) fn group() -> OpenApiRouter<ReplicationRoutes> {
    OpenApiRouter::new().routes(routes!(look)).routes(routes!(finished)).routes(routes!(failed))
}

/// Where the VMs of a principal come from: nobody pushes into those of another agent.
pub(super) fn endpoint(principal: &Principal, asked: Option<&PushRequest>) -> Answer<Endpoint> {
    let named = match (principal.role, &principal.account) {
        (Role::Agent, Some(account)) => format!("{OF_AGENT}{}", account.user),
        (Role::Agent, None) => {
            let error = Error::new(ErrorKind::PermissionDenied, "push as", &principal.name);
            return Err(error
                .because("it has no account; ask for a token of a user of the role agent")
                .into());
        }
        (Role::Viewer | Role::Operator | Role::Admin, _) => {
            let named = asked.and_then(|asked| asked.endpoint.as_ref());
            return match named {
                Some(named) => Ok(named.clone()),
                None => parse("push"),
            };
        }
    };
    parse(&named)
}

fn parse(text: &str) -> Answer<Endpoint> {
    let failed = |error| Error::new(ErrorKind::Internal, "name", "where VMs come from").with_source(error);
    Ok(Endpoint::parse(text).map_err(failed)?)
}

/// What an agent has to know to push: where each disk is written, what has to be right there, and which change id it reports then
#[utoipa::path(get, path = "/replications/{job_id}/push", tag = "push", params(("job_id" = String, Path)),
    responses((status = 200, body = PushRow), Problems))]
async fn look(
    State(routes): State<ReplicationRoutes>,
    asker: Asker,
    origin: Origin,
    InPath(id): InPath<JobId>,
) -> Answer<Json<PushRow>> {
    let job = routes.visible(&asker.principal, &id).await?;
    let push = pushed(&job)?;
    let pushes = &routes.replicator.services().pushes;
    let state =
        if routes.is_pusher(&asker.principal, &job).await? { pushes.look(&id) } else { pushes.state(&id) };
    let state = state.filter(|_| !job.status.is_terminal());
    // Whoever knows the name, and has a certificate, writes.
    let is_told = asker.principal.role != Role::Viewer;
    let disks = match &state {
        None => push.disks.iter().map(PushedDisk::row).collect::<Result<_, _>>()?,
        Some(state) => {
            let row = |disk: &PushDiskState| -> Result<_, Error> {
                let uri = is_told.then(|| routes.exports.uri(&disk.export, origin)).transpose()?;
                Ok(PushDiskRow::new(disk, uri))
            };
            state.disks.iter().map(row).collect::<Result<_, _>>()?
        }
    };
    let ready = state.is_some();
    let (fence, quiet_seconds) = state.map(|state| (state.fence.0, state.quiet.as_secs())).unzip();
    let ReplicationJob { id, status, epoch, error, .. } = job;
    Ok(Json(PushRow { job_id: id, status, epoch, ready, fence, quiet_seconds, error, disks }))
}

/// Tell that extents of a disk hold what the point in time has. They are made durable before the answer, and whoever goes on with the job
/// need not copy them again
#[utoipa::path(post, path = "/replications/{job_id}/disks/{disk_key}/finished", tag = "push",
    params(("job_id" = String, Path), ("disk_key" = String, Path)), request_body = FinishedExtents,
    responses((status = 204), Problems))]
async fn finished(
    State(routes): State<ReplicationRoutes>,
    asker: Asker,
    InPath((id, key)): InPath<(JobId, DiskKey)>,
    Body(FinishedExtents { fence, extents }): Body<FinishedExtents>,
) -> Answer<StatusCode> {
    pushed(&routes.visible(&asker.principal, &id).await?)?;
    if extents.count() > MOST_EXTENTS {
        return Err(Error::new(ErrorKind::Invalid, "finish extents of", &key)
            .because(format!("{} are more than {MOST_EXTENTS}; tell of them in parts", extents.count()))
            .into());
    }
    routes.replicator.services().pushes.finished(&id, Fence(fence), key, extents).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Give a replication up: it ends as failed, what was finished stays, and the next one goes on from there
#[utoipa::path(post, path = "/replications/{job_id}/failed", tag = "push", params(("job_id" = String, Path)),
    request_body = PushFailed, responses((status = 202, body = ReplicationRow), Problems))]
async fn failed(
    State(routes): State<ReplicationRoutes>,
    asker: Asker,
    InPath(id): InPath<JobId>,
    Body(PushFailed { fence, reason, mixed }): Body<PushFailed>,
) -> Answer<(StatusCode, Json<ReplicationRow>)> {
    pushed(&routes.visible(&asker.principal, &id).await?)?;
    if !(1..=LONGEST_REASON).contains(&reason.chars().count()) || reason.contains(char::is_control) {
        return Err(Error::new(ErrorKind::Invalid, "give up", &id)
            .because("a reason has 1 to 1000 characters, none of which controls anything")
            .into());
    }
    routes.replicator.services().pushes.fail(&id, Fence(fence), PushFailure { reason, mixed }).await?;
    let job = routes.visible(&asker.principal, &id).await?;
    Ok((StatusCode::ACCEPTED, Json(routes.row(&job).await?)))
}

/// What was recorded with a job that an agent pushes.
fn pushed(job: &ReplicationJob) -> Answer<PushRequest> {
    let not_pushed = || {
        Error::new(ErrorKind::Conflict, "push", &job.id)
            .because("its source is read here; no agent pushes it")
    };
    let recorded = recorded(job).ok().and_then(|recorded| recorded.push);
    Ok(recorded.ok_or_else(not_pushed)?)
}

impl ReplicationRoutes {
    /// Whether it is who pushes a job that it sees. An agent sees its own; those of no agent are pushed by a tool of who looks after all.
    async fn is_pusher(&self, principal: &Principal, job: &ReplicationJob) -> Answer<bool> {
        match principal.role {
            Role::Agent => Ok(true),
            Role::Viewer => Ok(false),
            Role::Operator | Role::Admin => {
                let vm = self.replicator.services().inventory.context(&job.context).await?;
                Ok(vm.is_some_and(|vm| !vm.identity.endpoint.as_str().starts_with(OF_AGENT)))
            }
        }
    }

    /// Tells a live job that an agent pushes of a report; `None` when the report is to be compared with what is recorded.
    pub(super) async fn report(
        &self,
        job: &ReplicationJob,
        told: &RecordChangeId,
    ) -> Answer<Option<ChangeIdAnswer>> {
        let Some(request) = recorded(job).ok().filter(|request| request.push.is_some()) else {
            return Ok(None);
        };
        if job.status.is_terminal() {
            return Ok(None);
        }
        let key = match (&told.disk_id, job.disks.as_slice()) {
            (Some(key), _) | (None, [key]) => key.clone(),
            (None, _) => {
                return Err(Error::new(ErrorKind::Invalid, "complete a disk of", &job.id)
                    .because("it has several; name one with disk_id")
                    .into());
            }
        };
        let fence = told.fence.map(Fence).ok_or_else(|| {
            Error::new(ErrorKind::Invalid, "complete a disk of", &job.id)
                .because("say which attempt it was copied in: `fence`, as the job's /push told it")
        })?;
        let (change_id, previous) = (told.change_id.clone(), told.previous_change_id.clone());
        let report = PushReport { key: key.clone(), change_id: change_id.clone(), previous };
        self.replicator.services().pushes.report(&job.id, fence, report).await?;
        let message = format!(
            "{key} is durable; {change_id} is recorded with those of all disks, once all are reported: ask for the job"
        );
        Ok(Some(ChangeIdAnswer { vm_path: request.vm_path, disk_id: key, change_id: None, message }))
    }
}
