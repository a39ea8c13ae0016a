use std::sync::Arc;

use super::stamp::{distrust, end_generation};
use crate::engine::compare::broken_promise;
use crate::engine::replicate::run::Run;
use crate::engine::retry::retry;
use crate::engine::tally::Tally;
use crate::engine::verify::{DiskPair, VerifiedDisk, mismatch, scope};
use crate::record::{VerificationReport, VerificationScope};
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
    let mut first = Ok(());
    for index in 0..run.disks.len() {
        // What one disk is like must not be forgotten because another could not be compared.
        let mut tally = Tally::new(&run.disks[index].point.key, run.progress);
        let verified = verify_disk(run, index, &scope, &mut tally).await;
        let hashed = tally.hashed();
        run.disks[index].counters.count(hashed);
        let judged = match verified {
            Ok(verified) => {
                let (disk, record) = (&mut run.disks[index], &verified.record);
                (disk.verified, disk.promised_zero) = (Some(record.covered()), record.promised_zero);
                let judged = judge(run, index, &verified).await;
                found.push(verified.record);
                judged
            }
            Err(error) => Err(error),
        };
        first = first.and(judged.inspect_err(|error| run.disks[index].error = Some(error.chain())));
    }
    if found.len() < run.disks.len() {
        return first;
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
    first.and(keep(run, report).await)
}

async fn keep(run: &mut Run<'_>, report: VerificationReport) -> Result<()> {
    let sealed = SealedReport::new(report, run.services.signer.as_deref())?;
    let sealed = run.verification.insert(sealed);
    let put = || run.services.reports.put_report(&run.lease, sealed);
    retry(&run.config.retry, run.stop, put).await
}

async fn verify_disk(
    run: &Run<'_>,
    index: usize,
    scope: &VerificationScope,
    tally: &mut Tally<'_>,
) -> Result<VerifiedDisk> {
    let disk = &run.disks[index];
    let pair = DiskPair {
        point: &disk.point,
        volume: &disk.ready_volume().record,
        source: Arc::clone(disk.source.as_ref().expect("copying comes before")),
        target: disk.target_device(),
        changed: &disk.plan().scope,
        admission: &run.budget.admission(&run.vm, &disk.point.key),
    };
    pair.verify(scope, &disk.config, tally, run.stop).await
}

/// Refuses an epoch of which anything differs, at once and durably.
async fn judge(run: &Run<'_>, index: usize, verified: &VerifiedDisk) -> Result<()> {
    let VerifiedDisk { record: found, broken } = verified;
    if found.differences.is_empty() {
        return Ok(());
    }
    let disk = &run.disks[index];
    match broken {
        Some(_) => distrust(run, disk).await?,
        None => {
            end_generation(run.services, run.config, &run.lease, disk.ready_volume()).await?;
        }
    }
    Err(broken.map_or_else(|| mismatch(&found.key, &found.differences), broken_promise))
}
