//! Records a job for whoever drives it later.

use super::{Replicator, keys};
use crate::engine::config::ReplicateRequest;
use crate::engine::known::check_path;
use crate::record::{JobSpec, ReplicationJob, VmContext};
use crate::{Error, ErrorKind, JobId, Result, TargetName};
use tokio_util::sync::CancellationToken;

/// What is recorded with a job that somebody drives later.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Submission {
    /// Minted by the caller, so that the same call again answers the same job.
    pub job: JobId,
    /// What whoever drives it has to know: see [`JobSpec::request`].
    pub request: String,
    /// Larger goes first; 0 is usual.
    pub priority: i32,
    /// Where its volumes live, if jobs towards that place are to be bounded.
    pub target: Option<TargetName>,
}

impl Replicator {
    /// Records a VM and its disks as its source describes them now, without a job.
    ///
    /// # Errors
    /// `NotFound` or `Unavailable` for the source; `Conflict` when the [path](ReplicateRequest::path) is not to be its: nothing is
    /// recorded then.
    pub async fn discover_vm(&self, request: &ReplicateRequest) -> Result<VmContext> {
        let vm = self.discover(request, &CancellationToken::new()).await?;
        let inventory = &*self.services.inventory;
        let known = inventory.by_identity(&vm.identity).await?;
        check_path(inventory, "discover", request.path, known.as_ref(), &vm).await?;
        inventory.record(&vm).await
    }

    /// Records a VM as its source describes it now, and a job that brings its disks to a new epoch. A [`Worker`](crate::engine::Worker)
    /// drives it. Idempotent by the job's id.
    ///
    /// # Errors
    /// As [`Replicator::discover_vm`]; `Conflict` when the VM has another live job or its state forbids replication; `AlreadyExists`
    /// when the id is of another job.
    pub async fn submit(&self, request: &ReplicateRequest, submission: Submission) -> Result<ReplicationJob> {
        // The same call again is answered before anything is asked: the world may have moved on since.
        if let Some(recorded) = self.services.jobs.get(&submission.job).await? {
            if recorded.request.as_ref() == Some(&submission.request) {
                return Ok(recorded);
            }
            let error = Error::new(ErrorKind::AlreadyExists, "replicate", &request.vm);
            return Err(error.because(format!("{} is another job; give this one another id", recorded.id)));
        }
        let vm = self.discover(request, &CancellationToken::new()).await?;
        let inventory = &*self.services.inventory;
        let known = inventory.by_identity(&vm.identity).await?;
        check_path(inventory, "replicate", request.path, known.as_ref(), &vm).await?;
        let live = match &known {
            Some(known) => self.services.jobs.live(&known.id).await?,
            None => None,
        };
        // Before anything is recorded: disks that a live job forbids would be listed for ever.
        if let Some(live) = live.filter(|live| live.id != submission.job) {
            let reason = format!("it has the live job {}; wait for it, or cancel it first", live.id);
            return Err(Error::new(ErrorKind::Conflict, "replicate", &vm.path).because(reason));
        }
        let context = inventory.record(&vm).await?;
        let Submission { job, request, priority, target } = submission;
        let disks = keys(&vm);
        let replication_type = self.expected_type(&context, &disks).await?;
        let spec = JobSpec::new(job, context.id, replication_type, disks);
        self.services.jobs.insert(JobSpec { priority, target, request: Some(request), ..spec }).await
    }
}
