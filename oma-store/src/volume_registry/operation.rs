//! Intents and how they end.

use std::time::Duration;

use oma_core::record::{Lease, Operation, OperationSpec, ReplicationJob, VolumeContent, VolumeRecord};
use oma_core::state::{OperationEvent, OperationKind, OperationStatus, VolumeEvent};
use oma_core::traits::Volume;
use oma_core::{OperationId, VolumeId};

use super::deletion::{deleting, move_condemned};
use super::volume::{attached, created, deleted, detached, find_volume, next_generation, resized};
use crate::db::{Tx, vals};
use crate::error::{Result, StoreError};
use crate::lease::{find_disk, guard, is_of};
use crate::record::{operation, provisioning_column, volume};
use crate::sql::{operations, volumes};
use crate::store::SqlStore;

impl SqlStore {
    pub(super) async fn begin_operation(&self, lease: &Lease, spec: &OperationSpec) -> Result<Operation> {
        let mut tx = self.begin().await?;
        let job = guard(&mut tx, lease).await?;
        if let Some(known) = known(&mut tx, spec).await? {
            return Ok(known);
        }
        check(&mut tx, &job, spec).await?;
        if let (OperationKind::Delete, Some(id)) = (spec.kind, &spec.volume) {
            deleting(&mut tx, &job, id).await?;
        }
        let begun = insert(&mut tx, lease, spec, OperationStatus::Executing, None).await?;
        tx.commit().await?;
        Ok(begun)
    }

    pub(super) async fn complete_operation(
        &self,
        lease: &Lease,
        id: &OperationId,
        done: &Volume,
        content: VolumeContent,
    ) -> Result<VolumeRecord> {
        let mut tx = self.begin().await?;
        let known = own(&mut tx, lease, id).await?;
        if known.status == OperationStatus::Completed {
            return made(&mut tx, id).await;
        }
        let status = known.status.next(OperationEvent::Complete)?;
        if known.spec.volume.as_ref().is_some_and(|asked| *asked != done.id) {
            return Err(StoreError::Invalid(format!("it is about another volume than {}", done.id)));
        }
        let now = tx.now().await?;
        let disk = find_disk(&mut tx, &known.spec.disk).await?;
        match known.spec.kind {
            OperationKind::Create => created(&mut tx, &disk, done, content, now).await?,
            OperationKind::Attach => attached(&mut tx, &lease.worker, done, now).await?,
            OperationKind::Detach => detached(&mut tx, &done.id, now).await?,
            OperationKind::Resize => resized(&mut tx, done, now).await?,
            OperationKind::Snapshot | OperationKind::DeleteSnapshot => {
                find_volume(&mut tx, &done.id).await.map(|_| ())?;
            }
            OperationKind::Revert => next_generation(&mut tx, &disk, &done.id, now).await.map(|_| ())?,
            OperationKind::Delete => {
                find_volume(&mut tx, &done.id).await?;
                deleted(&mut tx, &done.id, now).await?;
            }
        }
        tx.execute(operations::COMPLETE, vals![status, done.id, now, now, id]).await?;
        let answer = made(&mut tx, id).await?;
        tx.commit().await?;
        Ok(answer)
    }

    pub(super) async fn fail_operation(&self, lease: &Lease, id: &OperationId, error: &str) -> Result<()> {
        let mut tx = self.begin().await?;
        let known = own(&mut tx, lease, id).await?;
        if known.status == OperationStatus::Failed {
            return Ok(());
        }
        only_executing(&known)?;
        let status = known.status.next(OperationEvent::Fail)?;
        let now = tx.now().await?;
        if let (OperationKind::Delete, Some(id)) = (known.spec.kind, &known.spec.volume) {
            move_condemned(&mut tx, id, VolumeEvent::Keep).await?;
        }
        tx.execute(operations::END, vals![status, error, now, now, id]).await?;
        tx.commit().await
    }

    pub(super) async fn doubt_operation(&self, lease: &Lease, id: &OperationId, why: &str) -> Result<()> {
        let mut tx = self.begin().await?;
        only_executing(&own(&mut tx, lease, id).await?)?;
        let now = tx.now().await?;
        tx.execute(operations::DOUBT, vals![why, now, id]).await?;
        tx.commit().await
    }
}

fn only_executing(known: &Operation) -> Result<()> {
    match known.status {
        OperationStatus::Executing => Ok(()),
        other => Err(StoreError::Conflict(format!("it is {other}, not executing"))),
    }
}

/// The operation of this id, when it wants the same.
pub(super) async fn known(tx: &mut Tx, spec: &OperationSpec) -> Result<Option<Operation>> {
    let Some(known) = find(tx, &spec.id).await? else { return Ok(None) };
    if known.spec == *spec { Ok(Some(known)) } else { Err(StoreError::exists("operation", &spec.id)) }
}

pub(super) async fn insert(
    tx: &mut Tx,
    lease: &Lease,
    spec: &OperationSpec,
    status: OperationStatus,
    grace: Option<Duration>,
) -> Result<Operation> {
    let now = tx.now().await?;
    let due_at = grace.map(|grace| now.after(grace));
    let OperationSpec { id, kind, disk, volume, job, capacity, name, provisioning, snapshot } = spec;
    let provisioning = provisioning_column(*provisioning);
    let values = vals![
        id,
        kind,
        status,
        disk.context,
        disk.key,
        job,
        lease.worker,
        capacity,
        name,
        provisioning,
        snapshot,
        volume,
        due_at,
        now,
        now,
    ];
    tx.execute(operations::INSERT, values).await?;
    Ok(Operation {
        spec: spec.clone(),
        worker: Some(lease.worker.clone()),
        status,
        error: None,
        made: None,
        due_at,
        created_at: now,
        updated_at: now,
    })
}

pub(super) async fn find(tx: &mut Tx, id: &OperationId) -> Result<Option<Operation>> {
    tx.find(operations::BY_ID, vals![id], operation).await
}

/// The operation, when it is on a disk of the lease's job: a later job may finish what an earlier one began.
pub(super) async fn own(tx: &mut Tx, lease: &Lease, id: &OperationId) -> Result<Operation> {
    let job = guard(tx, lease).await?;
    let known = find(tx, id).await?.filter(|known| is_of(&job, &known.spec.disk));
    known.ok_or_else(|| StoreError::missing("operation on a disk of this job", id))
}

pub(super) async fn check(tx: &mut Tx, job: &ReplicationJob, spec: &OperationSpec) -> Result<()> {
    if spec.job != job.id {
        return Err(StoreError::Invalid(format!("it names job {}, the lease is on {}", spec.job, job.id)));
    }
    if !is_of(job, &spec.disk) {
        return Err(StoreError::missing("disk of this job", &spec.disk));
    }
    match &spec.volume {
        None if spec.kind != OperationKind::Create => {
            return Err(StoreError::Invalid("it names no volume; only a create may".to_owned()));
        }
        Some(id) if !is_made_for(tx, id, spec).await? => {
            return Err(StoreError::missing("volume of this disk", id));
        }
        _ => {}
    }
    if spec.kind.is_of_snapshot() && spec.snapshot.is_none() {
        return Err(StoreError::Invalid("it is about a snapshot and names none".to_owned()));
    }
    let live = tx.find(operations::UNFINISHED, vals![spec.disk.context, spec.disk.key], operation).await?;
    live.map_or(Ok(()), |live| Err(StoreError::Unfinished(live.spec.id)))
}

async fn is_made_for(tx: &mut Tx, id: &VolumeId, spec: &OperationSpec) -> Result<bool> {
    let found = tx.find(volumes::BY_ID, vals![id], volume).await?;
    Ok(found.is_some_and(|volume| volume.disk == spec.disk))
}

/// The volume that a completed operation ended with, also when it is deleted.
async fn made(tx: &mut Tx, id: &OperationId) -> Result<VolumeRecord> {
    let found = tx.find(volumes::MADE_BY, vals![id], volume).await?;
    found.ok_or_else(|| StoreError::missing("volume of operation", id))
}
