use std::sync::Arc;

use crate::engine::replicate::run::Run;
use crate::engine::verify::{DiskPair, mismatch, scope};
use crate::record::{DiskVerification, VerificationReport, VerificationScope};
use crate::seal::SealedReport;
use crate::tree::LEAF;
use crate::{Clock as _, Result, SystemClock};

/// Compares source and target as far as was asked for, before anything is committed (L14). The report is stored with the job,
/// whatever was found.
///
/// A difference ends the generation: the next run does not build on this volume's content.
pub(super) async fn verify(run: &mut Run<'_>) -> Result<()> {
    let Some(scope) = scope(run.request.verify) else { return Ok(()) };
    let begun = SystemClock.now();
    let mut found = Vec::new();
    for index in 0..run.disks.len() {
        let result = verify_disk(run, index, &scope).await;
        let disk = &mut run.disks[index];
        let verification = result.inspect_err(|error| disk.error = Some(error.chain()))?;
        disk.verified = Some(verification.compared);
        found.push(verification);
    }
    let report = VerificationReport {
        version: VerificationReport::VERSION,
        job: Some(run.job.id.clone()),
        context: run.context.id.clone(),
        vm: run.context.path.clone(),
        epoch: Some(run.job.epoch),
        scope,
        leaf_bytes: LEAF,
        begun,
        ended: SystemClock.now(),
        disks: found,
    };
    let sealed = SealedReport::new(report, run.services.signer.as_deref())?;
    run.services.reports.put_report(&run.lease, &sealed).await?;
    let report = run.verification.insert(sealed).report.clone();
    judge(run, &report.disks).await
}

async fn verify_disk(run: &Run<'_>, index: usize, scope: &VerificationScope) -> Result<DiskVerification> {
    let disk = &run.disks[index];
    let pair = DiskPair {
        point: &disk.point,
        volume: &disk.ready_volume().record,
        source: Arc::clone(disk.source.as_ref().expect("copying comes before")),
        target: disk.target_device(),
        changed: &disk.plan().scope,
    };
    pair.verify(scope, run.config, run.stop).await
}

/// Refuses an epoch of which anything differs.
async fn judge(run: &mut Run<'_>, found: &[DiskVerification]) -> Result<()> {
    let mut first = Ok(());
    for (disk, found) in run.disks.iter_mut().zip(found) {
        if found.differences.is_empty() {
            continue;
        }
        run.services.volumes.advance_generation(&run.lease, &found.volume).await?;
        let error = mismatch(&found.key, &found.differences);
        disk.error = Some(error.chain());
        first = first.and(Err(error));
    }
    first
}
