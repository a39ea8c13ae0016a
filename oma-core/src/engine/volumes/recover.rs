use std::time::Duration;

use futures_util::TryStreamExt as _;

use super::act::Act;
use super::driven::Driving;
use super::service::VolumeService;
use crate::record::{JobEnd, JobFilter, Lease, Operation, OperationFilter, ReplicationJob};
use crate::state::{OperationKind, OperationStatus};
use crate::{DiskRef, Error, ErrorKind, OperationId, Result, Retry, Timestamp};

/// What was taken up again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovered {
    /// Operations that are carried out again.
    pub resumed: Vec<OperationId>,
    /// Condemned volumes whose deletion was due, and has begun.
    pub due: Vec<OperationId>,
    /// What could not be taken up now, and why. The next call tries again.
    pub left: Vec<String>,
}

impl Recovered {
    /// Tells operators what could not be taken up.
    pub(super) fn warn(&self) {
        self.left.iter().for_each(|left| tracing::warn!(left, "not taken up"));
    }
}

impl VolumeService {
    /// Takes up what this worker left before it died, and what others left whose lease has ended: every operation that has not ended
    /// is carried out again, which asks the backend what became of it; deletions that are due begin. To be called at each start,
    /// and every now and then, which [`VolumeService::upkeep`] does. What others drive is let be (L17), and so is what a VM's live job
    /// will finish itself, and an attach or a detach at another worker's machine: only there is seen what became of it, so it waits
    /// for that worker, or for [`VolumeService::abandon`]. What cannot be taken up keeps nothing else from it.
    ///
    /// # Errors
    /// What the store answers when it is asked what there is; nothing is lost then. `Cancelled` once the service is shut down.
    pub async fn recover(&self) -> Result<Recovered> {
        let filter = JobFilter { left_to: Some(self.worker().clone()), ..JobFilter::default() };
        let jobs: Vec<ReplicationJob> = self.services().jobs.list(filter).try_collect().await?;
        let mut recovered = Recovered::default();
        for job in &jobs {
            self.begins(&job.id)?;
            let taken = self.take_up(job).await;
            recovered.resumed.extend(told(taken, &job.id, &mut recovered.left));
        }
        let executing = Some(OperationStatus::Executing);
        let left_over = OperationFilter { status: executing, left_only: true, ..OperationFilter::default() };
        for left in self.operations(left_over).await? {
            self.begins(&left.spec.id)?;
            let taken = self.take_over(&left).await;
            recovered.resumed.extend(told(taken, &left.spec.id, &mut recovered.left));
        }
        let Recovered { due, left, .. } = self.begin_due_deletions().await?;
        recovered.due = due;
        recovered.left.extend(left);
        Ok(recovered)
    }

    /// Begins the deletions that are due.
    pub(super) async fn begin_due_deletions(&self) -> Result<Recovered> {
        let mut begun = Recovered::default();
        for due in self.due_by(self.now()).await? {
            self.begins(&due.spec.id)?;
            let deletes = self.delete_due(&due).await;
            begun.due.extend(told(deletes, &due.spec.id, &mut begun.left));
        }
        Ok(begun)
    }

    /// [`VolumeService::recover`], and waits for what that began: for a start before which nothing else is to be done.
    ///
    /// # Errors
    /// As [`VolumeService::recover`].
    pub async fn finish_left_over(&self) -> Result<Vec<Operation>> {
        let recovered = self.recover().await?;
        recovered.warn();
        let Recovered { resumed, due, .. } = recovered;
        let mut ended = Vec::new();
        for id in resumed.iter().chain(&due) {
            ended.push(self.wait(id, Duration::MAX).await?);
        }
        Ok(ended)
    }

    /// The deletions that are due by then.
    pub(super) async fn due_by(&self, then: Timestamp) -> Result<Vec<Operation>> {
        self.operations(OperationFilter { due_by: Some(then), ..OperationFilter::default() }).await
    }

    async fn operations(&self, filter: OperationFilter) -> Result<Vec<Operation>> {
        self.services().volumes.operations(filter).try_collect().await
    }

    /// Goes on with a job that nobody drives.
    pub(super) async fn take_up(&self, job: &ReplicationJob) -> Result<Option<OperationId>> {
        let taking = self.taking().await;
        match self.claim_left(job).await? {
            Left::Nothing => Ok(None),
            Left::Begun(id) => Ok(Some(id)),
            Left::Idle(lease, _driving) => {
                drop(taking);
                self.end_idle(job, &lease).await.map(|()| None)
            }
        }
    }

    async fn claim_left(&self, job: &ReplicationJob) -> Result<Left> {
        if self.driven().has_job(&job.id) {
            return Ok(Left::Nothing);
        }
        // Before it is claimed: whose it is, its owner tells.
        if let Some(left) = self.executing(job).await?
            && self.is_left_to_another(&left).await?
        {
            return Ok(Left::Nothing);
        }
        let (lease, asked) = match self.claim(&job.id).await {
            Err(error) if is_taken(&error) => return Ok(Left::Nothing),
            claimed => claimed?,
        };
        if let Some(left) = self.executing(job).await? {
            let id = left.spec.id.clone();
            tracing::info!(operation = %id, kind = %left.spec.kind, "finish what was left over");
            self.drive_on(lease, asked, left);
            return Ok(Left::Begun(id));
        }
        let driving = Driving::begin(self, &job.id, &job.context, None);
        Ok(Left::Idle(lease, driving))
    }

    /// The operation that a job carries out, or did when it was left.
    async fn executing(&self, job: &ReplicationJob) -> Result<Option<Operation>> {
        for key in &job.disks {
            let disk = DiskRef { context: job.context.clone(), key: key.clone() };
            let left = self.services().volumes.unfinished(&disk).await?;
            if let Some(left) = left.filter(|left| left.status == OperationStatus::Executing) {
                return Ok(Some(left));
            }
        }
        Ok(None)
    }

    /// Ends a job whose operation has ended, is pending, or was never recorded.
    async fn end_idle(&self, job: &ReplicationJob, lease: &Lease) -> Result<()> {
        let filter = OperationFilter { context: Some(job.context.clone()), ..OperationFilter::default() };
        let mut operations = self.services().volumes.operations(filter);
        let mut of_job = None;
        while let Some(operation) = operations.try_next().await? {
            if operation.spec.job == job.id {
                of_job = Some(operation);
                break;
            }
        }
        drop(operations);
        // A deletion was called off by this job, or has failed, and the volume may not bear its new mark.
        let renews = |operation: &Operation| {
            operation.spec.kind == OperationKind::Delete && operation.status == OperationStatus::Failed
        };
        if of_job.as_ref().is_none_or(renews) {
            for key in &job.disks {
                let disk = DiskRef { context: job.context.clone(), key: key.clone() };
                self.mark_or_leave(lease, &disk).await?;
            }
        }
        let end = match of_job {
            None => JobEnd::Failed("interrupted before anything was begun".to_owned()),
            Some(Operation { status: OperationStatus::Failed, error, .. }) => {
                JobEnd::Failed(error.unwrap_or_default())
            }
            Some(Operation { status: OperationStatus::Completed, spec, .. }) => {
                let act = Act::new(self.services(), lease, &spec);
                match self.bounded(&spec.id, self.stop(), act.mark()).await {
                    Err(error) if error.retry() != Retry::Never || error.kind() == ErrorKind::Cancelled => {
                        self.services().jobs.release(lease).await?;
                        return Err(error);
                    }
                    marked => marked.map_or_else(|error| JobEnd::Failed(error.chain()), |()| JobEnd::Done),
                }
            }
            Some(_) => JobEnd::Done,
        };
        self.end(lease, end).await
    }

    /// Finishes an operation whose job has ended without it.
    pub(super) async fn take_over(&self, left: &Operation) -> Result<Option<OperationId>> {
        if self.driven().has(&left.spec.id) || self.is_left_to_another(left).await? {
            return Ok(None);
        }
        let (_taking, lease, asked) = match self.take_idle(&left.spec.disk).await {
            Err(error) if is_taken(&error) => return Ok(None),
            taken => taken?,
        };
        let now = self.services().volumes.unfinished(&left.spec.disk).await?;
        match now.filter(|now| now.spec.id == left.spec.id && now.status == OperationStatus::Executing) {
            Some(now) => {
                self.drive_on(lease, asked, now);
                Ok(Some(left.spec.id.clone()))
            }
            None => self.end(&lease, JobEnd::Done).await.map(|()| None),
        }
    }

    pub(super) async fn delete_due(&self, due: &Operation) -> Result<Option<OperationId>> {
        let (_taking, lease, asked) = match self.take_idle(&due.spec.disk).await {
            // Another job of the VM is live, or its state forbids it (L07): later, or never.
            Err(error) if is_taken(&error) => return Ok(None),
            taken => taken?,
        };
        match self.services().volumes.execute(&lease, &due.spec.id).await {
            Ok(executing) => {
                self.drive_on(lease, asked, executing);
                Ok(Some(due.spec.id.clone()))
            }
            // It was pardoned, or the store's clock says that it is not due yet.
            Err(error) if error.kind() == ErrorKind::Conflict => {
                self.end(&lease, JobEnd::Cancelled(error.chain())).await?;
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }
}

/// What was left of a job.
enum Left {
    /// Somebody else drives it.
    Nothing,
    /// An operation, which is carried out now.
    Begun(OperationId),
    /// Nothing to carry out: it is only to be ended.
    Idle(Lease, Driving),
}

/// Whether somebody else has to do with it.
fn is_taken(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Busy | ErrorKind::Conflict)
}

/// What was taken up; what could not be is kept for readers.
fn told(
    taken: Result<Option<OperationId>>,
    what: &impl std::fmt::Display,
    left: &mut Vec<String>,
) -> Option<OperationId> {
    taken.unwrap_or_else(|error| {
        left.push(format!("{what}: {}", error.chain()));
        None
    })
}
