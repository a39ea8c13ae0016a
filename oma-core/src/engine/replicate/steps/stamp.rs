//! What volumes look like when the run leaves them: by that the next one sees whether somebody else wrote meanwhile.

use tokio_util::sync::CancellationToken;

use crate::engine::config::ReplicateConfig;
use crate::engine::replicate::disk::RunDisk;
use crate::engine::replicate::run::Run;
use crate::engine::retry::retry;
use crate::engine::services::Services;
use crate::engine::volumes::{ReadyVolume, foreign, was_written};
use crate::record::{Lease, VolumeContent, VolumeTag};
use crate::traits::BlockDevice;
use crate::{Error, ErrorKind, Result, VolumeId};

/// Durably ends the generation of a volume that the run has open for writing: no later run may build on its change id or
/// its journal, however soon this one dies (L09). A stop does not keep it from being tried again.
pub(super) async fn end_generation(
    services: &Services,
    config: &ReplicateConfig,
    lease: &Lease,
    volume: &ReadyVolume,
) -> Result<VolumeTag> {
    let (id, never) = (&volume.record.id, CancellationToken::new());
    let generation = retry(&config.retry, &never, || services.volumes.advance_generation(lease, id)).await?;
    let tag = VolumeTag { generation, ..volume.tag.clone() };
    retry(&config.retry, &never, || services.backend.retag(id, &tag)).await?;
    Ok(tag)
}

/// Durably notes that the source of a disk broke a promise of zeroes: no later run believes one, or builds on what was copied
/// believing (L10).
pub(super) async fn distrust(run: &Run<'_>, disk: &RunDisk) -> Result<()> {
    let (services, volume) = (run.services, disk.ready_volume());
    let (id, never) = (&volume.record.id, CancellationToken::new());
    let note = || services.volumes.distrust_zeroes(&run.lease, id);
    let generation = retry(&run.config.retry, &never, note).await?;
    let tag = VolumeTag { generation, ..volume.tag.clone() };
    retry(&run.config.retry, &never, || services.backend.retag(id, &tag)).await
}

/// Asks once more whether somebody wrote, now that nobody else can open the volume; then its generation has ended, and what
/// an operator should know is answered.
pub(super) async fn check(
    services: &Services,
    config: &ReplicateConfig,
    lease: &Lease,
    disk: &mut RunDisk,
) -> Result<Option<String>> {
    let volume = disk.ready_volume();
    if !was_written(services, &volume.record).await? {
        return Ok(None);
    }
    let note = foreign(&volume.record);
    disown(services, config, lease, disk).await?;
    Ok(Some(note))
}

/// Ends the generation of a disk's volume, of whose content nothing is known any more.
pub(super) async fn disown(
    services: &Services,
    config: &ReplicateConfig,
    lease: &Lease,
    disk: &mut RunDisk,
) -> Result<()> {
    let tag = end_generation(services, config, lease, disk.ready_volume()).await?;
    if let Some(volume) = &mut disk.volume {
        (volume.record.generation, volume.record.content) = (tag.generation, VolumeContent::Inconsistent);
        (volume.record.stamp, volume.tag, volume.untouched) = (None, tag, false);
    }
    Ok(())
}

/// Before a volume has its first epoch it leaves the generation of the records that say that it never had one, and may be deleted at
/// once: a backup of them proves nothing of it any more (L02). What is known of its content, and its journal, goes along, so a run
/// after a crash in here has nothing to copy or to compare.
pub(super) async fn keep_from_old_records(
    services: &Services,
    config: &ReplicateConfig,
    lease: &Lease,
    disk: &mut RunDisk,
) -> Result<()> {
    let volume = disk.ready_volume();
    if volume.record.held_epoch {
        return Ok(());
    }
    let (id, never) = (&volume.record.id, CancellationToken::new());
    let generation = retry(&config.retry, &never, || services.volumes.renew_generation(lease, id)).await?;
    let tag = VolumeTag { generation, ..volume.tag.clone() };
    retry(&config.retry, &never, || services.backend.retag(id, &tag)).await?;
    if let Some(volume) = &mut disk.volume {
        (volume.record.generation, volume.record.held_epoch, volume.tag) = (generation, true, tag);
    }
    Ok(())
}

/// Keeps the stamps of all volumes that nobody serves any more, while they are still locked, and closes them. What was
/// written is flushed before: a write that is not durable may change the stamp later, or be lost. It is flushed again after: a
/// volume that was not locked any more has no stamp to be believed, and its generation has ended.
///
/// One that fails does not keep the others from being closed; the first failure is answered.
pub(super) async fn leave(run: &mut Run<'_>) -> Result<()> {
    let mut first = Ok(());
    for index in 0..run.disks.len() {
        if run.disks[index].export.is_some() {
            continue;
        }
        first = first.and(keep(run, index).await);
        run.disks[index].target = None;
    }
    first
}

async fn keep(run: &mut Run<'_>, index: usize) -> Result<()> {
    let (services, disk) = (run.services, &run.disks[index]);
    let Some(target) = disk.target.clone().filter(|_| disk.can_be_stamped()) else { return Ok(()) };
    let id = disk.ready_volume().record.id.clone();
    flush(run.config, &*target, &id).await?;
    let stamp = retry(&run.config.retry, run.stop, || services.backend.content_stamp(&id)).await?;
    if let Some(stamp) = &stamp {
        // What answers still was open all the time, and locked: the stamp shows what this run wrote. What does not may have been
        // lost before, as with the connection to another machine, and somebody else may have written what the stamp shows.
        if let Err(lost) = flush(run.config, &*target, &id).await {
            let disowned = disown(services, run.config, &run.lease, &mut run.disks[index]).await;
            if let Err(error) = disowned {
                tracing::warn!(volume = %id, error = %error.chain(), "the mark of a volume that was lost is not ended");
            }
            return Err(lost);
        }
        let keep = || services.volumes.keep_stamp(&run.lease, &id, stamp);
        retry(&run.config.retry, run.stop, keep).await?;
    }
    run.disks[index].stamp = stamp;
    Ok(())
}

async fn flush(config: &ReplicateConfig, target: &dyn BlockDevice, id: &VolumeId) -> Result<()> {
    let late = || Error::new(ErrorKind::Unavailable, "flush volume", id).because("it takes too long");
    tokio::time::timeout(config.drain, target.flush()).await.map_err(|_| late())?
}
