use crate::engine::progress::{DiskProgress, Event};
use crate::engine::replicate::plan::{DiskPlan, Facts, decide};
use crate::engine::replicate::run::Run;
use crate::engine::retry::retry;
use crate::record::DiskAttempt;
use crate::{ByteSize, DiskRef, PointId, Result};

/// Decides what every disk needs and records the attempt. Nothing is written yet.
pub(super) async fn plan(run: &mut Run<'_>) -> Result<()> {
    for index in 0..run.disks.len() {
        let result = plan_disk(run, index).await;
        let plan = result.inspect_err(|error| run.disks[index].error = Some(error.chain()))?;
        let disk = &mut run.disks[index];
        disk.counters.progress = DiskProgress {
            total: plan.scope.bytes(),
            done: plan.resumed,
            durable: plan.resumed,
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

async fn plan_disk(run: &Run<'_>, index: usize) -> Result<DiskPlan> {
    let (services, disk) = (run.services, &run.disks[index]);
    let key = &disk.point.key;
    let reference = DiskRef { context: run.context.id.clone(), key: key.clone() };
    let volume = &disk.ready_volume().record;
    let endpoint = &run.context.identity.endpoint;
    let base = services.change_ids.current(&reference, volume.generation, endpoint).await?;
    let changes = match &base {
        None => None,
        Some(base) => {
            let point: &PointId = &run.point.as_ref().expect("freezing comes before").id;
            let changed = || services.source.changed(point, key, &base.change_id);
            Some(retry(&run.config.retry, run.stop, changed).await?)
        }
    };
    let journal = services.journal.load(&reference).await?;
    let plan = decide(&Facts {
        point: &disk.point,
        generation: volume.generation,
        content: volume.content,
        base,
        changes,
        journal,
    });
    let attempt = DiskAttempt {
        key: key.clone(),
        change_id: disk.point.change_id.clone(),
        previous: plan.basis.base.clone(),
        sync_type: plan.mode,
    };
    services.change_ids.begin(&run.lease, &attempt).await?;
    if !plan.continues {
        services.journal.begin(&run.lease, key, &plan.basis, &plan.planned).await?;
    }
    Ok(plan)
}
