//! Everything that is recorded, in one value: plain data behind one lock.
//!
//! Each change is one closure under the lock: it checks everything first and changes after, so a refusal leaves no trace.

mod accounts;
mod audit;
mod change_ids;
mod claims;
mod cleanups;
mod error;
mod exports;
mod inventory;
mod job_log;
mod jobs;
mod journal;
mod logs;
mod operations;
mod overview;
mod points;
mod reports;
mod volumes;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard};

use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream};

use self::error::Refusal;
use crate::record::{
    CbtRecord, Cleanup, CommittedChange, DiskRecord, EpochCommit, ExportRecord, FailoverRecord, JobLine,
    JobProgress, JobStep, JournalEntry, Lease, LogEvent, Operation, RecoveryPoint, ReplicationJob, VmContext,
    VolumeRecord,
};
use crate::seal::SealedReport;
use crate::{
    AutomationJobId, ByteSize, Clock, ContextId, DiskKey, DiskRef, ExportName, FailoverJobId, Fence,
    Generation, InstanceId, JobId, LogId, OperationId, RecoveryPointId, Result, SystemClock, Timestamp,
    VolumeId,
};

/// All stores of OMA in memory; forgotten with the process.
///
/// Implements [`JobStore`](crate::traits::JobStore), [`Inventory`](crate::traits::Inventory),
/// [`ChangeIdRepo`](crate::traits::ChangeIdRepo), [`ExtentJournal`](crate::traits::ExtentJournal),
/// [`VolumeRegistry`](crate::traits::VolumeRegistry), [`ExportRegistry`](crate::traits::ExportRegistry),
/// [`LogStore`](crate::traits::LogStore), [`JobLog`](crate::traits::JobLog), [`Overview`](crate::traits::Overview),
/// [`ReportStore`](crate::traits::ReportStore), [`RecoveryPoints`](crate::traits::RecoveryPoints),
/// [`Accounts`](crate::traits::Accounts), [`AuditLog`](crate::traits::AuditLog) and [`Cleanups`](crate::traits::Cleanups).
#[derive(Debug)]
pub struct MemoryStore {
    clock: Arc<dyn Clock>,
    state: Mutex<State>,
}

impl MemoryStore {
    /// An empty store that takes its time from `clock`.
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self { clock, state: Mutex::new(State::new()) }
    }

    /// Makes an automation job known, so that its lines can be recorded. A second time changes nothing.
    pub fn add_automation_job(&self, id: AutomationJobId) {
        self.state().automation_jobs.insert(id);
    }

    /// The records as they are now, as a backup of a database has them.
    #[cfg(test)]
    pub(crate) fn copy(&self) -> Self {
        Self { clock: Arc::clone(&self.clock), state: Mutex::new(self.state().clone()) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no change panics while it holds the lock")
    }

    /// Runs one change; a refusal becomes the public error.
    fn change<T>(
        &self,
        operation: &'static str,
        resource: &dyn fmt::Display,
        change: impl FnOnce(&mut State, Timestamp) -> Result<T, Refusal>,
    ) -> Result<T> {
        let mut state = self.state();
        let now = self.clock.now();
        change(&mut state, now).map_err(|refusal| refusal.into_error(operation, resource))
    }
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::new(Arc::new(SystemClock))
    }
}

/// What stands behind a key, which need not be there.
fn behind<'a, K: Ord, V>(all: &'a BTreeMap<K, V>, after: Option<&K>) -> impl Iterator<Item = &'a V> {
    let start = after.map_or(Bound::Unbounded, Bound::Excluded);
    all.range((start, Bound::Unbounded)).map(|(_, value)| value)
}

/// A list as it was at the call.
fn listed<T: Send + 'static>(rows: Vec<T>) -> BoxStream<'static, Result<T>> {
    stream::iter(rows.into_iter().map(Ok)).boxed()
}

#[derive(Clone, Debug)]
struct State {
    instance: InstanceId,
    contexts: BTreeMap<ContextId, VmContext>,
    disks: BTreeMap<DiskRef, Disk>,
    last_job: usize,
    jobs: BTreeMap<JobId, Job>,
    history: Vec<CbtRecord>,
    journals: BTreeMap<DiskRef, JournalEntry>,
    reports: BTreeMap<JobId, SealedReport>,
    points: BTreeMap<RecoveryPointId, RecoveryPoint>,
    volumes: BTreeMap<VolumeId, VolumeRecord>,
    /// For which disks volumes were made that are gone: an id never passes to another disk.
    gone: BTreeMap<VolumeId, DiskRef>,
    operations: BTreeMap<OperationId, Intent>,
    exports: BTreeMap<ExportName, ExportRecord>,
    last_event: LogId,
    events: BTreeMap<LogId, LogEvent>,
    steps: BTreeMap<(JobId, u32), JobStep>,
    automation_jobs: BTreeSet<AutomationJobId>,
    last_line: u64,
    lines: BTreeMap<(AutomationJobId, u64), Line>,
    accounts: accounts::Table,
    trail: audit::Trail,
    /// In the order of recording.
    cleanups: Vec<Cleanup>,
    failovers: BTreeMap<FailoverJobId, FailoverRecord>,
}

#[derive(Clone, Debug)]
struct Disk {
    record: DiskRecord,
    committed: Option<CommittedChange>,
    /// The largest generation that a volume of this disk ever had.
    generation: Option<Generation>,
}

#[derive(Clone, Debug)]
struct Job {
    record: ReplicationJob,
    /// Its place in the order of insertion.
    seq: usize,
    /// What its disks have durable, while and as they are its own.
    bytes: ByteSize,
    progress: Option<JobProgress>,
    /// What ended it, to recognise the same commit again.
    committed: Option<EpochCommit>,
}

#[derive(Clone, Debug)]
struct Line {
    record: JobLine,
    /// Its place in the order of recording, over all jobs.
    seq: u64,
}

#[derive(Clone, Debug)]
struct Intent {
    record: Operation,
    /// The answer to its completion.
    answer: Option<VolumeRecord>,
}

impl State {
    fn new() -> Self {
        Self {
            instance: InstanceId::mint(),
            contexts: BTreeMap::new(),
            disks: BTreeMap::new(),
            last_job: 0,
            jobs: BTreeMap::new(),
            history: Vec::new(),
            journals: BTreeMap::new(),
            reports: BTreeMap::new(),
            points: BTreeMap::new(),
            volumes: BTreeMap::new(),
            gone: BTreeMap::new(),
            operations: BTreeMap::new(),
            exports: BTreeMap::new(),
            last_event: LogId::FIRST,
            events: BTreeMap::new(),
            steps: BTreeMap::new(),
            automation_jobs: BTreeSet::new(),
            last_line: 0,
            lines: BTreeMap::new(),
            accounts: accounts::Table::default(),
            trail: audit::Trail::default(),
            cleanups: Vec::new(),
            failovers: BTreeMap::new(),
        }
    }

    /// The job that a lease may write to: its token is the newest, was not given back and the job is live (L16).
    ///
    /// Time plays no part: a lease that ran out stays good until somebody claims (L17).
    fn guard(&self, lease: &Lease) -> Result<&Job, Refusal> {
        let job = self.jobs.get(&lease.job);
        let good = |job: &&Job| {
            job.record.fence == lease.fence
                && job.record.owner.as_ref() == Some(&lease.worker)
                && !job.record.status.is_terminal()
        };
        job.filter(good).ok_or_else(|| Refusal::Fenced {
            given: lease.fence,
            newest: job.map_or(Fence::FIRST, |job| job.record.fence),
        })
    }

    /// [`Self::guard`], and the disk must be the job's.
    fn guard_disk(&self, lease: &Lease, key: &DiskKey) -> Result<DiskRef, Refusal> {
        let job = &self.guard(lease)?.record;
        if !job.disks.contains(key) {
            return Err(Refusal::unknown("disk of this job", key));
        }
        Ok(DiskRef { context: job.context.clone(), key: key.clone() })
    }

    /// Whether a disk is the job's of a lease that was checked.
    fn is_of(&self, lease: &Lease, disk: &DiskRef) -> bool {
        self.jobs
            .get(&lease.job)
            .is_some_and(|job| job.record.context == disk.context && job.record.disks.contains(&disk.key))
    }

    fn disk_mut(&mut self, disk: &DiskRef) -> &mut Disk {
        self.disks.get_mut(disk).expect("a job's disks are recorded and never removed")
    }
}
