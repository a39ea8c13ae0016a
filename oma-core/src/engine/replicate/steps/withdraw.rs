use crate::Result;
use crate::engine::cancel::take_back;
use crate::engine::replicate::run::Run;

/// Takes every export back and closes the volumes: no request through them can land afterwards (L23).
pub(super) async fn withdraw(run: &mut Run<'_>) -> Result<()> {
    for index in 0..run.disks.len() {
        if let Some(name) = run.disks[index].export.clone() {
            take_back(run.services, &run.lease, &name, run.config.drain).await?;
        }
        let disk = &mut run.disks[index];
        (disk.export, disk.target, disk.source) = (None, None, None);
    }
    Ok(())
}

/// Lets the source's point in time go. A failure is reported; the point bears the job's name (L20).
pub(super) async fn release(run: &mut Run<'_>) {
    let Some(point) = run.point.take() else { return };
    if let Err(error) = run.services.source.release(&point.id).await {
        run.warn(format!("the source still holds the point in time {}: {}", point.id, error.chain()));
    }
}
