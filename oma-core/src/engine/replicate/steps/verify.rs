use std::sync::Arc;

use crate::engine::compare::Comparison;
use crate::engine::config::VerifyLevel;
use crate::engine::replicate::disk::RunDisk;
use crate::engine::replicate::run::Run;
use crate::engine::verify::mismatch;
use crate::{Extent, ExtentSet, Result};

/// Compares source and target as far as was asked for, before anything is committed (L14).
///
/// A difference ends the generation: the next run does not build on this volume's content.
pub(super) async fn verify(run: &mut Run<'_>) -> Result<()> {
    for index in 0..run.disks.len() {
        let Some(scope) = scope(run.request.verify, &run.disks[index]) else { continue };
        let result = verify_disk(run, &run.disks[index], &scope).await;
        let disk = &mut run.disks[index];
        result.inspect_err(|error| disk.error = Some(error.chain()))?;
        disk.verified = Some(scope.bytes());
    }
    Ok(())
}

fn scope(level: VerifyLevel, disk: &RunDisk) -> Option<ExtentSet> {
    match level {
        VerifyLevel::None => None,
        VerifyLevel::Changed => Some(disk.plan().scope.clone()),
        VerifyLevel::Full => Some(Extent::between(0, disk.point.capacity.bytes()).into_iter().collect()),
    }
}

async fn verify_disk(run: &Run<'_>, disk: &RunDisk, scope: &ExtentSet) -> Result<()> {
    let comparison = Comparison {
        source: Arc::clone(disk.source.as_ref().expect("copying comes before")),
        target: disk.target_device(),
        config: run.config,
        stop: run.stop,
    };
    let differences = comparison.run(scope).await?.differences;
    if differences.is_empty() {
        return Ok(());
    }
    let volume = &disk.ready_volume().record.id;
    run.services.volumes.advance_generation(&run.lease, volume).await?;
    Err(mismatch(&disk.point.key, &differences))
}
