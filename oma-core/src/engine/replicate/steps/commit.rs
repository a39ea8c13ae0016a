use crate::engine::replicate::run::Run;
use crate::engine::retry::retry;
use crate::record::EpochCommit;
use crate::{Error, ErrorKind, Result};

/// Commits the epoch for all disks at once and ends the job (L08).
pub(super) async fn commit(run: &mut Run<'_>) -> Result<()> {
    let mut commit = EpochCommit {
        context: run.context.id.clone(),
        epoch: run.job.epoch,
        disks: run.disks.iter().map(|disk| disk.commit()).collect(),
    };
    for disk in &mut commit.disks {
        disk.stamp = run.services.backend.content_stamp(&disk.volume).await?;
    }
    run.check_stop()?;
    retry(&run.config.retry, run.stop, || run.services.change_ids.commit_epoch(&run.lease, &commit)).await?;
    let job = run.services.jobs.get(&run.job.id).await?;
    run.job = job.ok_or_else(|| Error::new(ErrorKind::NotFound, "read job", &run.job.id))?;
    Ok(())
}
