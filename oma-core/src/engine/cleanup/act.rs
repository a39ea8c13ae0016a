//! One step: each looks again, may be done twice, and is done under a job of its VM.

use std::fmt;
use std::time::Duration;

use super::CleanupService;
use super::run::{NotDone, changed, judged};
use crate::engine::points;
use crate::engine::volumes::Mend;
use crate::record::{
    Cleanup, CleanupAction as A, CleanupPlan, CleanupVolume, DiskRecord, ExportRecord, FailoverRecord, Lease,
    Needless, Operation, Presence, VolumeRecord, VolumeTag,
};
use crate::state::{
    CleanupStepStatus, ExportEvent, ExportStatus, OperationKind, OperationStatus, PointStatus, VolumeStatus,
};
use crate::traits::SnapshotSpec;
use crate::{Error, ErrorKind, ExportName, OperationId, RecoveryPointId, Result};

/// How long an export may take to drain.
const DRAIN: Duration = Duration::from_secs(10);

impl CleanupService {
    /// Does a step, or finds that it was done. One that was kept from the volumes by a failover is not tried again.
    pub(super) async fn step(&self, cleanup: &Cleanup, at: usize) -> Result<(), NotDone> {
        let done = self.take_step(cleanup, at).await;
        let action = &cleanup.steps[at].action;
        let is_of_volumes = !matches!(action, A::DeleteFailover { .. } | A::DeleteJob { .. } | A::Check);
        if let Err(NotDone::Failed(_)) = &done
            && is_of_volumes
            && let Err(booted) = self.unless_booted(cleanup, action).await
            && let changed @ NotDone::Changed(_) = judged(&booted)
        {
            return Err(changed);
        }
        done
    }

    async fn take_step(&self, cleanup: &Cleanup, at: usize) -> Result<(), NotDone> {
        let done = match &cleanup.steps[at].action {
            A::Withdraw { export, disk } => {
                let (this, export, disk) = (self.clone(), export.clone(), disk.clone());
                let withdraw = |lease: Lease| async move {
                    this.unless_booted(cleanup, &export).await?;
                    let found = this.0.services.exports.export(&export).await?;
                    if let Some(found) = &found {
                        this.still_left(found, &cleanup.spec.plan.job).await?;
                    }
                    this.withdraw(&lease, &export, found).await
                };
                self.volumes().holding(&disk, withdraw).await
            }
            A::DropPoint { point } => self.drop_point(cleanup, point).await,
            A::DropSnapshot { snapshot } => self.drop_snapshot(cleanup, snapshot).await,
            A::Detach { volume } => return self.operate(cleanup, at, volume, OperationKind::Detach).await,
            A::Delete { volume } => return self.operate(cleanup, at, volume, OperationKind::Delete).await,
            A::Condemn { volume } => return self.condemn(cleanup, at, volume).await,
            A::Forget { volume } => self.forget(cleanup, volume).await,
            A::DeleteFailover { failover_job } => self.records().forget_failover(failover_job).await,
            A::DeleteJob { job } => self.volumes().services().jobs.delete(job).await,
            A::Check => return self.check(cleanup).await,
        };
        match done {
            Ok(()) => Ok(()),
            Err(error) => Err(judged(&error)),
        }
    }

    /// Whether an export is still of a job that has ended.
    async fn still_left(&self, found: &ExportRecord, job: &crate::JobId) -> Result<()> {
        if found.job == *job {
            return Ok(());
        }
        let claimant = self.volumes().services().jobs.get(&found.job).await?;
        if claimant.is_none_or(|job| job.status.is_terminal()) {
            return Ok(());
        }
        Err(changed("withdraw export", &found.name, format!("job {} has it now", found.job)))
    }

    /// The record is taken over first: until it is gone it says who is at it (L15).
    async fn withdraw(&self, lease: &Lease, name: &ExportName, found: Option<ExportRecord>) -> Result<()> {
        let services = &self.0.services;
        if let Some(found) = &found
            && found.status != ExportStatus::Stopped
        {
            services.exports.begin(lease, name, &found.disk.key, &found.volume).await?;
            services.exports.advance(lease, name, ExportEvent::Drain).await?;
        }
        services.server.withdraw(name, DRAIN).await?;
        if found.is_some_and(|found| found.status != ExportStatus::Stopped) {
            services.exports.advance(lease, name, ExportEvent::Stopped).await?;
        }
        services.exports.remove(name).await
    }

    /// Under a job of the VM: a run that takes it up would delete it, too.
    async fn drop_point(&self, cleanup: &Cleanup, id: &RecoveryPointId) -> Result<()> {
        let (points, backend) = (&self.0.services.points, &self.volumes().services().backend);
        let Some(found) = points.point(id).await? else { return Ok(()) };
        let disks = self.0.services.inventory.disks(&found.context).await?;
        let Some(disk) = disks.into_iter().next() else {
            return Err(Error::new(ErrorKind::NotFound, "find a disk of VM", &found.context));
        };
        let drop = |_: Lease| async move {
            self.unless_booted(cleanup, id).await?;
            match points.point(id).await? {
                None => return Ok(()),
                Some(found) if found.status == PointStatus::Ready => {
                    return Err(changed("delete recovery point", id, "it is ready now".to_owned()));
                }
                Some(_) => {}
            }
            match points.condemn_point(id, Needless::Unfinished, "its job was cleaned up").await {
                Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
                condemned => condemned?,
            }
            let Some(point) = points.point(id).await? else { return Ok(()) };
            self.volumes().answered(id, points::delete(&**backend, &**points, &point)).await
        };
        self.volumes().holding(&disk.disk, drop).await
    }

    async fn drop_snapshot(&self, cleanup: &Cleanup, snapshot: &SnapshotSpec) -> Result<()> {
        let drop = |_: Lease| async move {
            self.unless_booted(cleanup, &snapshot.id).await?;
            let late = self.late_snapshots(&cleanup.spec.plan).await?;
            if !late.snapshots.contains(snapshot) {
                return Ok(());
            }
            if let Some(newer) = late.newer {
                return Err(changed("delete snapshot", &snapshot.id, newer));
            }
            let backend = &self.volumes().services().backend;
            self.volumes().answered(&snapshot.id, backend.delete_snapshot(snapshot)).await
        };
        self.volumes().holding(&snapshot.tag.disk, drop).await
    }

    /// Nothing is taken from the volumes of a VM that another one may run from (L07).
    async fn unless_booted(&self, cleanup: &Cleanup, about: &impl fmt::Display) -> Result<()> {
        let CleanupPlan { context, failover_job, .. } = &cleanup.spec.plan;
        let failovers = self.records().failovers(context).await?;
        match FailoverRecord::protecting(&failovers, failover_job.as_slice()) {
            None => Ok(()),
            Some(failover) => Err(changed("clean up", about, failover.protection())),
        }
    }

    /// Detaches or deletes by an operation that is recorded with the step before it is begun.
    async fn operate(
        &self,
        cleanup: &Cleanup,
        at: usize,
        volume: &CleanupVolume,
        kind: OperationKind,
    ) -> Result<(), NotDone> {
        let done = async {
            if let Some(before) = &cleanup.steps[at].operation
                && let Some(left) = self.volumes().left(before).await?
            {
                self.volumes().resume(&left).await?;
                return self.volumes().wait(before, self.volumes().answer_limit()).await.map(Some);
            }
            let id = OperationId::mint();
            self.tell(&cleanup.spec.id, at, CleanupStepStatus::Executing, None, Some(id.clone())).await?;
            let check = self.is_to_do(cleanup, volume, kind);
            match self.volumes().mend(&volume.disk, Mend::Operate(&id, kind, &volume.id), check).await? {
                Some(begun) => self.volumes().wait(&begun, self.volumes().answer_limit()).await.map(Some),
                None => Ok(None),
            }
        };
        match done.await {
            Ok(operation) => operation.map_or(Ok(()), |operation| ended(&operation)),
            Err(error) => Err(judged(&error)),
        }
    }

    /// Looked at under the lease: a job that had it since would be the one whose volume goes (L07).
    async fn condemn(&self, cleanup: &Cleanup, at: usize, volume: &CleanupVolume) -> Result<(), NotDone> {
        let done = async {
            let services = self.volumes().services();
            let mut planned = volume.clone();
            if let Some(before) = &cleanup.steps[at].operation
                && let Some(known) = services.volumes.operation(before).await?
            {
                if known.status != OperationStatus::Failed {
                    return Ok(Some(known));
                }
                // The deletion of this very step that failed has left its generation, and nothing else.
                let record = services.volumes.volume(&volume.id).await?;
                if record.is_some_and(|record| record.generation == volume.generation.next()) {
                    planned = renewed(volume);
                }
            }
            let id = OperationId::mint();
            self.tell(&cleanup.spec.id, at, CleanupStepStatus::Executing, None, Some(id.clone())).await?;
            let check = self.is_to_do(cleanup, &planned, OperationKind::Delete);
            let condemn = Mend::Condemn(&id, &volume.id, self.volumes().grace());
            self.volumes().mend(&volume.disk, condemn, check).await?;
            services.volumes.operation(&id).await
        };
        match done.await {
            Ok(None) => Ok(()),
            Ok(Some(operation)) if operation.status == OperationStatus::Pending => Ok(()),
            Ok(Some(operation)) if operation.status == OperationStatus::Cancelled => {
                let why = operation.error.unwrap_or_default();
                Err(NotDone::Changed(format!("its deletion was called off: {why}")))
            }
            Ok(Some(operation)) => ended(&operation),
            Err(error) => Err(judged(&error)),
        }
    }

    async fn forget(&self, cleanup: &Cleanup, volume: &CleanupVolume) -> Result<()> {
        let check = async {
            if !self.is_to_do(cleanup, volume, OperationKind::Delete).await? {
                return Ok(false);
            }
            self.is_gone(cleanup, volume).await?;
            Ok(true)
        };
        self.volumes().mend(&volume.disk, Mend::Forget(&volume.id), check).await.map(drop)
    }

    /// Asked in two ways: the place must still have others of ours (L21).
    async fn is_gone(&self, cleanup: &Cleanup, volume: &CleanupVolume) -> Result<()> {
        use futures_util::TryStreamExt as _;
        let backend = &self.volumes().services().backend;
        let listing = backend.list(&cleanup.spec.plan.instance).try_collect::<Vec<_>>();
        let listed = self.volumes().answered(&volume.id, listing).await?;
        if listed.is_empty() || listed.iter().any(|listed| listed.id == volume.id) {
            let reason = "the backend lists it, or nothing of ours at all";
            return Err(Error::new(ErrorKind::Conflict, "forget volume", &volume.id).because(reason));
        }
        Ok(())
    }

    /// Whether the volume is as the plan saw it; `false` when nothing is left to do. Asked under the lease.
    async fn is_to_do(&self, cleanup: &Cleanup, volume: &CleanupVolume, kind: OperationKind) -> Result<bool> {
        let services = self.volumes().services();
        let Some(record) = services.volumes.volume(&volume.id).await? else { return Ok(false) };
        let is_detached = record.status != VolumeStatus::Attached && record.device_path.is_none();
        if kind == OperationKind::Detach && is_detached {
            return Ok(false);
        }
        let found = self.volumes().answered(&volume.id, services.backend.get(&volume.id)).await?;
        let now = CleanupVolume::of(&record, Presence::of(found));
        let disk = self.0.services.inventory.disk(&volume.disk).await?;
        let why = differs(volume, &now).or_else(|| taken(&cleanup.spec.plan.job, &record, disk.as_ref()));
        let elsewhere = || {
            let machine = record.attached_to.as_ref().filter(|worker| *worker != self.volumes().worker());
            machine.map(|worker| format!("it is attached at the machine of worker {worker}"))
        };
        match why.or_else(elsewhere) {
            None => self.unless_booted(cleanup, &volume.id).await.map(|()| true),
            Some(why) => Err(changed("clean up volume", &volume.id, why)),
        }
    }
}

/// The same volume once its generation was renewed, and it bears that.
fn renewed(volume: &CleanupVolume) -> CleanupVolume {
    let generation = volume.generation.next();
    let found = match volume.found.clone() {
        Presence::Present { tag: Some(tag) } => {
            Presence::Present { tag: Some(VolumeTag { generation, ..tag }) }
        }
        found => found,
    };
    CleanupVolume { generation, found, ..volume.clone() }
}

fn differs(planned: &CleanupVolume, now: &CleanupVolume) -> Option<String> {
    (planned != now)
        .then(|| "it is not as the plan saw it: its disk, generation, epoch or mark changed".to_owned())
}

/// Why the volume is not the job's any more.
fn taken(job: &crate::JobId, record: &VolumeRecord, disk: Option<&DiskRecord>) -> Option<String> {
    match disk {
        Some(disk) if disk.volume.as_ref() != Some(&record.id) => {
            Some("its disk has another volume".to_owned())
        }
        Some(disk) if disk.job.as_ref() != Some(job) => Some("another job has its disk".to_owned()),
        Some(_) => None,
        None => Some("its disk is not recorded".to_owned()),
    }
}

fn ended(operation: &Operation) -> Result<(), NotDone> {
    let Operation { spec, status, error, .. } = operation;
    let why = error.clone().unwrap_or_else(|| format!("operation {} is {status}", spec.id));
    match status {
        OperationStatus::Completed => Ok(()),
        OperationStatus::Executing => Err(NotDone::Failed(format!("the backend has not told yet: {why}"))),
        OperationStatus::Pending | OperationStatus::Failed | OperationStatus::Cancelled => {
            Err(NotDone::Failed(why))
        }
    }
}
