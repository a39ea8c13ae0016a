//! Volumes are deleted at once when they never held an epoch, and else in two steps.

use std::time::Duration;

use oma_core::record::{Lease, Operation, OperationSpec, ReplicationJob};
use oma_core::state::{JobKind, OperationEvent, OperationKind, OperationStatus, VolumeEvent};
use oma_core::{OperationId, VolumeId};

use super::operation::{check, insert, known, own};
use super::volume::{find_volume, renewed_generation};
use crate::cleanups::unless_protected;
use crate::db::{Tx, vals};
use crate::error::{Result, StoreError};
use crate::lease::{check_kind, find_disk, guard};
use crate::record::volume;
use crate::sql::{operations, volumes};
use crate::store::SqlStore;

impl SqlStore {
    pub(super) async fn condemn_volume(
        &self,
        lease: &Lease,
        spec: &OperationSpec,
        grace: Duration,
    ) -> Result<Operation> {
        let mut tx = self.begin().await?;
        let job = guard(&mut tx, lease).await?;
        if let Some(known) = known(&mut tx, spec).await? {
            return Ok(known);
        }
        let (OperationKind::Delete, Some(id)) = (spec.kind, &spec.volume) else {
            return Err(StoreError::Invalid(format!("it is to {} the volume, not to delete it", spec.kind)));
        };
        check(&mut tx, &job, spec).await?;
        check_kind(&job, JobKind::Operate)?;
        unless_protected(&mut tx, &job.context, JobKind::Operate).await?;
        move_condemned(&mut tx, id, VolumeEvent::Condemn).await?;
        let condemned = insert(&mut tx, lease, spec, OperationStatus::Pending, Some(grace)).await?;
        tx.commit().await?;
        Ok(condemned)
    }

    pub(super) async fn execute_operation(&self, lease: &Lease, id: &OperationId) -> Result<Operation> {
        let mut tx = self.begin().await?;
        let known = own(&mut tx, lease, id).await?;
        check_kind(&guard(&mut tx, lease).await?, JobKind::Operate)?;
        let status = known.status.next(OperationEvent::Execute)?;
        if known.status == status {
            return Ok(known);
        }
        let now = tx.now().await?;
        if let Some(due_at) = known.due_at.filter(|due_at| *due_at > now) {
            return Err(StoreError::Conflict(format!("it is not due before {due_at}; wait, or call it off")));
        }
        unless_protected(&mut tx, &known.spec.disk.context, JobKind::Operate).await?;
        if let Some(id) = &known.spec.volume {
            move_condemned(&mut tx, id, VolumeEvent::Delete).await?;
        }
        tx.execute(operations::EXECUTE, vals![status, now, id]).await?;
        tx.commit().await?;
        Ok(Operation { status, due_at: None, updated_at: now, ..known })
    }

    pub(super) async fn pardon_volume(
        &self,
        lease: &Lease,
        id: &OperationId,
        reason: &str,
    ) -> Result<Operation> {
        let mut tx = self.begin().await?;
        let known = own(&mut tx, lease, id).await?;
        check_kind(&guard(&mut tx, lease).await?, JobKind::Operate)?;
        if known.status == OperationStatus::Cancelled {
            return Ok(known);
        }
        let status = known.status.next(OperationEvent::Cancel)?;
        if let Some(id) = &known.spec.volume {
            move_condemned(&mut tx, id, VolumeEvent::Pardon).await?;
            if let Some(volume) = tx.find(volumes::BY_ID, vals![id], volume).await? {
                let disk = find_disk(&mut tx, &volume.disk).await?;
                renewed_generation(&mut tx, &disk, &volume).await?;
            }
        }
        let now = tx.now().await?;
        tx.execute(operations::END, vals![status, reason, now, now, id]).await?;
        tx.commit().await?;
        Ok(Operation { status, error: Some(reason.to_owned()), due_at: None, updated_at: now, ..known })
    }
}

/// A volume that never held an epoch is about to be deleted.
pub(super) async fn deleting(tx: &mut Tx, job: &ReplicationJob, id: &VolumeId) -> Result<()> {
    check_kind(job, JobKind::Operate)?;
    unless_protected(tx, &job.context, JobKind::Operate).await?;
    if find_volume(tx, id).await?.held_epoch {
        let reason = format!("volume {id} held an epoch, so it is condemned before it is deleted");
        return Err(StoreError::Conflict(reason));
    }
    move_condemned(tx, id, VolumeEvent::Delete).await
}

/// Moves the volume of a delete, unless it is gone from the records meanwhile.
pub(super) async fn move_condemned(tx: &mut Tx, id: &VolumeId, event: VolumeEvent) -> Result<()> {
    let Some(known) = tx.find(volumes::BY_ID, vals![id], volume).await? else { return Ok(()) };
    let status = known.status.next(event)?;
    let now = tx.now().await?;
    tx.execute(volumes::SET_STATUS, vals![status, None::<String>, now, id]).await.map(|_| ())
}
