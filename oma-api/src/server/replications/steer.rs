//! What is wanted of replications.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use oma_core::state::{JobKind, Wanted};
use oma_core::{Error, ErrorKind, JobId, WorkerId};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::submit::{JobKey, NewJob};
use super::{ReplicationRoutes, recorded};
use crate::ReplicationRow;
use crate::server::audit::Asker;
use crate::server::extract::InPath;
use crate::server::problem::Answer;
use crate::server::problems::Problems;
use crate::server::to_its_end::to_its_end;

pub(super) fn group() -> OpenApiRouter<ReplicationRoutes> {
    OpenApiRouter::new()
        .routes(routes!(pause))
        .routes(routes!(resume))
        .routes(routes!(retry))
        .routes(routes!(delete))
}

pub(super) fn of_agents() -> OpenApiRouter<ReplicationRoutes> {
    OpenApiRouter::new().routes(routes!(cancel))
}

impl ReplicationRoutes {
    async fn want(&self, id: &JobId, wanted: Wanted) -> Answer<(StatusCode, Json<ReplicationRow>)> {
        let known = self.job(id).await?;
        let may_be = match known.kind {
            JobKind::Replicate => true,
            JobKind::Revert => wanted == Wanted::Cancel,
            JobKind::Operate => false,
        };
        if !may_be {
            return Err(Error::new(ErrorKind::Conflict, "steer replication", id)
                .because(format!("this job is there to {}; it ends by itself", known.kind))
                .into());
        }
        let job = self.replicator.services().jobs.want(id, wanted).await?;
        tracing::info!(job = %id, %wanted, "is wanted");
        match (&self.worker, wanted) {
            (Some(worker), Wanted::Cancel) => worker.end(id),
            _ => self.nudge(),
        }
        Ok((StatusCode::ACCEPTED, Json(self.row(&job).await?)))
    }
}

/// End a replication without its epoch. Whoever drives it stops, and ends it; no change id moves, what is copied stays, and the next
/// replication goes on from there. The volumes of a revert that is ended hold nothing that is believed
#[utoipa::path(post, path = "/replications/{job_id}/cancel", tag = "replications", params(("job_id" = String, Path)),
    responses((status = 202, body = ReplicationRow), Problems))]
async fn cancel(
    State(routes): State<ReplicationRoutes>,
    asker: Asker,
    InPath(id): InPath<JobId>,
) -> Answer<(StatusCode, Json<ReplicationRow>)> {
    routes.visible(&asker.principal, &id).await?;
    routes.want(&id, Wanted::Cancel).await
}

/// Let a replication rest until it is resumed. Whoever drives it stops
#[utoipa::path(post, path = "/replications/{job_id}/pause", tag = "replications", params(("job_id" = String, Path)),
    responses((status = 202, body = ReplicationRow), Problems))]
async fn pause(
    State(routes): State<ReplicationRoutes>,
    InPath(id): InPath<JobId>,
) -> Answer<(StatusCode, Json<ReplicationRow>)> {
    routes.want(&id, Wanted::Pause).await
}

/// Let a replication that rests go on
#[utoipa::path(post, path = "/replications/{job_id}/resume", tag = "replications", params(("job_id" = String, Path)),
    responses((status = 202, body = ReplicationRow), Problems))]
async fn resume(
    State(routes): State<ReplicationRoutes>,
    InPath(id): InPath<JobId>,
) -> Answer<(StatusCode, Json<ReplicationRow>)> {
    routes.want(&id, Wanted::Run).await
}

/// Attempt a replication at once that waits for its next attempt; of one that has ended, begin another one that is asked
/// for the same
#[utoipa::path(post, path = "/replications/{job_id}/retry", tag = "replications",
    params(("job_id" = String, Path), JobKey),
    responses((status = 201, body = ReplicationRow, headers(("Location" = String, description = "Where the job is found"))), Problems))]
async fn retry(
    State(routes): State<ReplicationRoutes>,
    asker: Asker,
    InPath(id): InPath<JobId>,
    NewJob(new): NewJob,
) -> Answer<Response> {
    let job = routes.job(&id).await?;
    if job.kind == JobKind::Revert {
        return Err(Error::new(ErrorKind::Conflict, "retry replication", &id)
            .because("it goes back to a recovery point; POST /points/{point_id}/revert does so again")
            .into());
    }
    let request = recorded(&job)?;
    if job.status.is_terminal() {
        if new == id {
            return Err(Error::new(ErrorKind::Conflict, "retry replication", &id)
                .because("the key is the one of this job; give the next one another")
                .into());
        }
        if request.push.is_some() {
            return Err(Error::new(ErrorKind::Conflict, "retry replication", &id)
                .because("an agent pushed it, from a point in time that may be gone; the agent begins the next one")
                .into());
        }
        let again = routes.submit(&asker.principal, new, &request).await?;
        return routes.created(&again).await;
    }
    let refused =
        |reason| Err(Error::new(ErrorKind::Conflict, "retry replication", &id).because(reason).into());
    if job.wanted != Wanted::Run {
        return refused("it rests or is to end; resume it first");
    }
    if job.owner.is_some() {
        return refused("it is being driven; wait for the end of this attempt");
    }
    routes.hasten(&id).await?;
    let job = routes.job(&id).await?;
    routes.created(&job).await
}

impl ReplicationRoutes {
    /// Cuts the wait of a job short.
    async fn hasten(&self, id: &JobId) -> Answer<()> {
        let invalid =
            |error| Error::new(ErrorKind::Internal, "name", "who cuts a wait short").with_source(error);
        // Another one than the worker of this process, which may have claimed the job meanwhile: its lease stays its own.
        let clerk = WorkerId::parse(format!("{}-clerk", self.replicator.worker())).map_err(invalid)?;
        let (jobs, lease) = (Arc::clone(&self.replicator.services().jobs), self.replicator.config().lease);
        let job = id.clone();
        let hastened = to_its_end("retry replication", id, async move {
            let claimed = jobs.claim(&job, &clerk, lease).await?;
            jobs.release(&claimed).await
        });
        hastened.await?;
        self.nudge();
        Ok(())
    }
}

/// Remove the record of a replication that has ended. Volumes, change ids and recovery points stay
#[utoipa::path(delete, path = "/replications/{job_id}", tag = "replications", params(("job_id" = String, Path)),
    responses((status = 204), Problems))]
async fn delete(State(routes): State<ReplicationRoutes>, InPath(id): InPath<JobId>) -> Answer<StatusCode> {
    routes.replicator.services().jobs.delete(&id).await?;
    Ok(StatusCode::NO_CONTENT)
}
