//! Jobs that operate: taken for one change each, and given back.

use std::time::Duration;

use tokio::sync::MutexGuard;
use tokio::time::Instant;

use super::act::operation;
use super::service::{VolumeService, VolumeServices};
use crate::engine::retry::retry;
use crate::record::{JobEnd, JobSpec, Lease, Operation};
use crate::state::{JobKind, OperationKind, OperationStatus};
use crate::{ContextId, DiskRef, Error, ErrorKind, JobId, Result, Retry, WorkerId};

/// How long is waited for the job of an operation that has ended.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often a job is made anew that somebody ended before it was claimed.
const TAKES: usize = 3;

impl VolumeService {
    /// Keeps others from taking a job up, once no operation of this VM has ended whose job has not: who saw it end may ask for the
    /// next.
    pub(super) async fn lock(&self, context: &ContextId) -> Result<MutexGuard<'_, ()>> {
        let until = Instant::now() + PATIENCE;
        loop {
            let ended = self.driven().one_ends();
            if self.is_ending(context).await? && Instant::now() < until {
                drop(tokio::time::timeout_at(until, ended).await);
                continue;
            }
            let taking = self.taking().await;
            if !self.is_ending(context).await? || Instant::now() >= until {
                return Ok(taking);
            }
        }
    }

    async fn is_ending(&self, context: &ContextId) -> Result<bool> {
        match self.driven().of(context) {
            None => Ok(false),
            Some(id) => Ok(operation(self.services(), &id).await?.status != OperationStatus::Executing),
        }
    }

    /// A job of its own for one change on this disk.
    pub(super) async fn take(&self, disk: &DiskRef) -> Result<(Lease, Instant)> {
        let jobs = &self.services().jobs;
        let mut last = None;
        for _ in 0..TAKES {
            let job = JobId::mint(self.now());
            self.patiently(|| jobs.insert(JobSpec::operate(job.clone(), disk.clone()))).await?;
            match self.claim(&job).await {
                // A rival that recovers found it before it was claimed, and ended it.
                Err(error) if error.kind() == ErrorKind::Conflict => last = Some(error),
                claimed => return claimed,
            }
        }
        Err(last.unwrap_or_else(|| Error::new(ErrorKind::Conflict, "take the job of disk", disk)))
    }

    /// Not waited for: one that another worker holds is `Busy` until its lease ends.
    pub(super) async fn claim(&self, job: &JobId) -> Result<(Lease, Instant)> {
        let ttl = self.config().lease;
        self.patiently(|| async {
            let asked = Instant::now();
            match self.services().jobs.claim(job, self.worker(), ttl).await {
                Err(error) if error.kind() == ErrorKind::Busy => Err(error.with_retry(Retry::Never)),
                claimed => Ok((claimed?, asked)),
            }
        })
        .await
    }

    /// A lease that is held, and since when that counts.
    pub(super) async fn renewed(&self, lease: &Lease) -> Result<(Lease, Instant)> {
        let (jobs, ttl) = (&self.services().jobs, self.config().lease);
        self.patiently(|| async {
            let asked = Instant::now();
            Ok((jobs.renew(lease, ttl).await?, asked))
        })
        .await
    }

    /// Ends a job; again when nobody knows whether it was ended.
    pub(super) async fn end(&self, lease: &Lease, end: JobEnd) -> Result<()> {
        let jobs = &self.services().jobs;
        match self.patiently(|| jobs.end(lease, end.clone())).await {
            Err(error) if error.kind() == ErrorKind::Fenced => {
                let job = jobs.get(&lease.job).await?;
                if job.is_some_and(|job| job.status.is_terminal()) { Ok(()) } else { Err(error) }
            }
            ended => ended.map(drop),
        }
    }

    /// The other worker that alone can finish what is left of this operation: an attach and a detach are about the machine of who
    /// began it, and of no other one is seen what is attached there (L21).
    pub(super) async fn finisher(&self, left: &Operation) -> Result<Option<WorkerId>> {
        let VolumeServices { jobs, volumes, .. } = self.services();
        let worker = match (left.spec.kind, &left.spec.volume) {
            (OperationKind::Attach, _) => match &left.worker {
                Some(worker) => Some(worker.clone()),
                None => jobs.get(&left.spec.job).await?.and_then(|job| job.owner),
            },
            (OperationKind::Detach, Some(volume)) => {
                volumes.volume(volume).await?.and_then(|volume| volume.attached_to)
            }
            _ => None,
        };
        Ok(worker.filter(|worker| worker != self.worker()))
    }

    /// The same, of an operation that is to be taken up; told to readers of the log.
    pub(super) async fn is_left_to_another(&self, left: &Operation) -> Result<bool> {
        let finisher = self.finisher(left).await?;
        if let Some(worker) = &finisher {
            let (operation, kind) = (&left.spec.id, left.spec.kind);
            tracing::debug!(%operation, %kind, %worker, "left to who began it");
        }
        Ok(finisher.is_some())
    }

    /// Goes on with an operation that nobody carries out: under the job that is left of it, or one of its own.
    pub(super) async fn go_on(&self, left: &Operation) -> Result<()> {
        if self.is_left_to_another(left).await? {
            return Ok(());
        }
        let disk = &left.spec.disk;
        let held = match self.services().jobs.live(&disk.context).await? {
            None => self.take(disk).await,
            Some(job) if job.kind == JobKind::Operate && !self.driven().has_job(&job.id) => {
                self.claim(&job.id).await
            }
            Some(_) => return Ok(()),
        };
        match held {
            Ok((lease, asked)) => {
                self.drive_on(lease, asked, left.clone());
                Ok(())
            }
            // Others do.
            Err(error) if matches!(error.kind(), ErrorKind::Busy | ErrorKind::Conflict) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Asks the store again when that can help.
    pub(super) async fn patiently<T, Fut: Future<Output = Result<T>>>(
        &self,
        call: impl FnMut() -> Fut,
    ) -> Result<T> {
        retry(&self.config().retry, self.stop(), call).await
    }
}
