use std::time::Duration;

use futures_util::TryStreamExt as _;
use oma_api::{CleanupItemRow, CleanupRow};
use oma_core::engine::{CleanupRequest, CleanupService, CleanupServices, VolumesConfig};
use oma_core::record::{Cleanup, CleanupAction, CleanupFilter, KeepVolumes};
use oma_core::state::{CleanupStatus, CleanupStepStatus};
use oma_core::{CleanupId, Error, ErrorKind, JobId, Result};

use super::Context;
use crate::appliance::{self, Appliance};
use crate::args::CleanupArgs;
use crate::table::{Align, Table};
use oma_examples::output;
use oma_examples::source::Source;
use oma_examples::trail;
use serde_json::json;

/// Plans the cleanup of a job, and executes the plan when that is asked for.
pub(super) async fn run(context: &Context, args: &CleanupArgs) -> Result<()> {
    // Looks before anything is made or locked.
    appliance::open_records(&context.data).await?.close().await;
    let appliance = Appliance::open(&context.data, Source::nothing()?).await?;
    let service = service(&appliance);
    let action = if args.execute { "cleanup.execute" } else { "cleanup.plan" };
    let new = json!({ "plan": args.plan, "failover_job": args.failover_job, "volumes": args.volumes });
    let entry = trail::entry(action, "replication", &args.job, new);
    let done = appliance.recorded(entry, cleaned(&service, args)).await;
    service.shutdown().await;
    service.volumes().shutdown().await;
    appliance.close().await;
    tell(&CleanupRow::from(&done?), args, context.json)
}

/// Prints a cleanup, whoever carried it out.
///
/// # Errors
/// What is not done is no success.
pub(crate) fn tell(cleanup: &CleanupRow, args: &CleanupArgs, json: bool) -> Result<()> {
    if json {
        output::json(cleanup)?;
    } else {
        print(cleanup, args)?;
    }
    outcome(cleanup, args)
}

/// A plan that nobody made.
pub(crate) fn no_plan(id: &CleanupId) -> Error {
    Error::new(ErrorKind::NotFound, "find cleanup", id)
        .because("there is no such plan; `oma cleanup JOB` makes one")
}

/// A plan of another job than was named.
pub(crate) fn another_job(id: &CleanupId, job: &JobId) -> Error {
    Error::new(ErrorKind::Invalid, "execute cleanup", id).because(format!("it is of job {job}"))
}

fn service(appliance: &Appliance) -> CleanupService {
    let services = CleanupServices {
        inventory: appliance.services.inventory.clone(),
        exports: appliance.services.exports.clone(),
        points: appliance.services.points.clone(),
        cleanups: appliance.cleanups(),
        server: appliance.services.server.clone(),
    };
    CleanupService::new(appliance.volumes(VolumesConfig::default()), services)
}

async fn cleaned(service: &CleanupService, args: &CleanupArgs) -> Result<Cleanup> {
    if !args.execute {
        return service.plan(&request(args)).await;
    }
    service.volumes().finish_left_over().await?;
    let id = match (&args.plan, begun(service, args).await?) {
        (Some(id), _) => planned(service, args, id).await?,
        (None, Some(begun)) => begun,
        (None, None) => service.plan(&request(args)).await?.spec.id,
    };
    let found = service.wait(&id, Duration::ZERO).await?;
    if !found.spec.plan.first.is_empty() {
        return Ok(found);
    }
    service.execute(&id).await?;
    service.wait(&id, Duration::MAX).await
}

fn request(args: &CleanupArgs) -> CleanupRequest {
    let volumes = if args.volumes { KeepVolumes::Condemn } else { KeepVolumes::Keep };
    let (job, failover_job) = (args.job.clone(), args.failover_job.clone());
    CleanupRequest { id: CleanupId::mint(), job, failover_job, volumes }
}

/// One of the same wishes that a run before has begun and not ended.
async fn begun(service: &CleanupService, args: &CleanupArgs) -> Result<Option<CleanupId>> {
    let wanted = request(args);
    let (job, status) = (Some(args.job.clone()), Some(CleanupStatus::Executing));
    let mut begun = service.records().cleanups(CleanupFilter { job, status, ..CleanupFilter::default() });
    let found = begun.try_next().await?;
    let same = found.filter(|found| {
        let plan = &found.spec.plan;
        plan.failover_job == wanted.failover_job
            && plan.volumes == wanted.volumes
            && found.spec.worker == *service.volumes().worker()
    });
    Ok(same.map(|found| found.spec.id))
}

async fn planned(service: &CleanupService, args: &CleanupArgs, id: &CleanupId) -> Result<CleanupId> {
    let found = service.records().cleanup(id).await?.ok_or_else(|| no_plan(id))?;
    if found.spec.plan.job != args.job {
        return Err(another_job(id, &found.spec.plan.job));
    }
    Ok(found.spec.id)
}

fn print(cleanup: &CleanupRow, args: &CleanupArgs) -> Result<()> {
    let mut items = Table::new(&[
        ("what", Align::Left),
        ("id", Align::Left),
        ("found", Align::Left),
        ("stays", Align::Left),
    ]);
    for CleanupItemRow { kind, id, detail, protected } in &cleanup.items {
        let kind = serde_json::to_value(kind).ok().and_then(|kind| kind.as_str().map(str::to_owned));
        let stays = protected.clone().unwrap_or_else(|| "no".to_owned());
        items.row([kind.unwrap_or_default(), id.clone(), detail.clone(), stays]);
    }
    if !cleanup.items.is_empty() {
        output::line(items)?;
    }
    let mut steps = Table::new(&[("step", Align::Left), ("status", Align::Left), ("error", Align::Left)]);
    for step in &cleanup.steps {
        let error = step.error.clone().unwrap_or_default();
        steps.row([step.about.clone(), step.status.to_string(), error]);
    }
    let is_empty = cleanup.steps.iter().all(|step| step.name == CleanupAction::Check.label());
    if !is_empty {
        output::line(steps)?;
    }
    match (cleanup.status, is_empty) {
        (CleanupStatus::Completed, false) => {
            output::line(format_args!("{} is cleaned up; left is {}", cleanup.job_id, left(cleanup)))
        }
        (CleanupStatus::Completed, true) | (_, true) if cleanup.first.is_empty() => {
            output::line(format_args!("{}: there is nothing to do", cleanup.job_id))
        }
        (CleanupStatus::Planned, _) if cleanup.first.is_empty() && !args.execute => {
            output::line(format_args!(
                "nothing was changed; --execute does it, or --execute --plan {} exactly this",
                cleanup.cleanup_id
            ))
        }
        _ => Ok(()),
    }
}

fn left(cleanup: &CleanupRow) -> String {
    let left = cleanup.left.iter().flatten().filter(|(_, count)| **count > 0);
    let left: Vec<_> = left.map(|(name, count)| format!("{count} {name}")).collect();
    if left.is_empty() { "nothing".to_owned() } else { left.join(", ") }
}

/// What is not done is no success.
fn outcome(cleanup: &CleanupRow, args: &CleanupArgs) -> Result<()> {
    let id = &cleanup.cleanup_id;
    if let Some(first) = cleanup.first.first().filter(|_| args.execute) {
        return Err(Error::new(ErrorKind::Conflict, "execute cleanup", id).because(first.clone()));
    }
    match cleanup.status {
        CleanupStatus::Refused => {
            let why = cleanup.error.clone().unwrap_or_default();
            Err(Error::new(ErrorKind::Conflict, "execute cleanup", id)
                .because(format!("{why}; run it again for another plan")))
        }
        CleanupStatus::Executing => {
            let failed = cleanup.steps.iter().find(|step| step.status == CleanupStepStatus::Failed);
            let why = failed.map(|step| {
                format!("{}: {}", step.about, step.error.as_deref().unwrap_or("it was not done"))
            });
            let why = why.unwrap_or_else(|| "it was interrupted".to_owned());
            Err(Error::new(ErrorKind::Unavailable, "execute cleanup", id)
                .because(format!("{why}; the same command tries again")))
        }
        CleanupStatus::Planned | CleanupStatus::Completed => Ok(()),
    }
}
