use std::sync::Arc;
use std::time::Instant;

use async_trait::async_trait;
use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio_util::sync::CancellationToken;

use crate::engine::config::{CopyMode, RetryConfig};
use crate::engine::copier::{Copier, Recorder};
use crate::engine::replicate::disk::RunDisk;
use crate::engine::replicate::run::Run;
use crate::engine::retry::retry;
use crate::engine::zeroes::{WINDOW, status};
use crate::record::Lease;
use crate::traits::{BlockDevice, Durability, ExtentJournal, Provisioning, Zeroing};
use crate::{ByteSize, DiskKey, Error, ErrorKind, Extent, PointId, Result};

/// The journal of one disk, written under a lease.
#[derive(Debug)]
struct Journal<'r> {
    journal: &'r dyn ExtentJournal,
    lease: &'r Lease,
    key: &'r DiskKey,
}

#[async_trait]
impl Recorder for Journal<'_> {
    async fn record(&self, finished: Extent, durable: ByteSize) -> Result<()> {
        self.journal.record(self.lease, self.key, finished, durable).await
    }
}

/// Copies all disks at once. One that fails stops the others: no disk advances without all (L08).
pub(super) async fn copy(run: &mut Run<'_>) -> Result<()> {
    for disk in &mut run.disks {
        let id = disk.ready_volume().record.id.clone();
        run.services.volumes.mark_inconsistent(&run.lease, &id).await?;
        disk.marked = true;
    }
    // What earlier runs had frozen and not committed is of no use, and its room is needed.
    super::snapshot::sweep(run, None).await;
    if run.request.mode == CopyMode::Push {
        return super::push::push(run).await;
    }
    let mut disks = std::mem::take(&mut run.disks);
    let siblings = run.stop.child_token();
    let mut first = None;
    let mut copies: FuturesUnordered<_> =
        disks.iter_mut().map(|disk| copy_disk(run, disk, &siblings)).collect();
    while let Some(result) = copies.next().await {
        if let Err(error) = result {
            siblings.cancel();
            first.get_or_insert(error);
        }
    }
    drop(copies);
    run.disks = disks;
    first.map_or(Ok(()), Err)
}

async fn copy_disk(run: &Run<'_>, disk: &mut RunDisk, stop: &CancellationToken) -> Result<()> {
    let begun = Instant::now();
    let result = open_and_copy(run, disk, stop).await;
    disk.copy_time = begun.elapsed();
    result.inspect_err(|error| {
        let stopped_by_sibling = error.kind() == ErrorKind::Cancelled && !run.stop.is_cancelled();
        disk.error =
            Some(if stopped_by_sibling { "stopped: another disk failed".to_owned() } else { error.chain() });
    })
}

async fn open_and_copy(run: &Run<'_>, disk: &mut RunDisk, stop: &CancellationToken) -> Result<()> {
    let source = match disk.source.clone() {
        Some(source) => source,
        None => open_source(run, disk, stop).await?,
    };
    disk.source = Some(Arc::clone(&source));
    let (mut counters, config) = (disk.counters, disk.config);
    let plan = disk.plan();
    let zeroing = zeroing(run);
    zero_end(run, disk, stop).await?;
    let copier = Copier {
        key: &disk.point.key,
        source,
        target: disk.target_device(),
        capacity: disk.point.capacity,
        work: &plan.work,
        resumed: plan.resumed + plan.equal,
        blank: plan.blank,
        zeroing,
        recorder: &Journal { journal: &*run.services.journal, lease: &run.lease, key: &disk.point.key },
        admission: &run.budget.admission(&run.vm, &disk.point.key),
        config: &config,
        progress: run.progress,
        stop,
    };
    let result = copier.run(&mut counters).await;
    disk.counters = counters;
    result
}

const fn zeroing(run: &Run<'_>) -> Zeroing {
    match run.request.provisioning {
        Provisioning::Thin => Zeroing::Punch,
        Provisioning::Thick => Zeroing::Allocate,
    }
}

/// What lies behind the end of each disk, where nobody else writes.
pub(super) async fn zero_ends(run: &mut Run<'_>) -> Result<()> {
    for index in 0..run.disks.len() {
        let zeroed = zero_end(run, &run.disks[index], run.stop).await;
        zeroed.inspect_err(|error| run.disks[index].error = Some(error.chain()))?;
    }
    Ok(())
}

async fn zero_end(run: &Run<'_>, disk: &RunDisk, stop: &CancellationToken) -> Result<()> {
    if disk.plan().ends_zeroed {
        return Ok(());
    }
    let target = disk.target_device();
    zero_behind(&*target, disk.point.capacity, zeroing(run), &run.config.retry, stop).await
}

/// Nothing that a larger disk has left in the volume reads as if it were of this one. The copy's last flush makes it durable.
async fn zero_behind(
    target: &dyn BlockDevice,
    capacity: ByteSize,
    zeroing: Zeroing,
    patience: &RetryConfig,
    stop: &CancellationToken,
) -> Result<()> {
    let (unit, end) = (u64::from(target.info().block_sizes.minimum.max(1)), target.info().capacity.bytes());
    let mut at = capacity.bytes().next_multiple_of(unit);
    while let Some(left) = Extent::between(at, end.min(at.saturating_add(WINDOW))) {
        for status in retry(patience, stop, || status(target, left)).await? {
            if stop.is_cancelled() {
                return Err(Error::new(ErrorKind::Cancelled, "zero the end of", &target.info().identity));
            }
            at = status.extent.end();
            if !status.kind.reads_zero() {
                let zero = || target.write_zeroes(status.extent, zeroing, Durability::Cached);
                retry(patience, stop, zero).await?;
            }
        }
    }
    Ok(())
}

/// The disk at the point in time, as large as was promised.
pub(super) async fn open_source(
    run: &Run<'_>,
    disk: &RunDisk,
    stop: &CancellationToken,
) -> Result<Arc<dyn BlockDevice>> {
    let point: &PointId = &run.point.as_ref().expect("freezing comes before").id;
    let open = || run.services.source.open(point, &disk.point.key);
    let source = retry(&run.config.retry, stop, open).await?;
    if source.info().capacity < disk.point.capacity {
        return Err(Error::new(ErrorKind::Corrupt, "open source disk", &disk.point.key).because(format!(
            "it has {} bytes where {} were promised; find out who cut it, then run again",
            source.info().capacity.bytes(),
            disk.point.capacity.bytes()
        )));
    }
    Ok(source)
}
