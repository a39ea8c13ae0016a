//! Recovery points: what there is, going back to one, and their end.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures_util::stream::BoxStream;
use futures_util::{StreamExt as _, TryStreamExt as _};
use oma_core::engine::{CancellationToken, PointService, Services};
use oma_core::record::{RecoveryPoint, ReplicationJob, VmContext};
use oma_core::{ContextId, Error, ErrorKind, RecoveryPointId, Result, VmPath};
use serde::Deserialize;
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::asked::Wait;
use super::audit::Asker;
use super::extract::{InPath, InQuery};
use super::paging::{Part, never_answered, page};
use super::problem::Answer;
use super::problems::Problems;
use super::replications::{JobKey, NewJob};
use super::{Api, PREFIX};
use crate::{Page, PointRow, ReplicationRow};

/// What the routes of recovery points work with.
#[derive(Clone, Debug)]
pub struct PointRoutes {
    /// Goes back to them, and deletes them.
    pub service: PointService,
    /// Cancelled when the daemon is to end: nobody is kept waiting any longer.
    pub stop: CancellationToken,
}

impl Api {
    /// With recovery points.
    #[must_use]
    pub fn points(self, routes: PointRoutes) -> Self {
        let group = OpenApiRouter::new()
            .routes(routes!(list))
            .routes(routes!(of_vm))
            .routes(routes!(get, delete))
            .routes(routes!(revert));
        self.with(group.with_state(routes))
    }
}

/// Which recovery points.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct Which {
    /// Only those of the VM that had this path when it was last discovered.
    #[param(value_type = Option<String>)]
    vm_path: Option<VmPath>,
}

/// A recovery point and its VM.
type Found = (Arc<VmContext>, RecoveryPoint);

/// List recovery points, VM by VM, of each those of the latest epoch first
#[utoipa::path(get, path = "/points", tag = "points", params(Which, Part),
    responses((status = 200, body = Page<PointRow>), Problems))]
async fn list(
    State(routes): State<PointRoutes>,
    InQuery(which): InQuery<Which>,
    InQuery(part): InQuery<Part>,
) -> Answer<Json<Page<PointRow>>> {
    let vm = match which.vm_path {
        None => None,
        Some(path) => {
            Some(routes.services().inventory.by_path(&path).await?.ok_or_else(|| unknown_vm(&path))?)
        }
    };
    Ok(Json(routes.listed(vm, &part).await?))
}

/// The recovery points of a VM, those of the latest epoch first
#[utoipa::path(get, path = "/vms/{context_id}/points", tag = "points", params(("context_id" = String, Path), Part),
    responses((status = 200, body = Page<PointRow>), Problems))]
async fn of_vm(
    State(routes): State<PointRoutes>,
    InPath(id): InPath<ContextId>,
    InQuery(part): InQuery<Part>,
) -> Answer<Json<Page<PointRow>>> {
    let vm = routes.services().inventory.context(&id).await?.ok_or_else(|| unknown_vm(&id))?;
    Ok(Json(routes.listed(Some(vm), &part).await?))
}

/// A recovery point
#[utoipa::path(get, path = "/points/{point_id}", tag = "points", params(("point_id" = String, Path)),
    responses((status = 200, body = PointRow), Problems))]
async fn get(
    State(routes): State<PointRoutes>,
    InPath(id): InPath<RecoveryPointId>,
) -> Answer<Json<PointRow>> {
    let point = routes.find(&id).await?;
    Ok(Json(routes.row(&point).await?))
}

/// Delete a recovery point with its snapshots. It goes on when whoever asked goes away: 204 once it is gone, 202 while its snapshots are
/// being deleted. When that fails, the point stays `deleting`; the same request again goes on, and so does the next replication of the VM.
/// 409 for the newest one that is ready while it may be needed
#[utoipa::path(delete, path = "/points/{point_id}", tag = "points", params(("point_id" = String, Path), Wait),
    responses((status = 202, body = PointRow), (status = 204), Problems))]
async fn delete(
    State(routes): State<PointRoutes>,
    InPath(id): InPath<RecoveryPointId>,
    asker: Asker,
    InQuery(wait): InQuery<Wait>,
) -> Answer<Response> {
    let limit = wait.limit()?;
    routes.find(&id).await?;
    let reason = format!("deleted by {}", asker.principal.name);
    let (service, of) = (routes.service.clone(), id.clone());
    let deleting = tokio::spawn(async move { service.delete(&of, &reason, limit).await });
    let left = tokio::select! {
        biased;
        () = routes.stop.cancelled() => routes.services().points.point(&id).await?,
        ended = deleting => {
            let lost = |lost| Err(Error::new(ErrorKind::Internal, "delete recovery point", &id).with_source(lost));
            ended.unwrap_or_else(lost)?
        }
    };
    match left {
        None => Ok(StatusCode::NO_CONTENT.into_response()),
        Some(point) => Ok((StatusCode::ACCEPTED, Json(routes.row(&point).await?)).into_response()),
    }
}

/// Give every volume of a VM the content that it had at a recovery point. A job of kind `revert` does so, which is answered: GET
/// /replications/{job_id} tells how it stands, and POST /replications/{job_id}/cancel ends it. It goes on when whoever asked goes away, and
/// after a restart. 202 while it goes on; 200 once the volumes hold that epoch, when the job is `cancelled`, for no epoch came of it, and its
/// `error` tells where it went back to. When it cannot, the volumes are recorded as inconsistent unless nothing was touched: revert again,
/// or replicate
#[utoipa::path(post, path = "/points/{point_id}/revert", tag = "points",
    params(("point_id" = String, Path), Wait, JobKey),
    responses((status = 200, body = ReplicationRow), (status = 202, body = ReplicationRow,
        headers(("Location" = String, description = "Where the job is found"))), Problems))]
async fn revert(
    State(routes): State<PointRoutes>,
    InPath(id): InPath<RecoveryPointId>,
    NewJob(job): NewJob,
    InQuery(wait): InQuery<Wait>,
) -> Answer<Response> {
    let limit = wait.limit()?;
    let (service, of, begun) = (routes.service.clone(), id.clone(), job.clone());
    // It is begun when whoever asked goes away (L18).
    let beginning = tokio::spawn(async move { service.revert(&begun, &of).await });
    let begun = beginning.await.unwrap_or_else(|lost| {
        Err(Error::new(ErrorKind::Internal, "revert to recovery point", &id).with_source(lost))
    })?;
    let now = tokio::select! {
        biased;
        () = routes.stop.cancelled() => begun,
        now = routes.service.wait(&job, limit) => now?,
    };
    routes.answered(&now).await
}

impl PointRoutes {
    fn services(&self) -> &Services {
        self.service.services()
    }

    async fn find(&self, id: &RecoveryPointId) -> Answer<RecoveryPoint> {
        let found = self.services().points.point(id).await?;
        Ok(found.ok_or_else(|| {
            Error::new(ErrorKind::NotFound, "find recovery point", id)
                .because("there is no such point; GET /points lists what there is")
        })?)
    }

    async fn row(&self, point: &RecoveryPoint) -> Answer<PointRow> {
        let vm = self.services().inventory.context(&point.context).await?;
        Ok(PointRow::new(vm.as_ref(), point))
    }

    /// Those of a VM, or of all.
    async fn listed(&self, vm: Option<VmContext>, part: &Part) -> Answer<Page<PointRow>> {
        let services = self.services();
        let after = part.after::<RecoveryPointId>()?;
        let last = match &after {
            None => None,
            Some(id) => Some(services.points.point(id).await?.ok_or_else(|| never_answered(id))?),
        };
        let all = match (vm, last) {
            (None, None) => points_of(services, services.inventory.contexts(None)),
            (None, Some(last)) => {
                let vm = services.inventory.context(&last.context).await?;
                let vm = vm.ok_or_else(|| never_answered(&last.id))?;
                let others = points_of(services, services.inventory.contexts(Some(&vm.id)));
                behind(points_of(services, one(vm)), last.id).chain(others).boxed()
            }
            (Some(vm), None) => points_of(services, one(vm)),
            (Some(vm), Some(last)) if last.context == vm.id => {
                behind(points_of(services, one(vm)), last.id).boxed()
            }
            (Some(_), Some(last)) => return Err(never_answered(&last.id).into()),
        };
        let (found, next) = part.of(all, |(_, point)| point.id.to_string()).await?;
        Ok(page(found.iter().map(|(vm, point)| PointRow::new(Some(vm), point)).collect(), next))
    }

    async fn answered(&self, job: &ReplicationJob) -> Answer<Response> {
        let vm = self.services().inventory.context(&job.context).await?;
        let status = if job.status.is_terminal() { StatusCode::OK } else { StatusCode::ACCEPTED };
        let mut response = (status, Json(ReplicationRow::new(vm.as_ref(), job))).into_response();
        if let Ok(place) = HeaderValue::try_from(format!("{PREFIX}/replications/{}", job.id)) {
            response.headers_mut().insert(header::LOCATION, place);
        }
        Ok(response)
    }
}

fn one(vm: VmContext) -> BoxStream<'static, Result<VmContext>> {
    futures_util::stream::iter([Ok(vm)]).boxed()
}

/// The points of these VMs, of each those of the latest epoch first.
fn points_of<'a>(
    services: &'a Services,
    vms: BoxStream<'a, Result<VmContext>>,
) -> BoxStream<'a, Result<Found>> {
    let of_one = move |vm: VmContext| {
        let points = services.points.points(&vm.id);
        let vm = Arc::new(vm);
        points.map_ok(move |point| (Arc::clone(&vm), point))
    };
    vms.map_ok(of_one).try_flatten().boxed()
}

/// What comes after this one.
fn behind(points: BoxStream<'_, Result<Found>>, last: RecoveryPointId) -> BoxStream<'_, Result<Found>> {
    let mut passed = false;
    let is_behind = move |(_, point): &Found| {
        let is_behind = passed;
        passed |= point.id == last;
        std::future::ready(is_behind)
    };
    points.try_filter(is_behind).boxed()
}

pub(super) fn unknown_vm(of: &impl std::fmt::Display) -> Error {
    Error::new(ErrorKind::NotFound, "find VM", of)
        .because("there is no record of it; GET /vms lists what there is")
}
