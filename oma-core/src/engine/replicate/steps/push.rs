//! The copy of a job that an agent pushes: its volumes are served for writing, and it is waited for.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::copy::zero_ends;
use super::stamp::disown;
use super::withdraw::withdraw;
use crate::engine::cancel::take_back;
use crate::engine::config::ReplicateConfig;
use crate::engine::progress::Event;
use crate::engine::push::{
    Asked, Desk, PushDiskState, PushFailure, PushReport, PushState, PushedDevice, Said,
};
use crate::engine::replicate::disk::RunDisk;
use crate::engine::replicate::run::Run;
use crate::engine::retry::retry;
use crate::state::ExportEvent;
use crate::traits::{Access, BlockDevice as _, ExportSpec};
use crate::{ByteSize, DiskKey, Error, ErrorKind, ExportName, ExtentSet, Result, Retry};

/// What an agent says, and all that came of it, is looked at this often at least.
const PACE: Duration = Duration::from_secs(1);

/// Serves every volume for writing and waits until the agent has reported every disk. Nothing is done that is not durable here (L08).
pub(super) async fn push(run: &mut Run<'_>) -> Result<()> {
    zero_ends(run).await?;
    take_back_earlier(run).await?;
    for index in 0..run.disks.len() {
        let published = publish(run, index).await;
        published.inspect_err(|error| run.disks[index].error = Some(error.chain()))?;
    }
    let disks = run.disks.iter().map(told).collect();
    let devices = run.disks.iter().filter_map(|disk| disk.pushed.clone()).collect();
    let state = PushState { fence: run.lease.fence, quiet: Duration::ZERO, disks };
    let desk = run.services.pushes.open(&run.job.id, state, devices);
    let pushed = Waiting { desk, heard: Instant::now(), calls: 0, mixed: None }.wait(run).await;
    for disk in &mut run.disks {
        count(disk);
    }
    pushed
}

/// Refuses an epoch of which a disk was written after its report: what was reported was not complete; and one of which something may not
/// be durable (L08). Asked once nothing can be written any more.
pub(super) fn nothing_late(run: &mut Run<'_>) -> Result<()> {
    let doubted = |disk: &&mut RunDisk| disk.pushed.as_ref().is_some_and(|pushed| pushed.is_in_doubt());
    if let Some(disk) = run.disks.iter_mut().find(doubted) {
        return Err(lost(disk));
    }
    let late = |disk: &&mut RunDisk| disk.pushed.as_ref().is_some_and(|pushed| pushed.was_late());
    let Some(disk) = run.disks.iter_mut().find(late) else { return Ok(()) };
    let reason = "it was written after it was reported to be complete; the agent begins again, see whether two of them run";
    let error = Error::new(ErrorKind::Conflict, "complete disk", &disk.point.key).because(reason);
    disk.error = Some(error.chain());
    Err(error.with_retry(Retry::Later))
}

/// A flush of its volume failed: what was written may be lost.
fn lost(disk: &mut RunDisk) -> Error {
    // A stamp would say that it is in good order.
    disk.counters.flush_in_doubt = true;
    let error = Error::new(ErrorKind::Unavailable, "flush volume", &disk.ready_volume().record.id)
        .because("what was written may be lost; the next attempt looks at all of it");
    disk.error = Some(error.chain());
    error
}

/// Exports of runs before are gone from the records before there are others: each has a name of its own.
async fn take_back_earlier(run: &Run<'_>) -> Result<()> {
    let (services, lease) = (run.services, &run.lease);
    let mut names = Vec::new();
    let mut exports = services.exports.exports();
    while let Some(export) = exports.next().await {
        let export = export?;
        if export.job == lease.job {
            names.push(export.name);
        }
    }
    drop(exports);
    for name in names {
        take_back(services, lease, &name, run.config.drain).await?;
    }
    Ok(())
}

/// Publishes a volume for writing, under a name that nobody guesses: an agent of an earlier run does not find it (L16).
async fn publish(run: &mut Run<'_>, index: usize) -> Result<()> {
    let (services, lease) = (run.services, run.lease.clone());
    let disk = &mut run.disks[index];
    let (key, id) = (disk.point.key.clone(), disk.ready_volume().record.id.clone());
    let ready = ExportName::for_disk(&run.context.identity.instance_uuid, &key);
    let name = ready
        .and_then(|name| ExportName::parse(format!("{name}-{}", Uuid::new_v4().simple())))
        .map_err(|error| Error::new(ErrorKind::Invalid, "name export", &key).with_source(error))?;
    let (scope, capacity) = (disk.plan().scope.clone(), disk.point.capacity);
    let finished = scope.difference(&disk.plan().work);
    let pushed = Arc::new(PushedDevice::new(disk.target_device(), capacity, scope, finished));
    services.exports.begin(&lease, &name, &key, &id).await?;
    disk.export = Some(name.clone());
    disk.pushed = Some(Arc::clone(&pushed));
    let spec = ExportSpec {
        name: name.clone(),
        description: format!("replica pushed for {}", lease.job),
        access: Access::ReadWrite,
        fence: lease.fence,
        device: pushed,
    };
    services.server.publish(spec).await?;
    services.exports.advance(&lease, &name, ExportEvent::Started).await?;
    Ok(())
}

fn told(disk: &RunDisk) -> PushDiskState {
    let plan = disk.plan();
    PushDiskState {
        key: disk.point.key.clone(),
        capacity: disk.point.capacity,
        change_id: disk.point.change_id.clone(),
        content: disk.point.content.clone(),
        base: plan.basis.base.clone(),
        export: disk.export.clone().expect("it was published just now"),
        blank: plan.blank,
        // As where the engine compares: see `Repair::settle_equal`.
        compare: disk.ready_volume().untouched,
        fresh: disk.fresh,
        work: plan.work.clone(),
        reported: false,
    }
}

/// Counts what went through the export: all of it was done by this run.
fn count(disk: &mut RunDisk) {
    let Some(device) = &disk.pushed else { return };
    let (pushed, work) = (device.pushed(), &disk.plan.as_ref().expect("planning comes before").work);
    let within = |extents: &ExtentSet| work.intersection(extents).bytes();
    let mut durable = pushed.durable;
    durable.extend(disk.finished.iter());
    let mut done = pushed.pending;
    done.extend(durable.iter());
    let (total, settled) = (disk.counters.progress.total, disk.settled());
    let progress = &mut disk.counters.progress;
    (progress.done, progress.durable) = (settled + within(&done), settled + within(&durable));
    if disk.reported {
        (progress.done, progress.durable) = (total, total);
    }
    progress.written = pushed.written;
    disk.counters.pieces = pushed.writes;
    disk.counters.stages = device.times();
    disk.counters.flush_in_doubt = device.is_in_doubt();
}

/// Waits for an agent.
struct Waiting {
    desk: Desk,
    /// When the agent showed last that it lives.
    heard: Instant,
    /// Calls of all exports by then.
    calls: u64,
    /// Why it gave up, when what it wrote is of no one moment and could not be disowned yet.
    mixed: Option<PushFailure>,
}

impl Waiting {
    async fn wait(mut self, run: &mut Run<'_>) -> Result<()> {
        let stop = run.stop.clone();
        let mut tick =
            tokio::time::interval(PACE.min(run.config.journal_interval.max(Duration::from_millis(1))));
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        while run.disks.iter().any(|disk| !disk.reported) {
            tokio::select! {
                biased;
                () = stop.cancelled() => return run.check_stop(),
                asked = self.desk.next() => {
                    self.heard = Instant::now();
                    self.answer(run, asked).await?;
                }
                _ = tick.tick() => self.look(run).await?,
            }
        }
        Ok(())
    }

    /// Tells how far it is, makes durable what waits for that, and gives up an agent that showed no sign of life for too long.
    async fn look(&mut self, run: &mut Run<'_>) -> Result<()> {
        let calls =
            run.disks.iter().filter_map(|disk| disk.pushed.as_ref()).map(|pushed| pushed.calls()).sum();
        if let Some(failure) = self.mixed.clone() {
            // Whoever was told that it failed may be gone.
            return self.give_up(run, failure).await.1.map_or(Ok(()), Err);
        }
        if self.desk.was_looked_at() || calls != self.calls {
            (self.heard, self.calls) = (Instant::now(), calls);
        }
        for disk in &mut run.disks {
            let Some(device) = disk.pushed.clone() else { continue };
            if device.is_in_doubt() {
                return Err(lost(disk));
            }
            if device.pushed().pending.bytes() >= run.config.journal_step {
                patiently((run.config, run.stop), &disk.point.key, device.flush()).await?;
                self.calls += 1;
            }
            tell(disk, run.progress, false);
        }
        let patience = run.config.agent_patience;
        if self.heard.elapsed() < patience {
            return Ok(());
        }
        Err(Error::new(ErrorKind::Unavailable, "push", &run.context.path)
            .because(format!(
                "its agent gave no sign of life for {} s; start it again",
                patience.as_secs_f64()
            ))
            .with_retry(Retry::Later))
    }

    /// Does what the agent asks for. What is wrong with that is the agent's to know and does not end the job; what is wrong here does.
    async fn answer(&mut self, run: &mut Run<'_>, asked: Asked) -> Result<()> {
        let Asked { said, answer } = asked;
        let (answered, ended) = match said {
            Said::Failure(PushFailure { reason, mixed }) => {
                let reason = format!("its agent gave up: {reason}");
                self.give_up(run, PushFailure { reason, mixed }).await
            }
            Said::Revoked { key } => {
                let reason = format!(
                    "the export of {key} was revoked: what was written to it is not believed; begin another job"
                );
                self.give_up(run, PushFailure { reason, mixed: true }).await
            }
            _ if self.mixed.is_some() => (Err(given_up(run)), None),
            Said::Finished { key, extents } => self.finished(run, &key, &extents).await,
            Said::Report(report) => self.report(run, &report).await,
        };
        // Whoever asked may be gone.
        let _ = answer.send(answered);
        ended.map_or(Ok(()), Err)
    }

    /// Ends the job for an agent that cannot go on, or may not. Of what it wrote while its source was written nothing is believed any more: until that
    /// is sure the job goes on, because whoever takes it up later is not told.
    async fn give_up(&mut self, run: &mut Run<'_>, failure: PushFailure) -> (Result<()>, Option<Error>) {
        let mixed = failure.mixed || self.mixed.is_some();
        let failed = Error::new(ErrorKind::Unavailable, "push", &run.context.path)
            .because(failure.reason.clone())
            .with_retry(Retry::Never);
        if mixed {
            self.mixed = Some(failure);
            if let Err(error) = disown_all(run).await {
                tracing::warn!(job = %run.job.id, error = %error.chain(), "what was pushed is not disowned yet");
                let kept = Error::new(ErrorKind::Unavailable, "give up", &run.context.path)
                    .because(
                        "what was written is of no one moment and could not be disowned yet; say it again",
                    )
                    .with_retry(Retry::Later);
                return (Err(kept.with_source(error)), None);
            }
        }
        run.is_hopeless = true;
        (Ok(()), Some(failed))
    }

    async fn finished(
        &self,
        run: &mut Run<'_>,
        key: &DiskKey,
        extents: &ExtentSet,
    ) -> (Result<()>, Option<Error>) {
        let (services, lease, config, stop) = (run.services, run.lease.clone(), run.config, run.stop);
        let progress = run.progress;
        let disk = match open_disk(run, key) {
            Ok(disk) => disk,
            Err(refused) => return (Err(refused), None),
        };
        if extents.last().is_some_and(|last| last.end() > disk.point.capacity.bytes()) {
            let error = Error::new(ErrorKind::Invalid, "finish", key);
            return (Err(error.because("it ends beyond the disk")), None);
        }
        let device = Arc::clone(disk.pushed.as_ref().expect("it was published"));
        let kept = async {
            patiently((config, stop), key, device.finish(extents)).await?;
            for extent in extents.iter() {
                disk.finished.insert(extent);
                let synced = disk.synced();
                retry(&config.retry, stop, || services.journal.record(&lease, key, extent, synced)).await?;
            }
            Ok(())
        };
        let kept: Result<()> = kept.await;
        match kept {
            Ok(()) => {
                self.desk.finished(key, extents);
                tell(disk, progress, true);
                (Ok(()), None)
            }
            Err(error) => (Err(not_kept(key)), Some(error)),
        }
    }

    async fn report(&self, run: &mut Run<'_>, report: &PushReport) -> (Result<()>, Option<Error>) {
        let (config, stop) = (run.config, run.stop);
        let Some(disk) = run.disks.iter_mut().find(|disk| disk.point.key == report.key) else {
            return (Err(no_disk(&report.key)), None);
        };
        if let Err(refused) = check(disk, report) {
            return (Err(refused), None);
        }
        if disk.reported {
            return (Ok(()), None);
        }
        let device = Arc::clone(disk.pushed.as_ref().expect("it was published"));
        if let Err(error) = patiently((config, stop), &report.key, device.seal()).await {
            return (Err(not_kept(&report.key)), Some(error));
        }
        disk.reported = true;
        tell(disk, run.progress, true);
        self.desk.reported(&report.key);
        (Ok(()), None)
    }
}

/// The agent's report is of what was given out (L09).
fn check(disk: &RunDisk, report: &PushReport) -> Result<()> {
    let refused =
        |reason: String| Err(Error::new(ErrorKind::Conflict, "complete disk", &report.key).because(reason));
    if report.change_id != disk.point.change_id {
        let (told, given) = (&report.change_id, &disk.point.change_id);
        return refused(format!(
            "it is to be copied at {given}, not at {told}; for another point ask for another job"
        ));
    }
    let base = &disk.plan().basis.base;
    if report.previous.is_some() && report.previous != *base {
        let given = base.as_ref().map_or("as a whole".to_owned(), |base| format!("from {base} on"));
        return refused(format!("it is to be copied {given}; see what the job says is to be copied"));
    }
    Ok(())
}

/// A disk that is not reported yet.
fn open_disk<'a>(run: &'a mut Run<'_>, key: &DiskKey) -> Result<&'a mut RunDisk> {
    let disk = run.disks.iter_mut().find(|disk| disk.point.key == *key).ok_or_else(|| no_disk(key))?;
    if disk.reported {
        return Err(Error::new(ErrorKind::Conflict, "finish", key).because("it was reported to be complete"));
    }
    Ok(disk)
}

fn no_disk(key: &DiskKey) -> Error {
    Error::new(ErrorKind::NotFound, "find disk", key).because("it is not one of the job's")
}

fn not_kept(key: &DiskKey) -> Error {
    Error::new(ErrorKind::Unavailable, "make durable", key)
        .because("the volume or the records could not be written; the job begins another attempt")
        .with_retry(Retry::Later)
}

/// Flushes; after a stop it is waited for only so long.
async fn patiently(
    run: (&ReplicateConfig, &CancellationToken),
    key: &DiskKey,
    flush: impl Future<Output = Result<()>>,
) -> Result<()> {
    let (config, stop) = run;
    let mut flush = std::pin::pin!(flush);
    tokio::select! {
        biased;
        flushed = &mut flush => return flushed,
        () = stop.cancelled() => {}
    }
    let stopped = || Error::new(ErrorKind::Cancelled, "flush", key).because("the run was stopped");
    tokio::time::timeout(config.drain, flush).await.unwrap_or_else(|_| Err(stopped()))
}

fn tell(disk: &mut RunDisk, progress: &dyn crate::engine::progress::Progress, kept: bool) {
    let before = disk.counters.progress;
    count(disk);
    let moved = before != disk.counters.progress;
    let (disk, now) = (&disk.point.key, disk.counters.told());
    if kept {
        progress.event(Event::Recorded { disk, progress: now });
    } else if moved {
        progress.event(Event::Copied { disk, progress: now });
    }
}

/// Of what was written nothing is believed any more, by nobody; nor can anything be written.
async fn disown_all(run: &mut Run<'_>) -> Result<()> {
    let mut disowned = withdraw(run).await;
    for disk in &mut run.disks {
        disowned = disowned.and(disown(run.services, run.config, &run.lease, disk).await);
    }
    disowned
}

fn given_up(run: &Run<'_>) -> Error {
    Error::new(ErrorKind::Conflict, "tell of push", &run.context.path)
        .because("its agent gave up: what was written is of no one moment; begin another job")
}

impl RunDisk {
    /// Bytes that were right before this run wrote.
    fn settled(&self) -> ByteSize {
        let plan = self.plan();
        plan.resumed + plan.equal
    }

    /// Bytes of the epoch that are durable and in the journal.
    fn synced(&self) -> ByteSize {
        let plan = self.plan();
        let mut finished = plan.finished.clone();
        finished.extend(self.finished.iter());
        plan.scope.intersection(&finished).bytes()
    }
}
