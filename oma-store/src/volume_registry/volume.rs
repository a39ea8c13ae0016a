//! Volumes, their devices and their links: only from here are they changed.

use oma_core::record::{ContentStamp, Lease, VolumeContent, VolumeRecord};
use oma_core::state::{VolumeEvent, VolumeStatus};
use oma_core::traits::Volume;
use oma_core::{Generation, Timestamp, VolumeId, WorkerId};

use crate::db::{Row, Tx, vals};
use crate::error::{Result, StoreError};
use crate::extent_journal::renew_journal;
use crate::lease::{OwnDisk, guard, guard_volume, is_of};
use crate::record::{content_columns, volume};
use crate::recovery_points::give_up_points;
use crate::sql::{vms, volumes};
use crate::store::SqlStore;

impl SqlStore {
    pub(super) async fn mark(&self, lease: &Lease, id: &VolumeId) -> Result<()> {
        let mut tx = self.begin().await?;
        guard_volume(&mut tx, lease, id).await?;
        let (content, epoch) = content_columns(VolumeContent::Inconsistent);
        let now = tx.now().await?;
        tx.execute(volumes::SET_CONTENT, vals![content, epoch, now, id]).await?;
        give_up_points(&mut tx, &lease.job, now).await?;
        tx.commit().await
    }

    pub(super) async fn stamp(&self, lease: &Lease, id: &VolumeId, stamp: &ContentStamp) -> Result<()> {
        let mut tx = self.begin().await?;
        let (_, known) = guard_volume(&mut tx, lease, id).await?;
        if let VolumeContent::Epoch(epoch) = known.content {
            let reason = format!("volume {id} holds epoch {epoch}; its stamp is that of its commit");
            return Err(StoreError::Conflict(reason));
        }
        let now = tx.now().await?;
        tx.execute(volumes::KEEP_STAMP, vals![stamp.0, now, id]).await?;
        tx.commit().await
    }

    pub(super) async fn advance_volume(&self, lease: &Lease, id: &VolumeId) -> Result<Generation> {
        let mut tx = self.begin().await?;
        let (disk, _) = guard_volume(&mut tx, lease, id).await?;
        let now = tx.now().await?;
        let generation = next_generation(&mut tx, &disk, id, now).await?;
        tx.commit().await?;
        Ok(generation)
    }

    pub(super) async fn renew_volume(&self, lease: &Lease, id: &VolumeId) -> Result<Generation> {
        let mut tx = self.begin().await?;
        let (disk, known) = guard_volume(&mut tx, lease, id).await?;
        let generation = renewed_generation(&mut tx, &disk, &known).await?;
        tx.commit().await?;
        Ok(generation)
    }

    pub(super) async fn distrust(&self, lease: &Lease, id: &VolumeId) -> Result<Generation> {
        let mut tx = self.begin().await?;
        let (disk, _) = guard_volume(&mut tx, lease, id).await?;
        let now = tx.now().await?;
        tx.execute(vms::DISTRUST_ZEROES, vals![now, disk.row]).await?;
        let generation = next_generation(&mut tx, &disk, id, now).await?;
        tx.commit().await?;
        Ok(generation)
    }

    pub(super) async fn forget_volume(&self, lease: &Lease, id: &VolumeId) -> Result<()> {
        let mut tx = self.begin().await?;
        let job = guard(&mut tx, lease).await?;
        let Some(known) = find(&mut tx, id).await? else {
            return Ok(());
        };
        if !is_of(&job, &known.disk) {
            return Err(StoreError::missing("volume of this job", id));
        }
        let now = tx.now().await?;
        deleted(&mut tx, id, now).await?;
        tx.commit().await
    }
}

async fn find(tx: &mut Tx, id: &VolumeId) -> Result<Option<VolumeRecord>> {
    tx.find(volumes::BY_ID, vals![id], volume).await
}

pub(super) async fn find_volume(tx: &mut Tx, id: &VolumeId) -> Result<VolumeRecord> {
    find(tx, id).await?.ok_or_else(|| StoreError::missing("volume", id))
}

/// A new volume takes the link of the disk over, one generation later than all before.
pub(super) async fn created(
    tx: &mut Tx,
    disk: &OwnDisk,
    done: &Volume,
    content: VolumeContent,
    now: Timestamp,
) -> Result<()> {
    let generation = disk.generation.checked_add(1).ok_or(StoreError::TooLarge(disk.generation))?;
    let (content, _) = content_columns(content);
    let id = &disk.record.disk;
    let known = tx.find(volumes::ANY_BY_ID, vals![done.id], volume).await?;
    match known {
        Some(other) if other.disk != *id => {
            let reason = format!("volume {} was made for disk {}; it is not this one's", done.id, other.disk);
            return Err(StoreError::Conflict(reason));
        }
        Some(_) => {
            tx.execute(volumes::UNMAP, vals![done.id]).await?;
            let values =
                vals![done.name, done.capacity, generation, content, VolumeStatus::Created, now, done.id];
            tx.execute(volumes::REVIVE, values).await?;
        }
        None => {
            let values = vals![
                done.id,
                done.name,
                id.context,
                id.key,
                done.capacity,
                generation,
                content,
                VolumeStatus::Created,
                now,
                now,
            ];
            tx.execute(volumes::INSERT, values).await?;
        }
    }
    tx.execute(vms::LINK_VOLUME, vals![done.id, generation, now, disk.row]).await.map(|_| ())
}

pub(super) async fn attached(tx: &mut Tx, worker: &WorkerId, done: &Volume, now: Timestamp) -> Result<()> {
    let Some(path) = &done.device_path else {
        return Err(StoreError::Invalid("the volume is attached and has no device path".to_owned()));
    };
    let mapped = |row: &Row| row.fields("device_mappings", "volume_uuid").parse("volume_uuid");
    let taken: Option<VolumeId> = tx.find(volumes::BY_DEVICE, vals![worker, path], mapped).await?;
    if let Some(other) = taken.filter(|other| *other != done.id) {
        return Err(StoreError::Conflict(format!(
            "device {path} of {worker} is volume {other}; detach that one first"
        )));
    }
    let known = find_volume(tx, &done.id).await?;
    // Attached once more, perhaps elsewhere, after this machine was restarted.
    let status = match known.status {
        VolumeStatus::Attached => VolumeStatus::Attached,
        other => other.next(VolumeEvent::Attach)?,
    };
    tx.execute(volumes::SET_STATUS, vals![status, path, now, done.id]).await?;
    if tx.execute(volumes::REMAP, vals![worker, path, known.capacity, now, done.id]).await? == 0 {
        tx.execute(volumes::MAP, vals![done.id, worker, path, known.capacity, now, now]).await?;
    }
    Ok(())
}

/// The mapping goes, and every export of it.
pub(super) async fn detached(tx: &mut Tx, id: &VolumeId, now: Timestamp) -> Result<()> {
    let status = match find_volume(tx, id).await?.status {
        VolumeStatus::Detached => VolumeStatus::Detached,
        other => other.next(VolumeEvent::Detach)?,
    };
    tx.execute(volumes::UNMAP, vals![id]).await?;
    tx.execute(volumes::SET_STATUS, vals![status, None::<String>, now, id]).await.map(|_| ())
}

pub(super) async fn resized(tx: &mut Tx, done: &Volume, now: Timestamp) -> Result<()> {
    find_volume(tx, &done.id).await?;
    tx.execute(volumes::RESIZE_DEVICE, vals![done.capacity, now, done.id]).await?;
    tx.execute(volumes::SET_CAPACITY, vals![done.capacity, now, done.id]).await.map(|_| ())
}

/// What the content was is not what it is any more (L09).
pub(super) async fn next_generation(
    tx: &mut Tx,
    disk: &OwnDisk,
    id: &VolumeId,
    now: Timestamp,
) -> Result<Generation> {
    let known = find_volume(tx, id).await?;
    let generation = Generation(disk.generation.max(known.generation.0)).next();
    let (content, _) = content_columns(VolumeContent::Inconsistent);
    tx.execute(volumes::SET_GENERATION, vals![generation, content, now, id]).await?;
    tx.execute(vms::ADVANCE_GENERATION, vals![generation, disk.row]).await?;
    Ok(generation)
}

/// The next generation, for which everything counts that is known of the content.
pub(super) async fn renewed_generation(
    tx: &mut Tx,
    disk: &OwnDisk,
    known: &VolumeRecord,
) -> Result<Generation> {
    let (old, now) = (known.generation, tx.now().await?);
    let generation = Generation(disk.generation.max(old.0)).next();
    tx.execute(volumes::RENEW_GENERATION, vals![generation, now, known.id]).await?;
    tx.execute(vms::ADVANCE_GENERATION, vals![generation, disk.row]).await?;
    tx.execute(vms::RENEW_CHANGE, vals![generation, disk.row, old]).await?;
    renew_journal(tx, disk, old, generation).await?;
    Ok(generation)
}

/// Out of the records: mapping, exports and link go; the row stays as what the operations were about.
pub(super) async fn deleted(tx: &mut Tx, id: &VolumeId, now: Timestamp) -> Result<()> {
    tx.execute(volumes::UNMAP, vals![id]).await?;
    tx.execute(vms::UNLINK_VOLUME, vals![now, id]).await?;
    tx.execute(volumes::SET_STATUS, vals![VolumeStatus::Deleted, None::<String>, now, id]).await.map(|_| ())
}
