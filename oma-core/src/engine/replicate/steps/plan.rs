use std::sync::Arc;

use super::repair::Repair;
use crate::engine::config::TrustPolicy;
use crate::engine::progress::{DiskProgress, Event};
use crate::engine::replicate::plan::{DiskPlan, Facts, carries_over, decide};
use crate::engine::replicate::run::Run;
use crate::engine::retry::retry;
use crate::record::{DiskAttempt, VolumeContent};
use crate::traits::{BlockDevice, Changes};
use crate::{ByteSize, ChangeId, DiskKey, DiskRef, Epoch, ErrorKind, ExtentSet, PointId, Result};

/// Decides what every disk needs and records the attempt. Nothing is written yet.
pub(super) async fn plan(run: &mut Run<'_>) -> Result<()> {
    for index in 0..run.disks.len() {
        let result = plan_disk(run, index).await;
        let (plan, source) = result.inspect_err(|error| run.disks[index].error = Some(error.chain()))?;
        let disk = &mut run.disks[index];
        disk.source = source;
        let settled = plan.resumed + plan.equal;
        disk.counters.progress = DiskProgress {
            total: plan.scope.bytes(),
            done: settled,
            durable: settled,
            read: ByteSize::ZERO,
            written: ByteSize::ZERO,
        };
        run.progress.event(Event::Planned {
            disk: &disk.point.key,
            mode: plan.mode,
            note: plan.note.as_deref(),
            progress: disk.counters.progress,
        });
        disk.plan = Some(plan);
    }
    Ok(())
}

async fn plan_disk(run: &Run<'_>, index: usize) -> Result<(DiskPlan, Option<Arc<dyn BlockDevice>>)> {
    let (services, disk) = (run.services, &run.disks[index]);
    let key = &disk.point.key;
    let reference = DiskRef { context: run.context.id.clone(), key: key.clone() };
    let volume = &disk.ready_volume().record;
    let endpoint = &run.context.identity.endpoint;
    let base = match run.request.trust {
        TrustPolicy::AlwaysCompare => None,
        TrustPolicy::Trust | TrustPolicy::SpotCheck { .. } => {
            services.change_ids.current(&reference, volume.generation, endpoint).await?
        }
    };
    let changes = match &base {
        None => None,
        Some(base) => Some(changed(run, key, &base.change_id).await?),
    };
    let (journal, damage) = match services.journal.load(&reference).await {
        Ok(journal) => (journal, None),
        // A journal that is not as it was written proves nothing; what it is for is copied again.
        Err(error) if error.kind() == ErrorKind::Corrupt => (None, Some(error)),
        Err(error) => return Err(error),
    };
    let since_journal = match journal.as_ref().map(|journal| &journal.basis) {
        Some(basis)
            if basis.content != disk.point.content
                && carries_over(basis, volume.generation, endpoint, &disk.point) =>
        {
            match run.request.trust {
                TrustPolicy::AlwaysCompare => Some(Changes::Unknown("every run compares".to_owned())),
                TrustPolicy::Trust | TrustPolicy::SpotCheck { .. } => {
                    Some(changed(run, key, &basis.change_id).await?)
                }
            }
        }
        _ => None,
    };
    let mut facts = Facts {
        point: &disk.point,
        endpoint,
        generation: volume.generation,
        content: volume.content,
        base,
        changes,
        journal,
        since_journal,
        journal_step: run.config.journal_step.max(run.config.piece),
    };
    let mut plan = decide(&facts);
    let mut repair = Repair { run, disk, source: None };
    let differences = repair.spot_check(&plan).await?;
    if !differences.is_empty() {
        // Durably, and the journal with it: no later run may build on this change id (L09).
        services.volumes.mark_inconsistent(&run.lease, &volume.id).await?;
        facts = Facts { base: None, changes: None, content: VolumeContent::Inconsistent, ..facts };
        plan = decide(&facts);
        plan.note = Some(doubt(&differences));
    }
    if let Some(damage) = damage {
        plan.note = Some(format!("what an interrupted run had copied is copied again: {}", damage.chain()));
        plan.recopied = plan.work.bytes();
    }
    let attempt = DiskAttempt {
        key: key.clone(),
        change_id: disk.point.change_id.clone(),
        previous: plan.basis.base.clone(),
        sync_type: plan.mode,
    };
    services.change_ids.begin(&run.lease, &attempt).await?;
    services.journal.begin(&run.lease, key, &plan.journal()).await?;
    let last = services.inventory.disk(&reference).await?.map_or(Epoch(0), |record| record.epoch);
    let equal = repair.equal(&plan, last).await?;
    if !equal.is_empty() {
        plan.settle(&equal);
        // Only a volume in mid-epoch has finished extents; nothing is written yet (L12).
        services.volumes.mark_inconsistent(&run.lease, &volume.id).await?;
        services.journal.begin(&run.lease, key, &plan.journal()).await?;
    }
    Ok((plan, repair.source))
}

/// Why a change id is not trusted though the source stands by it.
fn doubt(differences: &ExtentSet) -> String {
    format!(
        "{} that the source says are unchanged differ: its change tracking cannot be trusted, all is compared",
        differences.bytes()
    )
}

/// What changed on a disk from a change id up to the run's point in time.
async fn changed(run: &Run<'_>, key: &DiskKey, since: &ChangeId) -> Result<Changes> {
    let point: &PointId = &run.point.as_ref().expect("freezing comes before").id;
    retry(&run.config.retry, run.stop, || run.services.source.changed(point, key, since)).await
}
