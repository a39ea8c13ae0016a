//! Push mode: an agent beside the source copies, and whoever drives the job here waits for its word.
//!
//! ```text
//!  agent: point in time ─► job ─► export, what is to be copied ─► write … finished … write ─► report ─► completed
//!                           │          ▲                            │ NBD        │ HTTP          │
//!  driver: freeze · provision · open · plan ─► mark · publish ──────┴── flush ─── journal ── seal, flush ─► withdraw · commit
//! ```
//!
//! A job has one point in time: its change ids are recorded with it, and a report that names others is refused. An agent that has another
//! point asks for another job; the journal outlives both. An agent's word is taken for what its source holds and what it wrote, never
//! for what is durable (L08).

mod device;
mod meter;
mod source;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use crate::{
    ByteSize, ChangeId, DiskKey, Error, ErrorKind, ExportName, ExtentSet, Fence, JobId, PointId, Result,
    Retry,
};

pub(super) use self::device::PushedDevice;
pub use self::source::{PushDisk, PushSource, PushVm};

/// Words of agents that are not answered yet, per job.
const WAITING: usize = 16;

/// Where agents meet those who drive their jobs in this process. A clone is another handle on the same.
#[derive(Clone, Debug, Default)]
pub struct Pushes(Arc<Mutex<BTreeMap<JobId, Arc<Entry>>>>);

/// A job that waits for its agent.
#[derive(Debug)]
struct Entry {
    state: Mutex<PushState>,
    /// Its disks as agents have them, in the order of the state.
    devices: Vec<Arc<PushedDevice>>,
    /// What agents finished since it is ready, in the same order.
    finished: Mutex<Vec<ExtentSet>>,
    asked: mpsc::Sender<Asked>,
    /// Somebody looked since the driver did.
    looked: AtomicBool,
    /// When something was said last; the beginning, while nothing was.
    said: Mutex<Instant>,
}

/// What an agent is told of a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PushState {
    /// The token of the lease that its exports are published with.
    pub fence: Fence,
    /// How long nobody has read or written an export, or said a word: whoever looks only, as an agent does that waits, is not seen. While
    /// it is short, an agent is at work.
    pub quiet: Duration,
    /// Its disks, by key.
    pub disks: Vec<PushDiskState>,
}

/// What an agent is told of a disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PushDiskState {
    /// The disk.
    pub key: DiskKey,
    /// Its size.
    pub capacity: ByteSize,
    /// The change id of the point in time that is to be copied.
    pub change_id: ChangeId,
    /// Names its content.
    pub content: PointId,
    /// The change id that the volume holds; without one the whole disk is covered.
    pub base: Option<ChangeId>,
    /// Where it is written. Nobody guesses the name.
    pub export: ExportName,
    /// Whether the volume reads as zero in all of `work`.
    pub blank: bool,
    /// Whether what the export reads is what its device holds, so that what is found equal need not be written: after a crash or a failed
    /// flush a page cache may hold what the device does not.
    pub compare: bool,
    /// Whether all of `work` that did not change since `base` holds what it held then: nobody has written there for this epoch.
    pub fresh: bool,
    /// What has to be right when it is reported; what was finished is left out.
    pub work: ExtentSet,
    /// Whether it was reported, and is durable.
    pub reported: bool,
}

/// What an agent says.
#[derive(Debug)]
pub(super) enum Said {
    /// These extents hold what the point in time has.
    Finished { key: DiskKey, extents: ExtentSet },
    /// A disk is complete.
    Report(PushReport),
    /// It gives up.
    Failure(PushFailure),
    /// Who looks after all does not let it go on.
    Revoked { key: DiskKey },
}

/// A disk that an agent has copied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PushReport {
    /// The disk.
    pub key: DiskKey,
    /// The change id that it was copied at.
    pub change_id: ChangeId,
    /// The change id that it was copied from, if the agent says so.
    pub previous: Option<ChangeId>,
}

/// Why an agent gives up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PushFailure {
    /// The reason, for readers.
    pub reason: String,
    /// Whether what was written is of no one moment: the source was written while it was read. No later run builds on it.
    pub mixed: bool,
}

/// What an agent says, and who waits for the answer.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) said: Said,
    pub(super) answer: oneshot::Sender<Result<()>>,
}

impl Pushes {
    /// What a job's agent has to know; `None` while the job is not ready for it in this process.
    #[must_use]
    pub fn state(&self, job: &JobId) -> Option<PushState> {
        self.entry(job).map(|entry| entry.seen_now())
    }

    /// As [`Pushes::state`], for the agent itself: it shows that it lives.
    #[must_use]
    pub fn look(&self, job: &JobId) -> Option<PushState> {
        let entry = self.entry(job)?;
        entry.looked.store(true, Ordering::Release);
        Some(entry.seen_now())
    }

    /// Tells that extents of a disk hold what its point in time has. They are made durable here before the answer, written no more, and
    /// kept: whoever goes on need not copy them again. Idempotent.
    ///
    /// # Errors
    /// `Unavailable` while the job is not ready for its agent here; `NotFound` for another disk; `Conflict` when it was reported, and for
    /// a word of another attempt than the one that is under way, told by its fence (L16); `Invalid` beyond its end; what the volume and
    /// the journal answer.
    pub async fn finished(&self, job: &JobId, fence: Fence, key: DiskKey, extents: ExtentSet) -> Result<()> {
        self.say(job, fence, Said::Finished { key, extents }).await
    }

    /// Reports a disk to be complete. Nothing is written to it any more, and all that was is durable here before the answer; its change id
    /// is recorded with those of all other disks, once all are reported. Idempotent until then.
    ///
    /// # Errors
    /// As [`Pushes::finished`]; `Conflict` for a change id, or one that it was copied from, other than those that were given out (L09).
    pub async fn report(&self, job: &JobId, fence: Fence, report: PushReport) -> Result<()> {
        self.say(job, fence, Said::Report(report)).await
    }

    /// Gives up: the job ends as failed. What was finished stays for the next one, unless it is of no one moment.
    ///
    /// # Errors
    /// `Unavailable` while the job is not ready for its agent here, and while what is of no one moment cannot be disowned: say it again.
    /// `Conflict` for a word of another attempt.
    pub async fn fail(&self, job: &JobId, fence: Fence, failure: PushFailure) -> Result<()> {
        self.say(job, fence, Said::Failure(failure)).await
    }

    /// Ends a job because somebody writes to an export of it who may not: the job ends as failed, and nothing is believed of what was
    /// written. An attempt that is not under way here any more has nothing to be ended.
    ///
    /// # Errors
    /// `Unavailable` while what was written cannot be disowned: the attempt goes on trying to.
    pub async fn revoke(&self, job: &JobId, export: &ExportName) -> Result<()> {
        let Some(entry) = self.entry(job) else { return Ok(()) };
        let (fence, key) = {
            let state = entry.state();
            let disk = state.disks.iter().find(|disk| disk.export == *export);
            (state.fence, disk.map(|disk| disk.key.clone()))
        };
        let Some(key) = key else { return Ok(()) };
        let told = self.say(job, fence, Said::Revoked { key }).await;
        let is_under_way = self.entry(job).is_some_and(|now| Arc::ptr_eq(&now, &entry));
        if is_under_way { told } else { Ok(()) }
    }

    /// A word is of the attempt whose exports it speaks of: one that was late, or is said again, says nothing of another (L16).
    async fn say(&self, job: &JobId, fence: Fence, said: Said) -> Result<()> {
        let absent = || {
            Error::new(ErrorKind::Unavailable, "tell of push", job)
                .because("it is not ready for its agent here, or not any more; ask how it stands")
                .with_retry(Retry::Later)
        };
        let entry = self.entry(job).ok_or_else(absent)?;
        let current = entry.state().fence;
        if fence != current {
            return Err(Error::new(ErrorKind::Conflict, "tell of push", job).because(format!(
                "its attempt {} is under way, not {}; look again and do what that one asks for",
                current.0, fence.0
            )));
        }
        entry.heard();
        let (answer, answered) = oneshot::channel();
        entry.asked.send(Asked { said, answer }).await.map_err(|_| absent())?;
        answered.await.unwrap_or_else(|_| Err(absent()))
    }

    /// Lets an agent in, until the desk is dropped.
    pub(super) fn open(&self, job: &JobId, state: PushState, devices: Vec<Arc<PushedDevice>>) -> Desk {
        let (asked, said) = mpsc::channel(WAITING);
        let finished = Mutex::new(vec![ExtentSet::new(); state.disks.len()]);
        let (state, looked) = (Mutex::new(state), AtomicBool::new(false));
        let spoken = Mutex::new(Instant::now());
        let entry = Arc::new(Entry { state, devices, finished, asked, looked, said: spoken });
        self.table().insert(job.clone(), Arc::clone(&entry));
        Desk { pushes: self.clone(), job: job.clone(), entry, said }
    }

    fn entry(&self, job: &JobId) -> Option<Arc<Entry>> {
        self.table().get(job).cloned()
    }

    fn table(&self) -> MutexGuard<'_, BTreeMap<JobId, Arc<Entry>>> {
        // Each change of the table is one call.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entry {
    /// What an agent that begins now has to know: one before it may have died in the middle of its work.
    fn seen_now(&self) -> PushState {
        let finished = self.finished.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut state = self.state().clone();
        let last = self.devices.iter().filter_map(|device| device.last_call()).max();
        let said = *self.said.lock().unwrap_or_else(PoisonError::into_inner);
        state.quiet = last.map_or(said, |last| last.max(said)).elapsed();
        for ((disk, device), finished) in state.disks.iter_mut().zip(&self.devices).zip(&finished) {
            disk.work = disk.work.difference(finished);
            let is_untouched = !device.was_touched_beside(finished);
            (disk.blank, disk.fresh) = (disk.blank && is_untouched, disk.fresh && is_untouched);
        }
        state
    }

    fn heard(&self) {
        *self.said.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    fn state(&self) -> MutexGuard<'_, PushState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The driver's side.
pub(super) struct Desk {
    pushes: Pushes,
    job: JobId,
    entry: Arc<Entry>,
    said: mpsc::Receiver<Asked>,
}

impl fmt::Debug for Desk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Desk").field("job", &self.job).finish_non_exhaustive()
    }
}

impl Desk {
    /// What the agent says next.
    pub(super) async fn next(&mut self) -> Asked {
        match self.said.recv().await {
            Some(asked) => asked,
            // The entry, and with it a sender, is held here.
            None => std::future::pending().await,
        }
    }

    /// Whether somebody looked since this was asked last.
    pub(super) fn was_looked_at(&self) -> bool {
        self.entry.looked.swap(false, Ordering::AcqRel)
    }

    /// Tells what of a disk is finished.
    pub(super) fn finished(&self, key: &DiskKey, extents: &ExtentSet) {
        let index = self.entry.state().disks.iter().position(|disk| disk.key == *key);
        let mut finished = self.entry.finished.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(finished) = index.and_then(|index| finished.get_mut(index)) {
            finished.extend(extents.iter());
        }
    }

    /// Tells that a disk was reported.
    pub(super) fn reported(&self, key: &DiskKey) {
        let mut state = self.entry.state();
        if let Some(disk) = state.disks.iter_mut().find(|disk| disk.key == *key) {
            disk.reported = true;
        }
    }
}

impl Drop for Desk {
    fn drop(&mut self) {
        // The job may have been taken up again meanwhile.
        let mut table = self.pushes.table();
        if table.get(&self.job).is_some_and(|entry| Arc::ptr_eq(entry, &self.entry)) {
            table.remove(&self.job);
        }
    }
}
