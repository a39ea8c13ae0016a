use std::time::Duration;

use oma_api::{CleanupRow, PlanCleanup};
use oma_core::record::KeepVolumes;
use oma_core::state::{CleanupStatus, CleanupStepStatus};
use oma_core::{CleanupId, Error, ErrorKind, Result, Retry};

use super::Remote;
use super::patience::{Away, PACE};
use crate::args::CleanupArgs;
use crate::command::{another_job, no_plan, tell_cleanup};

/// How long one request waits.
const WAIT: Duration = Duration::from_secs(10);

/// Has the cleanup of a job planned, and executed when that is asked for.
pub(super) async fn run(remote: &Remote, args: &CleanupArgs) -> Result<()> {
    let cleanup = cleaned(remote, args).await?;
    tell_cleanup(&cleanup, args, remote.json)
}

async fn cleaned(remote: &Remote, args: &CleanupArgs) -> Result<CleanupRow> {
    let request = PlanCleanup {
        job_id: args.job.clone(),
        failover_job_id: args.failover_job.clone(),
        volumes: if args.volumes { KeepVolumes::Condemn } else { KeepVolumes::Keep },
    };
    let plan = async || remote.appliance.plan_cleanup(&CleanupId::mint(), &request).await;
    if !args.execute {
        return plan().await;
    }
    let found = match &args.plan {
        Some(id) => planned(remote, args, id).await?,
        None => match begun(remote, &request).await? {
            Some(begun) => match executed(remote, &begun.cleanup_id).await {
                // Another appliance of the same database began it, and perhaps is no more.
                Err(error) if is_elsewhere(remote, &begun, &error).await? => plan().await?,
                done => return done,
            },
            None => plan().await?,
        },
    };
    if !found.first.is_empty() {
        return Ok(found);
    }
    executed(remote, &found.cleanup_id).await
}

/// One of the same wishes that was begun before and has not ended.
async fn begun(remote: &Remote, request: &PlanCleanup) -> Result<Option<CleanupRow>> {
    let found = remote.appliance.cleanups(&request.job_id, CleanupStatus::Executing).await?;
    let is_same =
        |row: &CleanupRow| row.failover_job_id == request.failover_job_id && row.volumes == request.volumes;
    Ok(found.into_iter().find(is_same))
}

/// Whether an appliance that was asked to go on refuses what goes on all the same: it is for the worker that planned it alone.
async fn is_elsewhere(remote: &Remote, begun: &CleanupRow, error: &Error) -> Result<bool> {
    if error.kind() != ErrorKind::Conflict {
        return Ok(false);
    }
    Ok(remote.appliance.cleanup(&begun.cleanup_id).await?.status == CleanupStatus::Executing)
}

async fn planned(remote: &Remote, args: &CleanupArgs, id: &CleanupId) -> Result<CleanupRow> {
    match remote.appliance.cleanup(id).await {
        Err(error) if error.kind() == ErrorKind::NotFound => Err(no_plan(id)),
        Ok(found) if found.job_id != args.job => Err(another_job(id, &found.job_id)),
        found => found,
    }
}

/// Until nobody carries it out any more. An appliance that is begun anew meanwhile goes on with it.
async fn executed(remote: &Remote, id: &CleanupId) -> Result<CleanupRow> {
    let mut away = Away::default();
    loop {
        match remote.appliance.execute_cleanup(id, WAIT).await {
            Ok(row) if row.status == CleanupStatus::Executing && !has_failed(&row) => away.is_back(),
            Err(error) if error.kind() == ErrorKind::Conflict => return refused(remote, id, error).await,
            Err(error) if error.retry() == Retry::Later && away.is_borne() => {}
            ended => return ended,
        }
        tokio::time::sleep(PACE).await;
    }
}

fn has_failed(row: &CleanupRow) -> bool {
    row.steps.iter().any(|step| step.status == CleanupStepStatus::Failed)
}

/// One that a step refused is told with its steps; another one was not begun.
async fn refused(remote: &Remote, id: &CleanupId, error: Error) -> Result<CleanupRow> {
    let now = remote.appliance.cleanup(id).await?;
    let was_begun = now.steps.iter().any(|step| step.status != CleanupStepStatus::Pending);
    if now.status == CleanupStatus::Refused && was_begun { Ok(now) } else { Err(error) }
}
