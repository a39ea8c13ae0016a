//! What the reconciler has done to one volume, or to one operation that was left.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::MutexGuard;
use tokio::time::Instant;

use super::act::{operation, refuse_snapshots};
use super::driven::Driving;
use super::service::VolumeService;
use crate::engine::keeper::LeaseKeeper;
use crate::record::{JobEnd, Lease, Operation, OperationSpec, VolumeTag};
use crate::state::{JobKind, OperationKind, OperationStatus};
use crate::{DiskRef, Error, ErrorKind, OperationId, Result, VolumeId};

/// One repair.
#[derive(Clone, Debug)]
pub(in crate::engine) enum Mend<'a> {
    /// Take a volume out of the records.
    Forget(&'a VolumeId),
    /// Mark a volume of ours with a later generation.
    Retag(&'a VolumeId, &'a VolumeTag),
    /// Carry out an operation on a volume, with this id.
    Operate(&'a OperationId, OperationKind, &'a VolumeId),
    /// Condemn a volume that held an epoch, by a deletion with this id that is due after so long.
    Condemn(&'a OperationId, &'a VolumeId, Duration),
}

impl VolumeService {
    /// Does one repair under a job of its own: nobody else is at the volumes of the VM meanwhile. `check` is asked once the lease
    /// is held; `false` means that nothing is left to do. Answers the operation that is carried out, if one is.
    pub(in crate::engine) async fn mend(
        &self,
        disk: &DiskRef,
        mend: Mend<'_>,
        check: impl Future<Output = Result<bool>>,
    ) -> Result<Option<OperationId>> {
        self.begins(disk)?;
        drop(self.lock(&disk.context).await?);
        let (taking, lease, asked) = self.take_idle(disk).await?;
        let driving = Driving::begin(self, &lease.job, &disk.context, None);
        // The backend may take its time.
        drop(taking);
        let (lost, ttl) = (self.stop().child_token(), self.config().lease);
        let jobs = &self.services().jobs;
        let keeper = LeaseKeeper::start(Arc::clone(jobs), lease.clone(), ttl, asked, lost.clone());
        let done = tokio::select! {
            biased;
            () = lost.cancelled() => Err(Error::new(ErrorKind::Cancelled, "repair", disk)),
            done = self.mended(&lease, disk, &mend, check) => done,
        };
        drop(keeper);
        match done {
            Ok(Some(begun)) => {
                let id = begun.spec.id.clone();
                // As long ago as it was taken, it counts for nothing any more.
                let (lease, asked) = self.renewed(&lease).await?;
                // From one to the other before anybody sees the job driven by nobody.
                let _taking = self.taking().await;
                drop(driving);
                self.drive(lease, asked, begun);
                Ok(Some(id))
            }
            Ok(None) => jobs.end(&lease, JobEnd::Done).await.map(|_| None),
            Err(error) => {
                // Whatever is left of it is found by the next comparison, or by recovery.
                drop(jobs.end(&lease, JobEnd::Failed(error.chain())).await);
                Err(error)
            }
        }
    }

    /// Does something under a job of its own, with its lease: nobody else is at the volumes of the VM meanwhile.
    pub(in crate::engine) async fn holding<T, Fut: Future<Output = Result<T>>>(
        &self,
        disk: &DiskRef,
        work: impl FnOnce(Lease) -> Fut,
    ) -> Result<T> {
        self.begins(disk)?;
        drop(self.lock(&disk.context).await?);
        let (taking, lease, asked) = self.take_idle(disk).await?;
        let _driving = Driving::begin(self, &lease.job, &disk.context, None);
        drop(taking);
        let (lost, ttl) = (self.stop().child_token(), self.config().lease);
        let jobs = &self.services().jobs;
        let _keeper = LeaseKeeper::start(Arc::clone(jobs), lease.clone(), ttl, asked, lost.clone());
        let done = tokio::select! {
            biased;
            () = lost.cancelled() => Err(Error::new(ErrorKind::Cancelled, "work at", disk)),
            done = work(lease.clone()) => done,
        };
        let end = done.as_ref().map_or_else(|error| JobEnd::Failed(error.chain()), |_| JobEnd::Done);
        let ended = jobs.end(&lease, end).await;
        // What was done is done; a job that could not be ended is ended by recovery.
        if let Err(error) = ended {
            tracing::debug!(job = %lease.job, error = %error.chain(), "its job is left to recovery");
        }
        done
    }

    /// Goes on with an operation that is executing and that nobody drives; `false` when somebody does.
    pub(in crate::engine) async fn resume(&self, left: &Operation) -> Result<bool> {
        self.begins(&left.spec.id)?;
        let job = self.services().jobs.get(&left.spec.job).await?;
        match job.filter(|job| !job.status.is_terminal()) {
            Some(job) if job.kind == JobKind::Operate => self.take_up(&job).await,
            _ => self.take_over(left).await,
        }
        .map(|resumed| resumed.is_some())
    }

    /// An answer of the backend, waited for as long as is patient.
    pub(in crate::engine) async fn answered<T>(
        &self,
        about: &impl fmt::Display,
        call: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        self.bounded(about, self.stop(), call).await
    }

    async fn mended(
        &self,
        lease: &Lease,
        disk: &DiskRef,
        mend: &Mend<'_>,
        check: impl Future<Output = Result<bool>>,
    ) -> Result<Option<Operation>> {
        if !check.await? {
            return Ok(None);
        }
        let services = self.services();
        match *mend {
            Mend::Forget(volume) => services.volumes.forget(lease, volume).await.map(|()| None),
            Mend::Retag(volume, tag) => {
                self.answered(volume, services.backend.retag(volume, tag)).await.map(|()| None)
            }
            Mend::Operate(id, kind, volume) => {
                let spec = intent(lease, disk, id, kind, volume);
                services.volumes.begin(lease, &spec).await.map(Some)
            }
            Mend::Condemn(id, volume, grace) => {
                self.answered(volume, refuse_snapshots(services, volume)).await?;
                let spec = intent(lease, disk, id, OperationKind::Delete, volume);
                self.patiently(|| services.volumes.condemn(lease, &spec, grace)).await?;
                self.condemned().notify_one();
                Ok(None)
            }
        }
    }

    /// A job of its own, and what keeps others from taking it up; one of ours that a process left behind and that has nothing to
    /// carry out is ended first. Meanwhile nothing is kept from others: that may ask the backend.
    pub(super) async fn take_idle(&self, disk: &DiskRef) -> Result<(MutexGuard<'_, ()>, Lease, Instant)> {
        let refused = match self.take_held(disk).await {
            Err(error) if error.kind() == ErrorKind::Conflict => error,
            taken => return taken,
        };
        let live = self.services().jobs.live(&disk.context).await?;
        match live.filter(|live| live.kind == JobKind::Operate) {
            Some(live) if self.take_up(&live).await?.is_none() => self.take_held(disk).await,
            _ => Err(refused),
        }
    }

    async fn take_held(&self, disk: &DiskRef) -> Result<(MutexGuard<'_, ()>, Lease, Instant)> {
        let taking = self.taking().await;
        self.take(disk).await.map(|(lease, asked)| (taking, lease, asked))
    }

    /// The operation as it is recorded now, when it has not ended.
    pub(in crate::engine) async fn left(&self, id: &OperationId) -> Result<Option<Operation>> {
        match operation(self.services(), id).await {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            found => found.map(|found| Some(found).filter(|found| !found.status.is_terminal())),
        }
    }

    /// Begins a deletion that is due; `false` when it is not, or not any more.
    pub(in crate::engine) async fn begin_due(&self, due: &Operation) -> Result<bool> {
        self.begins(&due.spec.id)?;
        match due.status {
            OperationStatus::Pending => self.delete_due(due).await.map(|begun| begun.is_some()),
            _ => self.resume(due).await,
        }
    }
}

fn intent(
    lease: &Lease,
    disk: &DiskRef,
    id: &OperationId,
    kind: OperationKind,
    volume: &VolumeId,
) -> OperationSpec {
    OperationSpec {
        volume: Some(volume.clone()),
        ..OperationSpec::new(id.clone(), kind, disk.clone(), lease.job.clone())
    }
}
