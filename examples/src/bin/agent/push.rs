//! From the job to its end.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use oma_api::{PushDiskRow, PushFailed, PushRow, RecordChangeId};
use oma_core::engine::Progress;
use oma_core::state::JobStatus;
use oma_core::{Error, ErrorKind, Result, Retry, WorkerId};
use oma_examples::signals::Signals;
use oma_examples::{output, progress};
use tokio::time::Instant;

use crate::appliances::Appliances;
use crate::args::Cli;
use crate::disk;
use crate::job::{Job, Sides};

/// Whose the marks are that a running machine keeps.
const OWNER: &str = "agent";

/// Brings a VM to its next epoch.
pub(crate) async fn run(cli: &Cli) -> Result<()> {
    let signals = Signals::listen("stopping; the same command goes on (once more: end at once)")?;
    let appliances = Appliances::new(cli).await?;
    let source = cli.disks.open()?;
    source.notes().await?.iter().for_each(output::note);
    let owner = WorkerId::parse(OWNER)
        .map_err(|error| Error::new(ErrorKind::Internal, "name", "the agent").with_source(error))?;
    let source = source.for_jobs().owned_by(owner);
    let sides = Sides { appliances, source, cli, stop: signals.stop(), moved: Arc::default() };
    let job = sides.job().await?;
    let pushed = push(&sides, &job).await;
    // What is copied is copied; a point in time that cannot be let go of bears the job's name.
    if let Err(error) = sides.source.release(&job.point.id).await {
        output::note(format!("the source still holds the point in time {}: {}", job.point.id, error.chain()));
    }
    pushed
}

async fn push(sides: &Sides<'_>, job: &Job) -> Result<()> {
    let shown = progress::for_stderr();
    let mut round =
        Round { sides, job, shown, stall: Stall::new(&sides.moved), fence: None, noted: false, mixed: false };
    loop {
        let row = sides.patiently(|| sides.appliances.push(&job.id)).await?;
        if row.status.is_terminal() {
            return ended(sides, &row).await;
        }
        if let Err(error) = round.drive(&row).await {
            round.judge(error).await?;
        }
        sides.rest().await?;
    }
}

/// Tells how it ended.
async fn ended(sides: &Sides<'_>, row: &PushRow) -> Result<()> {
    if sides.cli.json {
        output::json(&sides.look(|| sides.api().job(&row.job_id)).await?)?;
    }
    if row.status != JobStatus::Completed {
        let reason = row.error.clone().unwrap_or_else(|| row.status.to_string());
        return Err(Error::new(ErrorKind::Conflict, "push", &row.job_id)
            .because(format!("the job ended {}: {reason}; run the same command again", row.status)));
    }
    if !sides.cli.json {
        output::line(format_args!("{}: epoch {} is complete", row.job_id, row.epoch))?;
    }
    Ok(())
}

fn not_ready(row: &PushRow) -> Error {
    let reason = format!(
        "it is {}, and nobody who was asked drives it; where several appliances share a database name each with --api",
        row.status
    );
    Error::new(ErrorKind::Unavailable, "push", &row.job_id).because(reason).with_retry(Retry::Later)
}

/// How long nothing has moved.
struct Stall {
    since: Instant,
    /// Set by whoever moves something.
    moved: Arc<AtomicBool>,
}

impl Stall {
    fn new(moved: &Arc<AtomicBool>) -> Self {
        Self { since: Instant::now(), moved: Arc::clone(moved) }
    }

    fn end(&mut self, now: Instant) {
        self.since = now;
    }

    /// Since something was seen to have moved.
    fn lasts(&mut self, now: Instant) -> Duration {
        if self.moved.swap(false, Ordering::Relaxed) {
            self.end(now);
        }
        now.duration_since(self.since)
    }
}

/// Attempts of this run.
struct Round<'a> {
    sides: &'a Sides<'a>,
    job: &'a Job,
    shown: Arc<dyn Progress>,
    stall: Stall,
    /// Of whom the exports are that were written.
    fence: Option<u64>,
    /// It was told that something is waited for.
    noted: bool,
    /// What was copied is of no one moment.
    mixed: bool,
}

impl Round<'_> {
    /// Copies every disk that was not reported, asks the source whether that was one moment, and reports all.
    async fn drive(&mut self, row: &PushRow) -> Result<()> {
        let Some(fence) = row.fence.filter(|_| row.ready) else {
            let is_over = self.stall.lasts(Instant::now()) >= self.sides.cli.patience;
            return if is_over { Err(not_ready(row)) } else { Ok(()) };
        };
        if self.fence != row.fence {
            (self.fence, self.noted) = (row.fence, false);
            self.stall.end(Instant::now());
        }
        let open: Vec<&PushDiskRow> = row.disks.iter().filter(|disk| !disk.reported).collect();
        if open.is_empty() {
            return Ok(());
        }
        let stop = self.sides.stop.child_token();
        let copy = async |disk: &PushDiskRow| {
            let copied = disk::push(self.sides, self.job, (fence, disk), &*self.shown, &stop).await;
            // One that fails stops the others: no disk is of use without all.
            copied.inspect_err(|_| stop.cancel())
        };
        let copied = join_all(open.iter().map(|disk| copy(disk))).await;
        let mut failed: Vec<Error> = copied.into_iter().filter_map(Result::err).collect();
        // Those that were stopped say nothing of the cause.
        failed.sort_by_key(|error| error.kind() == ErrorKind::Cancelled);
        if let Some(error) = failed.into_iter().next() {
            return Err(error);
        }
        if let Err(error) = self.sides.source.confirm(&self.job.point).await {
            self.mixed = error.kind() == ErrorKind::Conflict;
            return Err(error);
        }
        for disk in open {
            let report = RecordChangeId {
                change_id: disk.change_id.clone(),
                disk_id: Some(disk.disk_id.clone()),
                previous_change_id: disk.base_change_id.clone(),
                fence: Some(fence),
            };
            self.sides.api().report(&self.job.id, &report).await?;
        }
        self.stall.end(Instant::now());
        Ok(())
    }

    /// Gives the job up, whichever attempt is under way: what was copied before is of none that is to go on.
    async fn give_up(&self, reason: &str, mixed: bool) -> Result<()> {
        let (sides, id) = (self.sides, &self.job.id);
        let said = async || {
            let row = sides.appliances.push(id).await?;
            if row.status.is_terminal() {
                return Ok(());
            }
            let fence = row.fence.filter(|_| row.ready).ok_or_else(|| {
                Error::new(ErrorKind::Unavailable, "give up", id)
                    .because("it is not ready for its agent")
                    .with_retry(Retry::Later)
            })?;
            let why = PushFailed { fence, reason: reason.to_owned(), mixed };
            match sides.api().give_up(id, &why).await {
                // It began another attempt meanwhile.
                Err(error) if error.kind() == ErrorKind::Conflict => Err(error.with_retry(Retry::Later)),
                said => said.map(drop),
            }
        };
        self.sides.patiently(said).await
    }

    /// Whether it is worth trying again. What never can be right ends the job; anything else leaves it to the next run.
    async fn judge(&mut self, error: Error) -> Result<()> {
        if self.sides.stop.is_cancelled() {
            return Err(self.sides.stopped());
        }
        let mixed = self.mixed;
        let hopeless =
            matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::Mismatch | ErrorKind::Unsupported);
        if mixed || hopeless {
            let reason: String = error.chain().chars().filter(|c| !c.is_control()).take(900).collect();
            if let Err(unsaid) = self.give_up(&reason, mixed).await {
                output::note(format!("the appliance was not told: {}", unsaid.chain()));
            }
            return Err(error);
        }
        // An appliance that was restarted has other exports, and those from before refuse.
        let passes = matches!(
            error.kind(),
            ErrorKind::Unavailable | ErrorKind::PermissionDenied | ErrorKind::NotFound | ErrorKind::Conflict
        );
        if !passes || self.stall.lasts(Instant::now()) >= self.sides.cli.patience {
            return Err(error);
        }
        if !std::mem::replace(&mut self.noted, true) {
            output::note(format!("waiting: {}", error.chain()));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_copied_for_hours_has_not_stood_still() {
        let moved = Arc::new(AtomicBool::new(false));
        let mut stall = Stall::new(&moved);
        let begun = stall.since;
        let at = |hours| begun + Duration::from_hours(hours);
        assert_eq!(stall.lasts(at(2)), Duration::from_hours(2));
        moved.store(true, Ordering::Relaxed);
        assert_eq!(stall.lasts(at(3)), Duration::ZERO);
        assert_eq!(stall.lasts(at(4)), Duration::from_hours(1));
        stall.end(at(5));
        assert_eq!(stall.lasts(at(5)), Duration::ZERO);
    }
}
