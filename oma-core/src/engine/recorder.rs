//! Records what a run tells of its job, beside the run: nothing here makes a copy wait, and nothing that fails here makes a job fail.
//!
//! ```text
//! Progress events ─► queue: steps, and a bounded number of lines ─► one task ─► JobLog, in batches
//! ```

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::progress::{DiskProgress, Event, Progress};
use super::report::{DiskReport, Outcome, Report};
use crate::record::{JobEntry, Lease, StepEnd, Told};
use crate::state::{LogLevel, ReplicationType};
use crate::traits::JobLog;
use crate::{Clock as _, DiskKey, ErrorKind, Result, SystemClock};

/// Lines that wait to be recorded; of what comes then only the number is kept.
const WAITING: usize = 1000;
/// How long lines are gathered before they are recorded together.
const PACE: Duration = Duration::from_millis(250);
/// How long a store that failed is left alone.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long the last lines may take, once the run has ended.
const ENDING: Duration = Duration::from_secs(10);

/// Why a step did not end that was under way when the run was stopped.
const STOPPED: &str = "the run was stopped; the next one does this step again";

/// Records what happens to one job under one lease.
#[derive(Debug)]
pub(super) struct Recorder {
    shared: Arc<Shared>,
    /// None where nothing is to be recorded.
    task: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    queue: Mutex<Queue>,
    wake: Notify,
    /// The run has ended: what waits is recorded at once.
    closing: CancellationToken,
}

#[derive(Debug, Default)]
struct Queue {
    entries: VecDeque<JobEntry>,
    /// How many lines wait, with those that are being recorded.
    lines: usize,
    dropped: u64,
    /// Nobody records any more.
    closed: bool,
    /// Warnings that were told.
    warned: Vec<String>,
}

impl Recorder {
    /// Begins to record; of the lines of a job `keep` are kept, the last ones.
    pub(super) fn begin(log: Option<Arc<dyn JobLog>>, lease: &Lease, keep: u64) -> Self {
        let shared = Arc::<Shared>::default();
        shared.queue().closed = log.is_none();
        let task = log.map(|log| {
            let pump = Pump { shared: Arc::clone(&shared), log, lease: lease.clone(), keep };
            tokio::spawn(pump.run())
        });
        Self { shared, task }
    }

    pub(super) fn line(&self, level: LogLevel, message: impl Into<String>, attrs: Option<Value>) {
        self.shared.push(Told::Line { level, message: message.into(), attrs });
    }

    /// Listens beside somebody else.
    pub(super) fn beside<'a>(&'a self, progress: &'a dyn Progress) -> Beside<'a> {
        Beside { recorder: self, progress }
    }

    /// Tells how the run ended, and waits for what was told to be recorded, but not for long.
    pub(super) async fn end(mut self, ended: &Result<Report>) {
        // How it ended is told in any case.
        self.shared.queue().lines = 0;
        self.tell_end(ended);
        self.shared.closing.cancel();
        let Some(mut task) = self.task.take() else { return };
        if tokio::time::timeout(ENDING, &mut task).await.is_err() {
            task.abort();
            tracing::warn!("the last lines of a job's log were not recorded in time");
        }
    }

    fn tell_end(&self, ended: &Result<Report>) {
        let fails = |error: String| self.shared.push(Told::Ends(StepEnd::Failed(error)));
        let report = match ended {
            Ok(report) => report,
            Err(error) => {
                fails(error.chain());
                return self.line(LogLevel::Error, error.chain(), Some(kind_of(error.kind())));
            }
        };
        match &report.outcome {
            Outcome::Completed => {}
            Outcome::Suspended => fails(STOPPED.to_owned()),
            Outcome::Failed(error) | Outcome::Deferred(error) => fails(error.chain()),
        }
        for warning in &report.warnings {
            self.warn(warning);
        }
        for disk in &report.disks {
            self.tell_disk(disk);
        }
        let seconds = json!({ "seconds": report.duration.as_secs_f64() });
        match &report.outcome {
            Outcome::Completed => {
                self.line(LogLevel::Info, format!("epoch {} is committed", report.epoch), Some(seconds));
            }
            Outcome::Suspended => {
                self.line(LogLevel::Info, "the run was stopped; the job goes on later", Some(seconds));
            }
            Outcome::Failed(error) => {
                let message = format!("the job failed: {}", error.chain());
                self.line(LogLevel::Error, message, Some(kind_of(error.kind())));
            }
            Outcome::Deferred(error) => {
                let message = format!("the attempt failed, another one follows: {}", error.chain());
                self.line(LogLevel::Error, message, Some(kind_of(error.kind())));
            }
        }
    }

    fn tell_disk(&self, disk: &DiskReport) {
        let attrs = json!({
            "disk": disk.key,
            "mode": disk.mode.as_str(),
            "bytes_read": disk.bytes_read.bytes(),
            "bytes_written": disk.bytes_written.bytes(),
            "bytes_skipped": disk.bytes_skipped.bytes(),
            "bytes_resumed": disk.bytes_resumed.bytes(),
            "seconds": disk.duration.as_secs_f64(),
        });
        match &disk.error {
            Some(error) => self.line(LogLevel::Error, format!("disk {}: {error}", disk.key), Some(attrs)),
            None => {
                let message =
                    format!("disk {}: {} read, {} written", disk.key, disk.bytes_read, disk.bytes_written);
                self.line(LogLevel::Info, message, Some(attrs));
            }
        }
    }

    /// Tells a warning once.
    fn warn(&self, warning: &str) {
        let mut queue = self.shared.queue();
        if queue.closed || queue.warned.iter().any(|told| told == warning) {
            return;
        }
        queue.warned.push(warning.to_owned());
        drop(queue);
        self.line(LogLevel::Warn, warning, None);
    }

    fn planned(&self, disk: &DiskKey, mode: ReplicationType, note: Option<&str>, progress: &DiskProgress) {
        let DiskProgress { capacity, total, durable, .. } = progress;
        let attrs = json!({
            "disk": disk,
            "mode": mode.as_str(),
            "capacity_bytes": capacity.bytes(),
            "total_bytes": total.bytes(),
            "durable_bytes": durable.bytes(),
        });
        let mut message = format!("disk {disk}: {mode}, {total} of {capacity} to cover");
        if let Some(note) = note {
            message.extend(["; ", note]);
        }
        self.line(LogLevel::Info, message, Some(attrs));
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

fn kind_of(kind: ErrorKind) -> Value {
    json!({ "kind": kind.to_string() })
}

/// Tells somebody, and records.
#[derive(Debug)]
pub(super) struct Beside<'a> {
    recorder: &'a Recorder,
    progress: &'a dyn Progress,
}

impl Progress for Beside<'_> {
    fn event(&self, event: Event<'_>) {
        self.progress.event(event);
        match event {
            Event::StepBegins(step) => self.recorder.shared.push(Told::Begins(step.to_owned())),
            Event::StepEnded(_) => self.recorder.shared.push(Told::Ends(StepEnd::Completed)),
            Event::Planned { disk, mode, note, progress } => {
                self.recorder.planned(disk, mode, note, &progress);
            }
            Event::Warning(warning) => self.recorder.warn(warning),
            // How far it is, others keep; these come by the thousand.
            Event::Job { .. } | Event::Compared { .. } | Event::Copied { .. } | Event::Recorded { .. } => {}
        }
    }
}

impl Shared {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Steps are few and always kept; of lines only as many as may wait.
    fn push(&self, what: Told) {
        let mut queue = self.queue();
        if queue.closed {
            return;
        }
        if matches!(what, Told::Line { .. }) {
            if queue.lines >= WAITING {
                queue.dropped += 1;
                return;
            }
            queue.lines += 1;
        }
        queue.entries.push_back(JobEntry { at: SystemClock.now(), what });
        drop(queue);
        self.wake.notify_one();
    }

    /// Everything that waits, and how much could not.
    fn take(&self) -> Vec<JobEntry> {
        let mut queue = self.queue();
        let dropped = std::mem::take(&mut queue.dropped);
        let mut entries: Vec<_> = std::mem::take(&mut queue.entries).into();
        if dropped > 0 {
            let message =
                format!("{dropped} lines were dropped: they came faster than they could be recorded");
            let what =
                Told::Line { level: LogLevel::Warn, message, attrs: Some(json!({ "lines": dropped })) };
            entries.push(JobEntry { at: SystemClock.now(), what });
        }
        entries
    }

    /// What was taken is recorded, and makes room.
    fn recorded(&self, entries: &[JobEntry]) {
        let lines = entries.iter().filter(|entry| matches!(entry.what, Told::Line { .. })).count();
        let mut queue = self.queue();
        queue.lines = queue.lines.saturating_sub(lines);
    }

    /// What was taken waits again, before what came since.
    fn put_back(&self, entries: Vec<JobEntry>) {
        let mut queue = self.queue();
        for entry in entries.into_iter().rev() {
            queue.entries.push_front(entry);
        }
    }

    fn close(&self) {
        let mut queue = self.queue();
        queue.closed = true;
        queue.entries.clear();
    }
}

/// Takes from the queue and records.
struct Pump {
    shared: Arc<Shared>,
    log: Arc<dyn JobLog>,
    lease: Lease,
    keep: u64,
}

impl Pump {
    async fn run(self) {
        while self.pump().await {}
        self.shared.close();
        if let Err(error) = self.log.trim(&self.lease.job, self.keep).await {
            tracing::debug!(job = %self.lease.job, error = %error.chain(), "could not trim the log of the job");
        }
    }

    /// Records what waits; whether there may be more.
    async fn pump(&self) -> bool {
        let closing = &self.shared.closing;
        tokio::select! {
            biased;
            () = closing.cancelled() => {}
            () = self.shared.wake.notified() => self.unless_closing(PACE).await,
        }
        let is_last = closing.is_cancelled();
        let entries = self.shared.take();
        if entries.is_empty() {
            return !is_last;
        }
        let Err(error) = self.log.record(&self.lease, &entries).await else {
            self.shared.recorded(&entries);
            return !is_last;
        };
        tracing::warn!(job = %self.lease.job, error = %error.chain(), "could not record the log of the job");
        if is_last || matches!(error.kind(), ErrorKind::Fenced | ErrorKind::NotFound) {
            return false;
        }
        self.shared.put_back(entries);
        self.unless_closing(PATIENCE).await;
        self.shared.wake.notify_one();
        true
    }

    async fn unless_closing(&self, pause: Duration) {
        tokio::select! {
            () = self.shared.closing.cancelled() => {}
            () = tokio::time::sleep(pause) => {}
        }
    }
}

/// Tells one line of a job that is not driven now.
pub(super) async fn tell(log: Option<&Arc<dyn JobLog>>, lease: &Lease, level: LogLevel, message: String) {
    let Some(log) = log else { return };
    let what = Told::Line { level, message, attrs: None };
    if let Err(error) = log.record(lease, &[JobEntry { at: SystemClock.now(), what }]).await {
        tracing::warn!(job = %lease.job, error = %error.chain(), "could not record the log of the job");
    }
}

#[cfg(test)]
mod tests;
