use super::stamp;
use crate::engine::replicate::run::Run;
use crate::engine::retry::retry;
use crate::record::EpochCommit;
use crate::state::JobStatus;
use crate::{ErrorKind, Result};

/// Commits the epoch for all disks at once and ends the job (L08).
pub(super) async fn commit(run: &mut Run<'_>) -> Result<()> {
    for disk in &mut run.disks {
        stamp::keep_from_old_records(run.services, run.config, &run.lease, disk).await?;
    }
    let commit = EpochCommit {
        context: run.context.id.clone(),
        epoch: run.job.epoch,
        disks: run.disks.iter().map(|disk| disk.commit()).collect(),
    };
    let call = || run.services.change_ids.commit_epoch(&run.lease, &commit);
    let committed = retry(&run.config.retry, run.stop, call).await;
    let job = run.services.jobs.get(&run.job.id).await;
    match (committed, job) {
        (Ok(()), Ok(Some(job))) => run.job = job,
        (Ok(()), _) => run.job.status = JobStatus::Completed,
        // The answer was lost and the epoch was not: nothing but this commit completes the job.
        (Err(error), Ok(Some(job)))
            if job.status == JobStatus::Completed && error.kind() != ErrorKind::Fenced =>
        {
            tracing::warn!(job = %job.id, error = %error.chain(), "the epoch is committed though the answer was lost");
            run.job = job;
        }
        (Err(error), _) => return Err(error),
    }
    Ok(())
}
