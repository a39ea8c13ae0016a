use super::repair::{Repair, Traces};
use super::stamp::end_generation;
use crate::engine::config::{CopyMode, TrustPolicy};
use crate::engine::progress::{DiskProgress, Event};
use crate::engine::replicate::disk::RunDisk;
use crate::engine::replicate::plan::{DiskPlan, Facts, carries_over, decide};
use crate::engine::replicate::run::Run;
use crate::engine::retry::retry;
use crate::engine::tally::Tally;
use crate::record::{DiskAttempt, VolumeContent};
use crate::traits::Changes;
use crate::{ChangeId, DiskKey, DiskRef, Epoch, Error, ErrorKind, ExtentSet, PointId, Result};

/// Decides what every disk needs and records the attempt. Nothing is written yet.
pub(super) async fn plan(run: &mut Run<'_>) -> Result<()> {
    for index in 0..run.disks.len() {
        let mut tally = Tally::new(&run.disks[index].point.key, run.progress);
        let mut traces = Traces::default();
        let result = plan_disk(run, index, &mut tally, &mut traces).await;
        let hashed = tally.hashed();
        let disk = &mut run.disks[index];
        disk.counters.count(hashed);
        disk.source = traces.source;
        if let Some((tag, volume)) = traces.tag.zip(disk.volume.as_mut()) {
            volume.record.generation = tag.generation;
            (volume.tag, volume.untouched) = (tag, false);
        }
        // Of a volume that somebody may have written to before, a plan that failed has not looked at everything.
        disk.marked = traces.marked && (result.is_ok() || disk.ready_volume().untouched);
        let plan = result.inspect_err(|error| disk.error = Some(error.chain()))?;
        let settled = plan.resumed + plan.equal;
        disk.counters.progress = DiskProgress {
            capacity: disk.point.capacity,
            total: plan.scope.bytes(),
            done: settled,
            durable: settled,
            ..DiskProgress::default()
        };
        run.progress.event(Event::Planned {
            disk: &disk.point.key,
            mode: plan.mode,
            note: plan.note.as_deref(),
            progress: disk.counters.told(),
        });
        disk.fresh = disk.ready_volume().record.content != VolumeContent::Inconsistent;
        disk.plan = Some(plan);
    }
    Ok(())
}

async fn plan_disk(
    run: &Run<'_>,
    index: usize,
    tally: &mut Tally<'_>,
    traces: &mut Traces,
) -> Result<DiskPlan> {
    let (services, disk) = (run.services, &run.disks[index]);
    let key = &disk.point.key;
    let (mut facts, damage) = facts(run, disk).await?;
    let mut plan = decide(&facts);
    let mut repair = Repair { run, disk, tally, traces };
    let differences = repair.spot_check(&plan).await?;
    let finished = plan.finished.clone();
    if !differences.is_empty() {
        let mark = end_generation(services, run.config, &run.lease, disk.ready_volume()).await?;
        let (generation, content) = (mark.generation, VolumeContent::Inconsistent);
        facts = Facts { base: None, changes: None, generation, content, ..facts };
        plan = decide(&facts);
        plan.note = Some(doubt(&differences, &finished));
        repair.traces.tag = Some(mark);
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
    let last = services.inventory.disk(&reference(run, disk)).await?.map_or(Epoch(0), |record| record.epoch);
    repair.settle_equal(&mut plan, last).await?;
    Ok(plan)
}

/// Gathers what is known of a disk; with it why its journal is not, if it was damaged.
async fn facts<'a>(run: &'a Run<'_>, disk: &'a RunDisk) -> Result<(Facts<'a>, Option<Error>)> {
    let (services, key) = (run.services, &disk.point.key);
    let (reference, volume) = (reference(run, disk), &disk.ready_volume().record);
    let endpoint = &run.context.identity.endpoint;
    let compares = run.request.trust == TrustPolicy::AlwaysCompare;
    let current = services.change_ids.current(&reference, volume.generation, endpoint).await?;
    if let Some(current) = &current {
        let point: &PointId = &run.point.as_ref().expect("freezing comes before").id;
        // It may keep more than it needs to; that does not end a job.
        if let Err(error) = services.source.committed(point, key, &current.change_id).await {
            tracing::warn!(disk = %key, error = %error.chain(), "the source was not told of the committed epoch");
        }
    }
    let base = current.filter(|_| !compares);
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
    let earlier = journal.as_ref().map(|journal| &journal.basis).filter(|basis| {
        basis.content != disk.point.content && carries_over(basis, volume.generation, endpoint, &disk.point)
    });
    let since_journal = match earlier {
        Some(_) if compares => Some(Changes::Unknown("every run compares".to_owned())),
        Some(basis) => Some(match (changed(run, key, &basis.change_id).await?, &changes) {
            // What a source that tracks writes says has changed since the last epoch has all of it in it. What differs from the last
            // epoch, as an agent may tell it, has not: a block that changed there and back is in none.
            (Changes::Unknown(_), Some(Changes::Since(all)))
                if run.request.mode != CopyMode::Push
                    && basis.base == base.as_ref().map(|base| base.change_id.clone()) =>
            {
                Changes::Since(all.clone())
            }
            (found, _) => found,
        }),
        None => None,
    };
    let facts = Facts {
        point: &disk.point,
        endpoint,
        generation: volume.generation,
        content: volume.content,
        untouched: disk.ready_volume().untouched,
        trust: run.request.trust,
        base,
        changes,
        grown: disk.ready_volume().grown,
        journal,
        since_journal,
        journal_step: run.config.journal_step.max(run.config.piece),
    };
    Ok((facts, damage))
}

fn reference(run: &Run<'_>, disk: &RunDisk) -> DiskRef {
    DiskRef { context: run.context.id.clone(), key: disk.point.key.clone() }
}

/// Why a change id, or what an interrupted run had copied, is not trusted.
fn doubt(differences: &ExtentSet, finished: &ExtentSet) -> String {
    let copied = differences.intersection(finished);
    if !copied.is_empty() {
        let bytes = copied.bytes();
        return format!(
            "{bytes} that an interrupted run had copied differ: somebody wrote to the volume, all is compared"
        );
    }
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
