//! Replications: jobs that are recorded here and driven by whichever worker gets them.

mod agents;
mod changeid;
mod events;
mod log;
mod look;
mod push;
mod standing;
mod steer;
mod submit;
mod told;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use oma_core::engine::{CancellationToken, PointService, Replicator, Work, WorkOpener, Worker};
use oma_core::record::{ReplicationJob, VmContext};
use oma_core::traits::{Accounts, DiskSource, JobLog, LogStore, Overview};
use oma_core::{Error, ErrorKind, JobId, Result, Retry, VmPath};
use utoipa_axum::router::OpenApiRouter;

pub use self::agents::AgentJobs;
pub(in crate::server) use self::submit::{JobKey, NewJob};
use super::Api;
use super::access::Principal;
use super::problem::Answer;
use super::publish::ExportAddress;
use crate::{ReplicationRequest, ReplicationRow, SourceRequest};

/// Opens what requests name as sources.
pub trait SourceOpener: fmt::Debug + Send + Sync + 'static {
    /// The source of a VM. Nothing is asked of it yet.
    ///
    /// # Errors
    /// `Invalid` for what can never be a source, `PermissionDenied` for what may not be one here.
    fn open(&self, vm: &VmPath, source: &SourceRequest) -> Result<Arc<dyn DiskSource>>;
}

/// Reads the requests that these routes record with jobs, for a [`Worker`].
#[derive(Debug)]
pub struct RecordedRequests(pub Arc<dyn SourceOpener>);

#[async_trait]
impl WorkOpener for RecordedRequests {
    async fn open(&self, job: &ReplicationJob, context: &VmContext) -> Result<Work> {
        let request = recorded(job)?;
        if let Some(push) = &request.push {
            let source = push.source(&request.vm_path, context.identity.clone())?;
            return Ok(Work { source, request: request.wanted() });
        }
        let source = opened(&self.0, &request.vm_path, &request.source).await;
        // It could be opened when it was asked for: what is missing now may come back.
        let source = source.map_err(|error| match error.kind() {
            ErrorKind::Invalid => error,
            _ => error.with_retry(Retry::Later),
        })?;
        Ok(Work { source, request: request.wanted() })
    }
}

/// How long the system may take to tell of files and sockets.
const LOOKING: Duration = Duration::from_secs(30);

/// A source; a share that hangs keeps no other request waiting.
async fn opened(
    sources: &Arc<dyn SourceOpener>,
    vm: &VmPath,
    source: &SourceRequest,
) -> Result<Arc<dyn DiskSource>> {
    let (sources, path, source) = (Arc::clone(sources), vm.clone(), source.clone());
    let opening = tokio::task::spawn_blocking(move || sources.open(&path, &source));
    match tokio::time::timeout(LOOKING, opening).await {
        Ok(Ok(opened)) => opened,
        Ok(Err(lost)) => Err(Error::new(ErrorKind::Internal, "open the disks of", vm).with_source(lost)),
        Err(_) => Err(Error::new(ErrorKind::Unavailable, "open the disks of", vm)
            .because("the system did not answer within 30 s; a share may hang")
            .with_retry(Retry::Later)),
    }
}

fn no_job(id: &JobId) -> Error {
    Error::new(ErrorKind::NotFound, "find replication", id)
        .because("there is no record of it; GET /replications lists what there is")
}

/// What was asked for, as it was recorded with a job.
fn recorded(job: &ReplicationJob) -> Result<ReplicationRequest> {
    let invalid = || Error::new(ErrorKind::Invalid, "read the request of job", &job.id);
    let text = job.request.as_deref();
    let text =
        text.ok_or_else(|| invalid().because("it was begun by a program that drives its jobs itself"))?;
    serde_json::from_str(text).map_err(|error| invalid().with_source(error))
}

/// What the routes of replications work with.
#[derive(Clone, Debug)]
pub struct ReplicationRoutes {
    /// Records jobs, and knows where.
    pub replicator: Replicator,
    /// Drives them in this process, if it does.
    pub worker: Option<Worker>,
    /// Carries reverts out in this process, if it does.
    pub points: Option<PointService>,
    /// What is told of jobs.
    pub job_log: Arc<dyn JobLog>,
    /// The lines of it.
    pub logs: Arc<dyn LogStore>,
    /// How everything stands.
    pub overview: Arc<dyn Overview>,
    /// Opens sources.
    pub sources: Arc<dyn SourceOpener>,
    /// Tells agents where exports are.
    pub exports: Arc<dyn ExportAddress>,
    /// Whose tokens see the jobs that agents begin; without, none does.
    pub accounts: Option<Arc<dyn Accounts>>,
    /// How many jobs agents may have.
    pub agent_jobs: AgentJobs,
    /// Cancelled when the daemon is to end: nobody is kept waiting any longer.
    pub stop: CancellationToken,
}

impl Api {
    /// With replications and the discovery of VMs.
    #[must_use]
    pub fn replications(self, routes: ReplicationRoutes) -> Self {
        self.figures.look_up(standing::Standing(routes.clone()));
        let agents = OpenApiRouter::new()
            .merge(changeid::group())
            .merge(events::group())
            .merge(log::group())
            .merge(look::of_agents())
            .merge(push::group())
            .merge(steer::of_agents())
            .merge(submit::of_agents());
        let group = OpenApiRouter::new()
            .merge(look::group())
            .merge(steer::group())
            .merge(submit::group())
            .merge(told::group());
        self.with_agents(agents.with_state(routes.clone())).with(group.with_state(routes))
    }
}

impl ReplicationRoutes {
    async fn job(&self, id: &JobId) -> Answer<ReplicationJob> {
        let found = self.replicator.services().jobs.get(id).await?;
        Ok(found.ok_or_else(|| no_job(id))?)
    }

    /// A job that a principal may see; another's is told no other than one that is not there.
    async fn visible(&self, principal: &Principal, id: &JobId) -> Answer<ReplicationJob> {
        if principal.sees(id).is_ok() { self.job(id).await } else { Err(no_job(id).into()) }
    }

    async fn row(&self, job: &ReplicationJob) -> Answer<ReplicationRow> {
        let vm = self.replicator.services().inventory.context(&job.context).await?;
        Ok(ReplicationRow::new(vm.as_ref(), job))
    }

    /// The worker of this process looks at once.
    fn nudge(&self) {
        if let Some(worker) = &self.worker {
            worker.nudge();
        }
        if let Some(points) = &self.points {
            points.nudge();
        }
    }
}
