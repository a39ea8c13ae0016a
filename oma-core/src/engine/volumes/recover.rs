use std::time::Duration;

use futures_util::TryStreamExt as _;

use super::act::Act;
use super::service::VolumeService;
use crate::record::{JobEnd, JobFilter, Lease, Operation, OperationFilter, ReplicationJob};
use crate::state::{JobKind, OperationStatus};
use crate::{DiskRef, ErrorKind, OperationId, Result, Retry};

/// What was taken up again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovered {
    /// Operations that are carried out again.
    pub resumed: Vec<OperationId>,
    /// Condemned volumes whose deletion was due, and has begun.
    pub due: Vec<OperationId>,
}

impl VolumeService {
    /// Takes up what this worker left before it died, and what others left whose lease has ended: every operation that has not ended
    /// is carried out again, which asks the backend what became of it; deletions that are due begin. To be called at each start,
    /// and every now and then. What others drive is let be (L17), and so is what a VM's live job will finish itself.
    ///
    /// # Errors
    /// What the store answers; nothing is lost then.
    pub async fn recover(&self) -> Result<Recovered> {
        let jobs = self.services().jobs.list(JobFilter { live_only: true, ..JobFilter::default() });
        let jobs: Vec<ReplicationJob> = jobs.try_collect().await?;
        let mut recovered = Recovered::default();
        for job in jobs.iter().filter(|job| job.kind == JobKind::Operate) {
            recovered.resumed.extend(self.take_up(job).await?);
        }
        for left in self.with_status(OperationStatus::Executing).await? {
            recovered.resumed.extend(self.take_over(&left).await?);
        }
        let now = self.now();
        let pending = self.with_status(OperationStatus::Pending).await?;
        for due in pending.iter().filter(|pending| pending.due_at.is_some_and(|due_at| due_at <= now)) {
            recovered.due.extend(self.delete_due(due).await?);
        }
        Ok(recovered)
    }

    /// [`VolumeService::recover`], and waits for what that began: for a start before which nothing else is to be done.
    ///
    /// # Errors
    /// As [`VolumeService::recover`].
    pub async fn finish_left_over(&self) -> Result<Vec<Operation>> {
        let Recovered { resumed, due } = self.recover().await?;
        let mut ended = Vec::new();
        for id in resumed.iter().chain(&due) {
            ended.push(self.wait(id, Duration::MAX).await?);
        }
        Ok(ended)
    }

    async fn with_status(&self, status: OperationStatus) -> Result<Vec<Operation>> {
        let filter = OperationFilter { status: Some(status), ..OperationFilter::default() };
        self.services().volumes.operations(filter).try_collect().await
    }

    /// Goes on with a job that nobody drives.
    pub(super) async fn take_up(&self, job: &ReplicationJob) -> Result<Option<OperationId>> {
        let _taking = self.taking().await;
        self.take_up_held(job).await
    }

    /// The same, for who keeps others from taking jobs up.
    pub(super) async fn take_up_held(&self, job: &ReplicationJob) -> Result<Option<OperationId>> {
        if self.drives(&job.id) {
            return Ok(None);
        }
        let (lease, asked) = match self.claim(&job.id).await {
            Err(error) if matches!(error.kind(), ErrorKind::Busy | ErrorKind::Conflict) => return Ok(None),
            claimed => claimed?,
        };
        for key in &job.disks {
            let disk = DiskRef { context: job.context.clone(), key: key.clone() };
            let left = self.services().volumes.unfinished(&disk).await?;
            if let Some(left) = left.filter(|left| left.status == OperationStatus::Executing) {
                let id = left.spec.id.clone();
                tracing::info!(operation = %id, kind = %left.spec.kind, "finish what was left over");
                self.drive(lease, asked, left);
                return Ok(Some(id));
            }
        }
        self.end_idle(job, &lease).await.map(|()| None)
    }

    /// Ends a job whose operation has ended, is pending, or was never recorded.
    async fn end_idle(&self, job: &ReplicationJob, lease: &Lease) -> Result<()> {
        let filter = OperationFilter { context: Some(job.context.clone()), ..OperationFilter::default() };
        let mut operations = self.services().volumes.operations(filter);
        let mut end = JobEnd::Failed("interrupted before anything was begun".to_owned());
        while let Some(operation) = operations.try_next().await? {
            if operation.spec.job == job.id {
                let act = Act { services: self.services(), lease, spec: &operation.spec };
                end = match operation.status {
                    OperationStatus::Failed => JobEnd::Failed(operation.error.unwrap_or_default()),
                    OperationStatus::Completed => match self.bounded(&act, self.stop(), act.mark()).await {
                        Ok(()) => JobEnd::Done,
                        Err(error) if error.retry() == Retry::Never => JobEnd::Failed(error.chain()),
                        Err(error) => {
                            tracing::warn!(job = %job.id, error = %error.chain(), "left to be recovered");
                            return self.services().jobs.release(lease).await;
                        }
                    },
                    _ => JobEnd::Done,
                };
                break;
            }
        }
        self.services().jobs.end(lease, end).await.map(drop)
    }

    /// Finishes an operation whose job has ended without it.
    pub(super) async fn take_over(&self, left: &Operation) -> Result<Option<OperationId>> {
        let _taking = self.taking().await;
        if self.carries_out(&left.spec.id) {
            return Ok(None);
        }
        let (lease, asked) = match self.take_idle(&left.spec.disk).await {
            Err(error) if error.kind() == ErrorKind::Conflict => return Ok(None),
            taken => taken?,
        };
        let now = self.services().volumes.unfinished(&left.spec.disk).await?;
        match now.filter(|now| now.spec.id == left.spec.id && now.status == OperationStatus::Executing) {
            Some(now) => {
                self.drive(lease, asked, now);
                Ok(Some(left.spec.id.clone()))
            }
            None => self.services().jobs.end(&lease, JobEnd::Done).await.map(|_| None),
        }
    }

    pub(super) async fn delete_due(&self, due: &Operation) -> Result<Option<OperationId>> {
        let _taking = self.taking().await;
        let (lease, asked) = match self.take_idle(&due.spec.disk).await {
            // Another job of the VM is live, or its state forbids it (L07): later, or never.
            Err(error) if error.kind() == ErrorKind::Conflict => return Ok(None),
            taken => taken?,
        };
        match self.services().volumes.execute(&lease, &due.spec.id).await {
            Ok(executing) => {
                self.drive(lease, asked, executing);
                Ok(Some(due.spec.id.clone()))
            }
            // It was pardoned, or the store's clock says that it is not due yet.
            Err(error) if error.kind() == ErrorKind::Conflict => {
                self.services().jobs.end(&lease, JobEnd::Cancelled(error.chain())).await?;
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }
}
