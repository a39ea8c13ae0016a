//! What agents may have recorded.

use std::sync::Arc;

use futures_util::TryStreamExt as _;
use oma_core::engine::{ReplicateRequest, Replicator, Submission};
use oma_core::record::{JobFilter, ReplicationJob, SourceIdentity};
use oma_core::traits::Accounts;
use oma_core::{Error, ErrorKind, JobId, Result, TokenId, VmPath};
use tokio::sync::Mutex;

/// How many jobs that have not ended an agent's user may have. A clone is another handle on the same.
#[derive(Clone, Debug)]
pub struct AgentJobs {
    most: usize,
    /// One after another: two that count at once would both find room.
    counting: Arc<Mutex<()>>,
}

impl AgentJobs {
    /// At most so many of each user.
    #[must_use]
    pub fn new(most: u32) -> Self {
        Self { most: usize::try_from(most).unwrap_or(usize::MAX), counting: Arc::default() }
    }
}

impl Default for AgentJobs {
    /// 100: as many VMs beside each agent.
    fn default() -> Self {
        Self::new(100)
    }
}

/// Refuses an id that another job has, whoever's that is.
pub(super) fn taken(vm: &VmPath) -> Error {
    Error::new(ErrorKind::AlreadyExists, "replicate", vm)
        .because("this Idempotency-Key is taken; give another one")
}

/// An agent that asks for a job.
#[derive(Debug)]
pub(super) struct AgentAsker {
    /// The VM that it asks for.
    pub(super) vm: SourceIdentity,
    pub(super) token: TokenId,
    pub(super) accounts: Arc<dyn Accounts>,
    pub(super) bound: AgentJobs,
}

impl AgentAsker {
    /// Records a job that the agent sees, within its bound. A live job of its VM that its token did not see yet, because that is a new one
    /// or the appliance ended before it was told, is seen from then on.
    pub(super) async fn submit(
        &self,
        replicator: &Replicator,
        wanted: &ReplicateRequest,
        submission: Submission,
    ) -> Result<ReplicationJob> {
        let _counting = self.bound.counting.lock().await;
        match replicator.services().jobs.get(&submission.job).await? {
            // It may have been recorded since the request was looked at.
            Some(job) => self.check_own(replicator, wanted, &job).await?,
            None => {
                self.let_see_live(replicator).await?;
                self.check(replicator, &submission.job).await?;
            }
        }
        let job = match replicator.submit(wanted, submission).await {
            Err(error) if error.kind() == ErrorKind::Conflict => {
                self.check_path(replicator, &wanted.vm).await?;
                return Err(error);
            }
            submitted => submitted?,
        };
        self.check_own(replicator, wanted, &job).await?;
        self.accounts.grant(&self.token, &job.id).await?;
        Ok(job)
    }

    /// Refuses a job of somebody else's VM: its id is one that is taken.
    async fn check_own(
        &self,
        replicator: &Replicator,
        wanted: &ReplicateRequest,
        job: &ReplicationJob,
    ) -> Result<()> {
        let vm = replicator.services().inventory.context(&job.context).await?;
        if vm.is_some_and(|vm| vm.identity.endpoint == self.vm.endpoint) {
            return Ok(());
        }
        Err(taken(&wanted.vm))
    }

    /// Refuses a path that another VM has, and tells nothing of that one.
    async fn check_path(&self, replicator: &Replicator, path: &VmPath) -> Result<()> {
        match replicator.services().inventory.by_path(path).await? {
            Some(other) if other.identity != self.vm => {
                Err(Error::new(ErrorKind::Conflict, "replicate", path)
                    .because("this path is another VM's here; ask the operator"))
            }
            _ => Ok(()),
        }
    }

    async fn let_see_live(&self, replicator: &Replicator) -> Result<()> {
        let services = replicator.services();
        let Some(vm) = services.inventory.by_identity(&self.vm).await? else { return Ok(()) };
        match services.jobs.live(&vm.id).await? {
            Some(live) => self.accounts.grant(&self.token, &live.id).await,
            None => Ok(()),
        }
    }

    async fn check(&self, replicator: &Replicator, job: &JobId) -> Result<()> {
        let services = replicator.services();
        let mut live = services.jobs.list(JobFilter { live_only: true, ..JobFilter::default() });
        let mut own = 0_usize;
        while let Some(job) = live.try_next().await? {
            let vm = services.inventory.context(&job.context).await?;
            own += usize::from(vm.is_some_and(|vm| vm.identity.endpoint == self.vm.endpoint));
        }
        if own < self.bound.most {
            return Ok(());
        }
        let reason = format!(
            "its agent has {own} jobs that have not ended, and may have {}; wait for one, or cancel it",
            self.bound.most
        );
        Err(Error::new(ErrorKind::Conflict, "record", job).because(reason))
    }
}
