use super::stamp::disown;
use crate::engine::replicate::run::Run;
use crate::engine::retry::retry;
use crate::{ErrorKind, Result};

/// Asks whether all that was read is of one moment (L08); nothing is read any more. If not, no later run builds on what was copied,
/// even when the source looks by then as it did before.
pub(super) async fn confirm(run: &mut Run<'_>) -> Result<()> {
    let Some(point) = &run.point else { return Ok(()) };
    let confirmed = retry(&run.config.retry, run.stop, || run.services.source.confirm(point)).await;
    if confirmed.as_ref().is_err_and(|error| error.kind() == ErrorKind::Conflict) {
        let mut disowned = Ok(());
        for disk in &mut run.disks {
            disowned = disowned.and(disown(run.services, run.config, &run.lease, disk).await);
        }
        disowned?;
    }
    confirmed
}
