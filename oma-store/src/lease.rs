//! The fence in front of every write for a job (L16).

use oma_core::record::{DiskRecord, Lease, ReplicationJob, VolumeRecord};
use oma_core::state::JobKind;
use oma_core::{DiskKey, DiskRef, VolumeId};

use crate::db::{Row, Tx, vals};
use crate::error::{Result, StoreError};
use crate::record::{disk, job, volume};
use crate::sql::{jobs, vms, volumes};

/// Locks the job for the rest of the transaction and answers it, when the lease is the newest and was not given back.
///
/// Expiry is not looked at: a late owner goes on as long as nobody claimed the job (L17).
pub(crate) async fn guard(tx: &mut Tx, lease: &Lease) -> Result<ReplicationJob> {
    let values = vals![lease.job, lease.fence, lease.worker];
    if tx.execute(jobs::GUARD, values).await? == 0 {
        return Err(StoreError::Fenced);
    }
    tx.find(jobs::BY_ID, vals![lease.job], job).await?.ok_or(StoreError::Fenced)
}

/// Refuses a job of another kind: one that reverts makes no epoch, and one that replicates goes back to none.
pub(crate) fn check_kind(job: &ReplicationJob, kind: JobKind) -> Result<()> {
    if job.kind == kind {
        return Ok(());
    }
    Err(StoreError::Conflict(format!("job {} is there to {}, not to {kind}", job.id, job.kind)))
}

/// [`guard`], and the disk must be the job's.
pub(crate) async fn guard_disk(tx: &mut Tx, lease: &Lease, key: &DiskKey) -> Result<OwnDisk> {
    let job = guard(tx, lease).await?;
    let disk = tx.find(vms::DISK, vals![job.context, key], OwnDisk::read).await?;
    disk.filter(|_| job.disks.contains(key)).ok_or_else(|| StoreError::missing("disk of this job", key))
}

/// [`guard`], and the volume must be the one that a disk of the job has now.
pub(crate) async fn guard_volume(
    tx: &mut Tx,
    lease: &Lease,
    id: &VolumeId,
) -> Result<(OwnDisk, VolumeRecord)> {
    let job = guard(tx, lease).await?;
    let missing = || StoreError::missing("volume of this job", id);
    let known = tx.find(volumes::BY_ID, vals![id], volume).await?.ok_or_else(missing)?;
    let disk = find_disk(tx, &known.disk).await?;
    let linked = disk.record.volume.as_ref() == Some(id) && is_of(&job, &known.disk);
    if linked { Ok((disk, known)) } else { Err(missing()) }
}

/// Whether a disk is the job's.
pub(crate) fn is_of(job: &ReplicationJob, disk: &DiskRef) -> bool {
    job.context == disk.context && job.disks.contains(&disk.key)
}

pub(crate) async fn find_disk(tx: &mut Tx, disk: &DiskRef) -> Result<OwnDisk> {
    let found = tx.find(vms::DISK, vals![disk.context, disk.key], OwnDisk::read).await?;
    found.ok_or_else(|| StoreError::missing("disk", disk))
}

/// A disk and what of its row is no part of the record.
#[derive(Debug)]
pub(crate) struct OwnDisk {
    pub(crate) row: i64,
    /// The largest generation that any volume of it ever had; 0 before the first.
    pub(crate) generation: u64,
    pub(crate) record: DiskRecord,
}

impl OwnDisk {
    pub(crate) fn read(row: &Row) -> Result<Self> {
        let fields = row.fields("vm_disks", "row_id");
        Ok(Self { row: fields.int("row_id")?, generation: fields.count("generation")?, record: disk(row)? })
    }
}
