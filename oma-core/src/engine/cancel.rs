//! Ends a job that nobody drives any more.

use std::sync::Arc;
use std::time::Duration;

use super::config::RetryConfig;
use super::keeper::LeaseKeeper;
use super::recorder::tell;
use super::retry::retry;
use super::services::Services;
use crate::record::{ExportRecord, JobEnd, Lease, ReplicationJob};
use crate::state::{ExportEvent, ExportStatus, JobKind, LogLevel};
use crate::traits::Export;
use crate::{Error, ErrorKind, ExportName, JobId, Result, WorkerId};
use futures_util::StreamExt as _;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// How long a cancelled job's exports may take to drain.
const DRAIN: Duration = Duration::from_secs(10);
/// How long the lease of a job that is being cancelled lasts without renewal.
const LEASE: Duration = Duration::from_secs(30);

/// Cancels a live job: takes back its exports, lets its point in time go, then ends it. No change id moves; its journals stay.
///
/// # Errors
/// `NotFound`; `Conflict` when it has ended; `Busy` while another worker drives it; what the source answers when it is asked to
/// let the point in time go: the job is alive then.
pub async fn cancel(
    services: &Services,
    worker: &WorkerId,
    job: &JobId,
    reason: &str,
) -> Result<ReplicationJob> {
    let found = services.jobs.get(job).await?;
    let Some(found) = found else {
        return Err(Error::new(ErrorKind::NotFound, "cancel job", job));
    };
    if found.status.is_terminal() {
        return Err(Error::new(ErrorKind::Conflict, "cancel job", job)
            .because(format!("it has ended already: {}", found.status)));
    }
    let asked = Instant::now();
    let lease = services.jobs.claim(job, worker, LEASE).await?;
    let lost = CancellationToken::new();
    let keeper = LeaseKeeper::start(Arc::clone(&services.jobs), lease.clone(), LEASE, asked, lost.clone());
    let ended = async {
        let_go(services, &lease, found.kind).await?;
        let ended = services.jobs.end(&lease, JobEnd::Cancelled(reason.to_owned())).await?;
        let told = format!("the job is cancelled: {reason}");
        tell(services.job_log.as_ref(), &lease, LogLevel::Warn, told).await;
        Ok(ended)
    };
    let ended = tokio::select! {
        biased;
        ended = ended => ended,
        () = lost.cancelled() => Err(Error::new(ErrorKind::Fenced, "cancel job", job)),
    };
    drop(keeper);
    if ended.is_err() {
        // Whoever cancels next need not wait for the lease; a failure to say so only makes it wait.
        let _ = services.jobs.release(&lease).await;
    }
    ended
}

/// Takes back what a job has published and frozen, under its lease. May run twice.
pub(super) async fn let_go(services: &Services, lease: &Lease, kind: JobKind) -> Result<()> {
    let mut exports = services.exports.exports();
    let mut names = Vec::new();
    while let Some(export) = exports.next().await {
        let export = export?;
        if export.job == lease.job {
            names.push(export.name);
        }
    }
    drop(exports);
    for name in names {
        take_back(services, lease, &name, DRAIN).await?;
    }
    // A revert froze nothing, and its source may be dead.
    if kind == JobKind::Replicate {
        services.source.release_job(&lease.job).await?;
    }
    Ok(())
}

/// Drains an export, takes it from the server and then from the records (L23, L24). May run twice.
///
/// Records that cannot be written do not keep what this lease serves from its end: a volume that nobody writes any more would stay open
/// until the process ends.
pub(super) async fn take_back(
    services: &Services,
    lease: &Lease,
    name: &ExportName,
    drain: Duration,
) -> Result<()> {
    let recorded = match drained(services, lease, name).await {
        Err(error) if error.kind() != ErrorKind::Fenced && serves(services, lease, name).await => {
            return withdraw(services, name, drain).await.and(Err(error));
        }
        recorded => recorded?,
    };
    // `Busy` as long as the device holds a request: what is recorded must not say "stopped" before it is.
    withdraw(services, name, drain).await?;
    if recorded.is_some_and(|export| export.status == ExportStatus::Draining) {
        services.exports.advance(lease, name, ExportEvent::Stopped).await?;
    }
    services.exports.remove(name).await
}

/// The record of an export, which says that it drains if anybody may use it.
async fn drained(services: &Services, lease: &Lease, name: &ExportName) -> Result<Option<ExportRecord>> {
    let recorded = services.exports.export(name).await?;
    match &recorded {
        Some(export) if matches!(export.status, ExportStatus::Starting | ExportStatus::Running) => {
            services.exports.advance(lease, name, ExportEvent::Drain).await.map(Some)
        }
        _ => Ok(recorded),
    }
}

/// Whether an export is served under this lease, and not under that of whoever took the job over (L16).
async fn serves(services: &Services, lease: &Lease, name: &ExportName) -> bool {
    let ours = |export: &Export| export.name == *name && export.fence == lease.fence;
    let mut served = services.server.list();
    while let Some(export) = served.next().await {
        if export.is_ok_and(|export| ours(&export)) {
            return true;
        }
    }
    false
}

async fn withdraw(services: &Services, name: &ExportName, drain: Duration) -> Result<()> {
    let (patience, never) = (RetryConfig::default(), CancellationToken::new());
    retry(&patience, &never, || services.server.withdraw(name, drain)).await.map(drop)
}
