//! Drives one job through its steps, under one lease.

mod disk;
mod plan;
mod run;
mod steps;
mod submit;

use std::sync::Arc;
use std::time::Instant;

use tokio_util::sync::CancellationToken;

use self::run::Run;
pub use self::submit::Submission;
use super::cancel::let_go;
use super::config::{ReplicateConfig, ReplicateRequest};
use super::copier::Budget;
use super::keeper::LeaseKeeper;
use super::known::{check_path, left_out};
use super::limits::Limits;
use super::progress::{Event, Progress};
use super::recorder::Recorder;
use super::report::{Outcome, Report};
use super::retry::retry;
use super::services::Services;
use crate::Clock as _;
use crate::record::{JobEnd, JobSpec, Lease, ReplicationJob, RetryPolicy, SourceVm, VmContext};
use crate::state::{JobEvent, JobKind, LogLevel, ReplicationType, Wanted};
use crate::traits::DiskSource;
use crate::{DiskKey, DiskRef, Error, ErrorKind, Fence, JobId, Result, Retry, SystemClock, WorkerId};

/// Replicates VMs, one job at a time per VM.
#[derive(Clone, Debug)]
pub struct Replicator {
    services: Services,
    worker: WorkerId,
    config: ReplicateConfig,
    budget: Budget,
    attempts: Option<RetryPolicy>,
}

/// A job under its lease, as a run begins.
#[derive(Debug)]
struct Claimed {
    job: ReplicationJob,
    lease: Lease,
    keeper: LeaseKeeper,
}

impl Replicator {
    /// A replicator that drives jobs as `worker`: the same id after a restart, so that it gets its own jobs back at once.
    #[must_use]
    pub fn new(services: Services, worker: WorkerId, config: ReplicateConfig) -> Self {
        let budget = Budget::new(config.memory);
        Self { services: services.guarded(&config), worker, config, budget, attempts: None }
    }

    /// The same with limits, which may be shared with others.
    #[must_use]
    pub fn with_limits(self, limits: Limits) -> Self {
        Self { budget: self.budget.with_limits(limits), ..self }
    }

    /// The same; a job whose attempt failed waits and is attempted again, where that can help, and fails for good only then.
    #[must_use]
    pub fn with_attempts(self, attempts: RetryPolicy) -> Self {
        Self { attempts: Some(attempts), ..self }
    }

    /// The same, reading from another source. Memory and limits are shared.
    #[must_use]
    pub fn reading(&self, source: Arc<dyn DiskSource>) -> Self {
        let services = Services { source, ..self.services.clone() }.guarded(&self.config);
        Self { services, ..self.clone() }
    }

    /// What it works with.
    #[must_use]
    pub const fn services(&self) -> &Services {
        &self.services
    }

    /// Who drives its jobs.
    #[must_use]
    pub const fn worker(&self) -> &WorkerId {
        &self.worker
    }

    /// How it works.
    #[must_use]
    pub const fn config(&self) -> &ReplicateConfig {
        &self.config
    }

    /// Brings every disk of a VM to a new epoch, or continues the job that was to.
    ///
    /// A cancelled `stop` ends it soon, also when the backend does not answer: the job stays alive, [`Outcome::Suspended`], and the same request continues it.
    /// So does a dropped or killed run, without a report.
    ///
    /// # Errors
    /// An error is an answer when no job could be recorded or claimed: `NotFound` or `Unavailable` for the source,
    /// `Conflict` when the VM has a live job with other disks or one that reverts, or the [path](ReplicateRequest::path) is not
    /// to be its: nothing is recorded then. `Busy` when another worker drives it. `Fenced` when another worker took the job over
    /// meanwhile. Everything later is an [`Outcome`] of the report.
    pub async fn run(
        &self,
        request: &ReplicateRequest,
        progress: &dyn Progress,
        stop: &CancellationToken,
    ) -> Result<Report> {
        let begun = Instant::now();
        let stop = stop.child_token();
        let vm = self.discover(request, &stop).await?;
        let (context, job, resumed) = self.record(&vm, request).await?;
        progress.event(Event::Job { job: &job, resumed });
        let jobs = &self.services.jobs;
        let mut asked = tokio::time::Instant::now();
        let claim = || {
            asked = tokio::time::Instant::now();
            jobs.claim(&job.id, &self.worker, self.config.lease)
        };
        let lease = retry(&self.config.retry, &stop, claim).await?;
        // Another worker may have driven it on between the look and the claim.
        let job = jobs.get(&job.id).await?.unwrap_or(job);
        let keeper = self.keep(&lease, asked, &stop);
        let recorder = self.record_log(&lease);
        let told = recorder.beside(progress);
        let claimed = Claimed { job, lease, keeper };
        let report = self.run_claimed(claimed, vm, context, request, &told, &stop, begun).await;
        recorder.end(&report).await;
        report
    }

    /// Drives a job that was given out under this lease, which was `asked` for then: [`JobStore::claim_next`] gives such ones.
    ///
    /// # Errors
    /// `Fenced` when another worker took the job over meanwhile. Everything else is an [`Outcome`] of the report.
    ///
    /// [`JobStore::claim_next`]: crate::traits::JobStore::claim_next
    pub async fn drive(
        &self,
        lease: Lease,
        asked: tokio::time::Instant,
        request: &ReplicateRequest,
        progress: &dyn Progress,
        stop: &CancellationToken,
    ) -> Result<Report> {
        let recorder = self.record_log(&lease);
        let report = self.drive_told(lease, asked, request, &recorder.beside(progress), stop).await;
        recorder.end(&report).await;
        report
    }

    async fn drive_told(
        &self,
        lease: Lease,
        asked: tokio::time::Instant,
        request: &ReplicateRequest,
        progress: &dyn Progress,
        stop: &CancellationToken,
    ) -> Result<Report> {
        let begun = Instant::now();
        let stop = stop.child_token();
        let keeper = self.keep(&lease, asked, &stop);
        let job = self.services.jobs.get(&lease.job).await?;
        let job = job.ok_or_else(|| Error::new(ErrorKind::Fenced, "drive job", &lease.job))?;
        progress.event(Event::Job { job: &job, resumed: job.attempts > 0 || job.fence != Fence(1) });
        match self.same_vm(&job, request, &stop).await {
            Ok((vm, context)) => {
                let claimed = Claimed { job, lease, keeper };
                self.run_claimed(claimed, vm, context, request, progress, &stop, begun).await
            }
            Err(error) if keeper.is_lost() => {
                Err(Error::new(ErrorKind::Fenced, "drive job", &lease.job).with_source(error))
            }
            Err(error) => {
                // One that was stopped goes on later, from what is there; and a source that hangs is not asked once more.
                let hopeless = error.retry() == Retry::Never && error.kind() != ErrorKind::Cancelled;
                let mut warnings = Vec::new();
                // What an attempt before has left: nobody else comes for it.
                if hopeless && let Err(left) = let_go(&self.services, &lease, job.kind).await {
                    warnings.push(format!("an earlier attempt has left something: {}", left.chain()));
                }
                let (outcome, warning) = self.give_back(&lease, error, hopeless, &stop).await;
                warnings.extend(warning);
                Ok(Report {
                    job: job.id,
                    outcome,
                    epoch: job.epoch,
                    replication_type: job.replication_type,
                    duration: begun.elapsed(),
                    disks: Vec::new(),
                    verification: None,
                    recovery_point: None,
                    warnings,
                })
            }
        }
    }

    /// What happens from here on is in the log of the job.
    fn record_log(&self, lease: &Lease) -> Recorder {
        let recorder = Recorder::begin(self.services.job_log.clone(), lease, self.config.log_lines);
        recorder.line(LogLevel::Info, format!("{} drives the job", lease.worker), None);
        recorder
    }

    fn keep(&self, lease: &Lease, asked: tokio::time::Instant, stop: &CancellationToken) -> LeaseKeeper {
        let jobs = Arc::clone(&self.services.jobs);
        LeaseKeeper::start(jobs, lease.clone(), self.config.lease, asked, stop.clone())
    }

    async fn discover(&self, request: &ReplicateRequest, stop: &CancellationToken) -> Result<SourceVm> {
        request.check()?;
        let asked = retry(&self.config.retry, stop, || self.services.source.discover(&request.vm));
        tokio::select! {
            biased;
            vm = asked => vm,
            // A source that hangs is left alone: nothing was asked of it but to tell.
            () = stop.cancelled() => Err(Error::new(ErrorKind::Cancelled, "discover VM", &request.vm).because("the run was stopped")),
        }
    }

    /// Records a VM, unless something forbids its job, and its live job or a new one.
    async fn record(
        &self,
        vm: &SourceVm,
        request: &ReplicateRequest,
    ) -> Result<(VmContext, ReplicationJob, bool)> {
        let keys = keys(vm);
        // Before anything is recorded: disks that a live job forbids would be listed for ever, and a path is a VM's name.
        let inventory = &*self.services.inventory;
        let known = inventory.by_identity(&vm.identity).await?;
        check_path(inventory, "replicate", request.path, known.as_ref(), vm).await?;
        if let Some(known) = known {
            self.live_job(&known, &keys).await?;
        }
        let context = inventory.record(vm).await?;
        let (job, resumed) = self.find_or_record_job(&context, keys).await?;
        Ok((context, job, resumed))
    }

    /// The VM of a job, which its source must have still, with the job's disks.
    async fn same_vm(
        &self,
        job: &ReplicationJob,
        request: &ReplicateRequest,
        stop: &CancellationToken,
    ) -> Result<(SourceVm, VmContext)> {
        let refused = |reason| Err(Error::new(ErrorKind::Conflict, "drive job", &job.id).because(reason));
        let inventory = &*self.services.inventory;
        let context = retry(&self.config.retry, stop, || inventory.context(&job.context)).await?;
        let vm = self.discover(request, stop).await?;
        if context.is_none_or(|context| context.identity != vm.identity) {
            return refused(format!("at {} there is another VM now; name the one that is meant", request.vm));
        }
        if keys(&vm) != sorted(job.disks.clone()) {
            return refused(
                "the VM has other disks now than when the job was recorded; begin another one".to_owned(),
            );
        }
        let context = inventory.record(&vm).await?;
        Ok((vm, context))
    }

    #[expect(clippy::too_many_arguments, reason = "two private callers; each is a part of its own")]
    async fn run_claimed(
        &self,
        claimed: Claimed,
        vm: SourceVm,
        context: VmContext,
        request: &ReplicateRequest,
        progress: &dyn Progress,
        stop: &CancellationToken,
        begun: Instant,
    ) -> Result<Report> {
        let Claimed { job, lease, keeper } = claimed;
        let left_out = left_out(&*self.services.inventory, &context, &vm).await;
        let services = self.services.clone().stoppable(stop, self.config.drain);
        let mut run =
            Run::new(&services, &self.config, &self.budget, request, progress, stop, job, vm, context, lease);
        let result = match left_out {
            Ok(left_out) => {
                for disk in left_out {
                    run.warn(format!("disk {} is left out and stays at epoch {}", disk.disk.key, disk.epoch));
                }
                steps::drive(&mut run).await
            }
            Err(error) => Err(error),
        };
        let outcome = match result {
            Ok(()) => Outcome::Completed,
            Err(error) if keeper.is_lost() || error.kind() == ErrorKind::Fenced => {
                steps::abandon(&mut run).await;
                return Err(Error::new(ErrorKind::Fenced, "drive job", &run.job.id).with_source(error));
            }
            Err(error) => self.stop_short(&mut run, error, stop).await,
        };
        drop(keeper);
        Ok(run.into_report(outcome, begun.elapsed()))
    }

    /// The VM's live job, or a new one.
    async fn find_or_record_job(
        &self,
        context: &VmContext,
        keys: Vec<DiskKey>,
    ) -> Result<(ReplicationJob, bool)> {
        if let Some(job) = self.live_job(context, &keys).await? {
            return Ok((job, true));
        }
        let replication_type = self.expected_type(context, &keys).await?;
        let spec = JobSpec::new(JobId::mint(SystemClock.now()), context.id.clone(), replication_type, keys);
        Ok((self.services.jobs.insert(spec).await?, false))
    }

    /// The VM's live job, which must be of these disks, in order.
    async fn live_job(&self, context: &VmContext, keys: &[DiskKey]) -> Result<Option<ReplicationJob>> {
        let Some(job) = self.services.jobs.live(&context.id).await? else { return Ok(None) };
        if job.kind == JobKind::Revert {
            return Err(Error::new(ErrorKind::Conflict, "replicate", &context.path).because(format!(
                "its job {} goes back to a recovery point and has not ended; \
                 revert again, to that point or another one, or cancel it first",
                job.id
            )));
        }
        if job.kind == JobKind::Operate {
            let reason = format!("its job {} changes a volume; replicate once it has ended", job.id);
            let error = Error::new(ErrorKind::Conflict, "replicate", &context.path).because(reason);
            return Err(error.with_retry(Retry::Later));
        }
        if job.wanted == Wanted::Cancel {
            return Err(Error::new(ErrorKind::Conflict, "replicate", &context.path)
                .because(format!("its job {} is being cancelled; wait until it has ended", job.id)));
        }
        let has = sorted(job.disks.clone());
        if has == keys {
            return Ok(Some(job));
        }
        let list = |keys: &[DiskKey]| keys.iter().map(DiskKey::as_str).collect::<Vec<_>>().join(", ");
        Err(Error::new(ErrorKind::Conflict, "replicate", &context.path).because(format!(
            "its job {} has the disks {} and has not ended, and now {} were asked for; \
             name the same disks to continue it, or cancel it first",
            job.id,
            list(&has),
            list(keys)
        )))
    }

    /// `incremental` when every disk has a change id that its volume still matches.
    async fn expected_type(&self, context: &VmContext, keys: &[DiskKey]) -> Result<ReplicationType> {
        for key in keys {
            let disk = DiskRef { context: context.id.clone(), key: key.clone() };
            let Some(volume) = self.services.volumes.volume_of(&disk).await? else {
                return Ok(ReplicationType::Initial);
            };
            let endpoint = &context.identity.endpoint;
            if self.services.change_ids.current(&disk, volume.generation, endpoint).await?.is_none() {
                return Ok(ReplicationType::Initial);
            }
        }
        Ok(ReplicationType::Incremental)
    }

    /// Leaves a job that did not reach its epoch in a state from which the next run continues.
    async fn stop_short(&self, run: &mut Run<'_>, error: Error, stop: &CancellationToken) -> Outcome {
        steps::clean(run).await;
        // What was not to be tried again within this run may well do in another one, which begins anew.
        let hopeless = run.is_hopeless
            || matches!(
                error.kind(),
                ErrorKind::Invalid | ErrorKind::PermissionDenied | ErrorKind::Unsupported
            );
        let (outcome, warning) = self.give_back(&run.lease, error, hopeless, stop).await;
        if let Some(warning) = warning {
            run.warn(warning);
        }
        outcome
    }

    /// Gives a job back that did not reach its epoch: as it is when the run was stopped, to be attempted again where that can help,
    /// failed otherwise. Answers how the run ended, and what is left.
    async fn give_back(
        &self,
        lease: &Lease,
        error: Error,
        hopeless: bool,
        stop: &CancellationToken,
    ) -> (Outcome, Option<String>) {
        let suspended = stop.is_cancelled() && error.kind() == ErrorKind::Cancelled;
        tracing::warn!(job = %lease.job, error = %error.chain(), suspended, "the job stops short of its epoch");
        let (jobs, reason) = (&self.services.jobs, error.chain());
        let policy = self.attempts.filter(|_| !hopeless);
        let (outcome, given_back) = match policy {
            _ if suspended => (Outcome::Suspended, jobs.release(lease).await),
            Some(policy) => match jobs.defer(lease, &reason, &policy).await {
                Ok(job) if !job.status.is_terminal() => (Outcome::Deferred(error), Ok(())),
                deferred => (Outcome::Failed(error), deferred.map(drop)),
            },
            None => {
                let ended = jobs.end(lease, JobEnd::Failed(reason)).await;
                (Outcome::Failed(error), ended.map(drop))
            }
        };
        let left =
            |error: Error| format!("the job {} is still recorded as alive: {}", lease.job, error.chain());
        (outcome, given_back.err().map(left))
    }
}

/// The keys of a VM's disks, in order.
fn keys(vm: &SourceVm) -> Vec<DiskKey> {
    sorted(vm.disks.iter().map(|disk| disk.key.clone()).collect())
}

fn sorted(mut keys: Vec<DiskKey>) -> Vec<DiskKey> {
    keys.sort();
    keys
}

/// A step of a job: the event that moves the job when the step begins, and what it does. Each may run twice. One that was not
/// asked for has nothing to do, and is not told of.
struct Step {
    name: &'static str,
    asked: fn(&ReplicateRequest) -> bool,
    enter: Option<JobEvent>,
    run: for<'a, 'r> fn(&'a mut Run<'r>) -> futures_util::future::BoxFuture<'a, Result<()>>,
}

#[cfg(test)]
mod tests;
