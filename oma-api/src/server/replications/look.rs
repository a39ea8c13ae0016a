//! What became of replications.

use std::collections::{BTreeSet, HashMap};

use axum::Json;
use axum::extract::State;
use futures_util::TryStreamExt as _;
use oma_core::record::{CbtRecord, JobFilter, ReplicationJob};
use oma_core::state::JobStatus;
use oma_core::{ContextId, DiskKey, DiskRef, Error, ErrorKind, JobId, VmPath};
use serde::Deserialize;
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::ReplicationRoutes;
use crate::server::audit::Asker;
use crate::server::extract::{InPath, InQuery};
use crate::server::paging::{Part, Several, Sorted, never_answered, page};
use crate::server::problem::Answer;
use crate::server::problems::Problems;
use crate::{CbtHistoryRow, DiskRow, Page, ProgressRow, ReplicationRow};

pub(super) fn group() -> OpenApiRouter<ReplicationRoutes> {
    OpenApiRouter::new().routes(routes!(of_vm)).routes(routes!(cbt_history))
}

pub(super) fn of_agents() -> OpenApiRouter<ReplicationRoutes> {
    OpenApiRouter::new()
        .routes(routes!(list))
        .routes(routes!(get))
        .routes(routes!(disks))
        .routes(routes!(progress))
}

/// Which jobs.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct Which {
    /// Only those that have not ended.
    #[serde(default)]
    live: bool,
    /// Only those that stand so: a status, or several with commas between them.
    #[param(value_type = Option<String>, pattern = "^(initializing|provisioning|ready|replicating|finalizing|completed|failed|cancelled)(,(initializing|provisioning|ready|replicating|finalizing|completed|failed|cancelled))*$")]
    status: Option<Several<JobStatus>>,
    /// Only those of this VM, by the id of its record.
    #[param(value_type = Option<String>)]
    context_id: Option<ContextId>,
    /// Only those of the VM that has this path; of several, of the one that was recorded last.
    #[param(value_type = Option<String>)]
    vm_path: Option<VmPath>,
}

/// How those of a VM stand.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct Standing {
    /// Only those that stand so: a status, or several with commas between them.
    #[param(value_type = Option<String>, pattern = "^(initializing|provisioning|ready|replicating|finalizing|completed|failed|cancelled)(,(initializing|provisioning|ready|replicating|finalizing|completed|failed|cancelled))*$")]
    status: Option<Several<JobStatus>>,
}

/// List replications in the order in which they were recorded; an agent's own
#[utoipa::path(get, path = "/replications", tag = "replications", params(Which, Sorted, Part),
    responses((status = 200, body = Page<ReplicationRow>), Problems))]
async fn list(
    State(routes): State<ReplicationRoutes>,
    asker: Asker,
    InQuery(which): InQuery<Which>,
    InQuery(sorted): InQuery<Sorted>,
    InQuery(part): InQuery<Part>,
) -> Answer<Json<Page<ReplicationRow>>> {
    let Which { live, status, context_id, vm_path } = which;
    let context = match &vm_path {
        None => context_id,
        Some(path) => {
            let found = routes.replicator.services().inventory.by_path(path).await?.map(|vm| vm.id);
            let is_same = |id: &ContextId| context_id.as_ref().is_none_or(|asked| asked == id);
            let Some(id) = found.filter(is_same) else { return Ok(Json(page(Vec::new(), None))) };
            Some(id)
        }
    };
    let statuses = Several::of(status);
    let filter = JobFilter { context, live_only: live, statuses, ..JobFilter::default() };
    if let Some(own) = asker.principal.jobs() {
        return Ok(Json(routes.own(own, &filter, &sorted, &part).await?));
    }
    Ok(Json(routes.listed(filter, &sorted, &part).await?))
}

/// The replications of a VM in the order in which they were recorded
#[utoipa::path(get, path = "/vms/{context_id}/jobs", tag = "vms", params(("context_id" = String, Path), Standing, Sorted, Part),
    responses((status = 200, body = Page<ReplicationRow>), Problems))]
async fn of_vm(
    State(routes): State<ReplicationRoutes>,
    InPath(id): InPath<ContextId>,
    InQuery(Standing { status }): InQuery<Standing>,
    InQuery(sorted): InQuery<Sorted>,
    InQuery(part): InQuery<Part>,
) -> Answer<Json<Page<ReplicationRow>>> {
    if routes.replicator.services().inventory.context(&id).await?.is_none() {
        return Err(Error::new(ErrorKind::NotFound, "find VM", &id)
            .because("there is no record of it; GET /vms lists what there is")
            .into());
    }
    let filter = JobFilter { context: Some(id), statuses: Several::of(status), ..JobFilter::default() };
    Ok(Json(routes.listed(filter, &sorted, &part).await?))
}

/// A replication
#[utoipa::path(get, path = "/replications/{job_id}", tag = "replications", params(("job_id" = String, Path)),
    responses((status = 200, body = ReplicationRow), Problems))]
async fn get(
    State(routes): State<ReplicationRoutes>,
    asker: Asker,
    InPath(id): InPath<JobId>,
) -> Answer<Json<ReplicationRow>> {
    let job = routes.visible(&asker.principal, &id).await?;
    Ok(Json(routes.row(&job).await?))
}

/// The disks of a replication and their volumes as they are now
#[utoipa::path(get, path = "/replications/{job_id}/disks", tag = "replications", params(("job_id" = String, Path)),
    responses((status = 200, body = Vec<DiskRow>), Problems))]
async fn disks(
    State(routes): State<ReplicationRoutes>,
    asker: Asker,
    InPath(id): InPath<JobId>,
) -> Answer<Json<Vec<DiskRow>>> {
    let job = routes.visible(&asker.principal, &id).await?;
    let services = routes.replicator.services();
    let Some(vm) = services.inventory.context(&job.context).await? else { return Ok(Json(Vec::new())) };
    let mut rows = Vec::new();
    for key in &job.disks {
        let disk = DiskRef { context: job.context.clone(), key: key.clone() };
        let Some(record) = services.inventory.disk(&disk).await? else { continue };
        let volume = services.volumes.volume_of(&disk).await?;
        rows.push(DiskRow::new(&vm, &record, volume.as_ref()));
    }
    Ok(Json(rows))
}

/// How far a replication is
#[utoipa::path(get, path = "/replications/{job_id}/progress", tag = "replications", params(("job_id" = String, Path)),
    responses((status = 200, body = ProgressRow), Problems))]
async fn progress(
    State(routes): State<ReplicationRoutes>,
    asker: Asker,
    InPath(id): InPath<JobId>,
) -> Answer<Json<ProgressRow>> {
    let job = routes.visible(&asker.principal, &id).await?;
    Ok(Json(routes.progress_of(&job).await?))
}

/// What was copied of a disk at which change id, newest first
#[utoipa::path(get, path = "/vms/{context_id}/disks/{disk_key}/cbt_history", tag = "vms",
    params(("context_id" = String, Path), ("disk_key" = String, Path), Part),
    responses((status = 200, body = Page<CbtHistoryRow>), Problems))]
async fn cbt_history(
    State(routes): State<ReplicationRoutes>,
    InPath((context, key)): InPath<(ContextId, DiskKey)>,
    InQuery(part): InQuery<Part>,
) -> Answer<Json<Page<CbtHistoryRow>>> {
    let disk = DiskRef { context, key };
    let services = routes.replicator.services();
    if services.inventory.disk(&disk).await?.is_none() {
        return Err(Error::new(ErrorKind::NotFound, "find disk", &disk)
            .because("there is no record of it; GET /vms/{context_id}/disks lists what there is")
            .into());
    }
    let after = part.after::<JobId>()?;
    if let Some(id) = &after {
        services.jobs.get(id).await?.ok_or_else(|| never_answered(id))?;
    }
    let mut passed = after.is_none();
    let behind = services.change_ids.history(&disk).try_filter(move |record: &CbtRecord| {
        let is_wanted = passed;
        passed |= after.as_ref() == Some(&record.job);
        std::future::ready(is_wanted)
    });
    let (records, next) = part.of(Box::pin(behind), |record| record.job.to_string()).await?;
    Ok(Json(page(records.iter().map(CbtHistoryRow::from).collect(), next)))
}

impl ReplicationRoutes {
    /// The jobs of an agent, which are few.
    async fn own(
        &self,
        own: &BTreeSet<JobId>,
        filter: &JobFilter,
        sorted: &Sorted,
        part: &Part,
    ) -> Answer<Page<ReplicationRow>> {
        let services = self.replicator.services();
        let mut jobs = Vec::new();
        for id in own {
            let job = services.jobs.get(id).await?;
            jobs.extend(job);
        }
        let place = |job: &ReplicationJob| (job.created_at, job.id.clone());
        let behind = match part.after_in::<JobId>(sorted)? {
            None => None,
            Some(after) => {
                let last = jobs.iter().find(|job| job.id == after);
                Some(place(last.ok_or_else(|| never_answered(&after))?))
            }
        };
        let is_behind = |job: &ReplicationJob| {
            behind.as_ref().is_none_or(|last| sorted.order.is_behind(&place(job), last))
        };
        jobs.retain(|job| filter.lets_through(job) && is_behind(job));
        jobs.sort_by(|one, other| sorted.order.compare(&place(one), &place(other)));
        let all = futures_util::stream::iter(jobs.into_iter().map(Ok));
        let (jobs, next) = part.of(Box::pin(all), |job| sorted.next(&job.id)).await?;
        let mut rows = Vec::new();
        for job in &jobs {
            rows.push(self.row(job).await?);
        }
        Ok(page(rows, next))
    }

    async fn listed(&self, filter: JobFilter, sorted: &Sorted, part: &Part) -> Answer<Page<ReplicationRow>> {
        let services = self.replicator.services();
        let after = part.after_in::<JobId>(sorted)?;
        if let Some(id) = &after {
            services.jobs.get(id).await?.ok_or_else(|| never_answered(id))?;
        }
        let all = services.jobs.list(JobFilter { after, order: sorted.order, ..filter });
        let (jobs, next) = part.of(all, |job| sorted.next(&job.id)).await?;
        let ids: BTreeSet<&ContextId> = jobs.iter().map(|job| &job.context).collect();
        let mut vms = HashMap::new();
        for id in ids {
            vms.extend(services.inventory.context(id).await?.map(|vm| (id.clone(), vm)));
        }
        let row = |job: &ReplicationJob| ReplicationRow::new(vms.get(&job.context), job);
        Ok(page(jobs.iter().map(row).collect(), next))
    }

    pub(super) async fn progress_of(&self, job: &ReplicationJob) -> Answer<ProgressRow> {
        let told = self.replicator.services().jobs.progress(&job.id).await?;
        Ok(ProgressRow::new(job, told.as_ref()))
    }
}
