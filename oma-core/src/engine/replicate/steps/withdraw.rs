use crate::Result;
use crate::engine::cancel::take_back;
use crate::engine::replicate::run::Run;

/// Takes every export back: no request through them can land afterwards (L23). The volumes stay open, and locked.
///
/// One that fails does not keep the others; the first failure is answered, and its disk stays as it is.
pub(super) async fn withdraw(run: &mut Run<'_>) -> Result<()> {
    let mut first = Ok(());
    for disk in &mut run.disks {
        if let Some(name) = &disk.export
            && let Err(error) = take_back(run.services, &run.lease, name, run.config.drain).await
        {
            first = first.and(Err(error));
            continue;
        }
        (disk.export, disk.source) = (None, None);
    }
    first
}

/// Lets the source's point in time go. A failure is reported; the point bears the job's name (L20).
pub(super) async fn release(run: &mut Run<'_>) {
    let Some(point) = run.point.take() else { return };
    if let Err(error) = run.services.source.release(&point.id).await {
        run.warn(format!("the source still holds the point in time {}: {}", point.id, error.chain()));
    }
}
