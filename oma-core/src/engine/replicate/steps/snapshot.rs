use crate::engine::points::{self, KeepPoints};
use crate::engine::replicate::disk::RunDisk;
use crate::engine::replicate::run::Run;
use crate::record::PointVolume;
use crate::traits::SnapshotSpec;
use crate::{ErrorKind, Result, SnapshotId};

/// Makes a snapshot of every volume, if recovery points are asked for: of exactly what is committed next. One that cannot be
/// made is reported, and the epoch goes on without it.
pub(super) async fn snapshot(run: &mut Run<'_>) -> Result<()> {
    if run.request.points.is_none() {
        return Ok(());
    }
    let job = &run.job.id;
    let volume = |disk: &RunDisk| {
        let volume = disk.ready_volume();
        let (id, tag) = (SnapshotId::mint(job), volume.tag.clone());
        let snapshot = SnapshotSpec { id, volume: volume.record.id.clone(), tag, job: job.clone() };
        (PointVolume { change_id: disk.point.change_id.clone(), snapshot }, disk.stamp.clone())
    };
    let volumes = run.disks.iter().map(volume).collect();
    let taken = points::take(run.services, &run.lease, volumes, &run.config.retry, run.stop).await;
    match taken {
        Ok(point) => run.recovery_point = Some(point),
        Err(error) if matches!(error.kind(), ErrorKind::Fenced | ErrorKind::Cancelled) => return Err(error),
        Err(error) => {
            run.warn(format!("epoch {} has no recovery point: {}", run.job.epoch, error.chain()));
        }
    }
    Ok(())
}

/// Deletes recovery points that were left unfinished, and those that need not be kept. A failure is reported, recorded, and
/// tried again by the next run.
pub(super) async fn sweep(run: &mut Run<'_>, keep: Option<KeepPoints>) {
    // By the store's clock, as the points themselves.
    let now = run.job.completed_at.unwrap_or(run.job.updated_at);
    let swept = points::sweep(run.services, &run.context.id, keep, now).await;
    report(run, swept);
}

/// Makes room before anything is written: [`sweep`], and what no point knows. Points that fill the place would else keep every
/// run from the end, where it sweeps.
pub(super) async fn make_room(run: &mut Run<'_>) {
    sweep(run, run.request.points).await;
    let deleted = points::delete_forgotten(run.services, &run.context.id).await;
    report(run, deleted);
}

fn report(run: &mut Run<'_>, swept: Result<Vec<String>>) {
    match swept {
        Ok(left) => left.into_iter().for_each(|left| run.warn(format!("not deleted yet: {left}"))),
        Err(error) => run.warn(format!("recovery points could not be looked at: {}", error.chain())),
    }
}
