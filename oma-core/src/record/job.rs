use std::collections::BTreeSet;

use super::Order;
use crate::state::{JobKind, JobStatus, ReplicationType, Wanted};
use crate::{ContextId, DiskKey, DiskRef, Epoch, Fence, JobId, TargetName, Timestamp, WorkerId};

/// A job to be recorded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobSpec {
    /// Minted by the caller.
    pub id: JobId,
    /// Its VM.
    pub context: ContextId,
    /// What it does with the VM's volumes.
    pub kind: JobKind,
    /// What is expected; each disk's own mode stands in `cbt_history`.
    pub replication_type: ReplicationType,
    /// The disks it has, all of them recorded before; at least one, none twice.
    pub disks: Vec<DiskKey>,
    /// Larger goes first; 0 is usual.
    pub priority: i32,
    /// Where its volumes live, if jobs towards that place are to be bounded.
    pub target: Option<TargetName>,
    /// What whoever drives it has to know: its source, its options, in a form of the program that recorded it, without a secret
    /// (L29). At most [`JobSpec::LONGEST_REQUEST`] bytes. A job without one is driven only by who names it.
    pub request: Option<String>,
}

impl JobSpec {
    /// Bytes of the longest request.
    pub const LONGEST_REQUEST: usize = 64 << 10;

    /// A job of usual priority without a target and a request.
    #[must_use]
    pub const fn new(
        id: JobId,
        context: ContextId,
        replication_type: ReplicationType,
        disks: Vec<DiskKey>,
    ) -> Self {
        let kind = JobKind::Replicate;
        Self { id, context, kind, replication_type, disks, priority: 0, target: None, request: None }
    }

    /// A job that changes the volume of one disk for an operator.
    #[must_use]
    pub fn operate(id: JobId, disk: DiskRef) -> Self {
        let (kind, replication_type) = (JobKind::Operate, ReplicationType::Initial);
        let DiskRef { context, key } = disk;
        Self {
            id,
            context,
            kind,
            replication_type,
            disks: vec![key],
            priority: 0,
            target: None,
            request: None,
        }
    }

    /// A job that brings the volumes of these disks back to a recovery point.
    #[must_use]
    pub const fn revert(id: JobId, context: ContextId, disks: Vec<DiskKey>) -> Self {
        let (kind, replication_type) = (JobKind::Revert, ReplicationType::Initial);
        Self { id, context, kind, replication_type, disks, priority: 0, target: None, request: None }
    }
}

/// A replication job (`replication_jobs`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplicationJob {
    /// Its id.
    pub id: JobId,
    /// Its VM.
    pub context: ContextId,
    /// What it does with the VM's volumes.
    pub kind: JobKind,
    /// What was expected when it was recorded.
    pub replication_type: ReplicationType,
    /// How it stands.
    pub status: JobStatus,
    /// The epoch that it produces, if it replicates.
    pub epoch: Epoch,
    /// Its disks, by key.
    pub disks: Vec<DiskKey>,
    /// Larger goes first.
    pub priority: i32,
    /// Where its volumes live, if that was said.
    pub target: Option<TargetName>,
    /// What whoever drives it has to know, if that was said.
    pub request: Option<String>,
    /// What an operator wants of it; of one that has ended, what was wanted last.
    pub wanted: Wanted,
    /// Why it failed or was cancelled; while it is live, why its last attempt failed. None once it is completed.
    pub error: Option<String>,
    /// Attempts that failed, and those whose worker vanished. Never less: a job has one epoch to reach, and ends there.
    pub attempts: u32,
    /// When anybody may take it up: at once while nobody holds it, at the end of the lease while somebody does, at the
    /// end of the wait after a failed attempt. None once it has ended.
    pub due_at: Option<Timestamp>,
    /// The newest fencing token.
    pub fence: Fence,
    /// Who drives it, if anybody does.
    pub owner: Option<WorkerId>,
    /// When it was recorded.
    pub created_at: Timestamp,
    /// When the record last changed.
    pub updated_at: Timestamp,
    /// When it ended.
    pub completed_at: Option<Timestamp>,
}

/// How a job ends without its epoch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JobEnd {
    /// It cannot go on; the text says why.
    Failed(String),
    /// An operator ended it; the text says why.
    Cancelled(String),
    /// What an operator asked for is done, of a job that operates.
    Done,
}

impl JobEnd {
    /// The end of a job whose attempts are used up: every store says it alike.
    #[must_use]
    pub fn gave_up(attempts: u32, error: &str) -> Self {
        let plural = if attempts == 1 { "" } else { "s" };
        Self::Failed(format!("gave up after {attempts} attempt{plural}: {error}"))
    }
}

impl ReplicationJob {
    /// Whether it was made from this spec, whose disks are in order.
    #[must_use]
    pub fn is_of(&self, spec: &JobSpec) -> bool {
        self.context == spec.context
            && self.kind == spec.kind
            && self.replication_type == spec.replication_type
            && self.disks == spec.disks
            && self.priority == spec.priority
            && self.target == spec.target
            && self.request == spec.request
    }

    /// Whether this may be wanted of it now, or why not.
    ///
    /// # Errors
    /// What an operator can do about it.
    pub const fn may_be_wanted(&self, wanted: Wanted) -> Result<(), &'static str> {
        match (self.wanted, wanted) {
            _ if self.status.is_terminal() => Err("the job has ended; begin another one"),
            (Wanted::Cancel, Wanted::Run | Wanted::Pause) => {
                Err("the job is being cancelled; begin another one")
            }
            (_, Wanted::Pause) if !matches!(self.kind, JobKind::Replicate) => {
                Err("only a job that replicates can rest; let it end, or cancel it")
            }
            _ => Ok(()),
        }
    }

    /// Whether it is given out to who asks for the next job, once it is due.
    #[must_use]
    pub fn is_for_anybody(&self) -> bool {
        self.kind == JobKind::Replicate
            && match self.wanted {
                Wanted::Run => self.request.is_some(),
                Wanted::Pause => false,
                Wanted::Cancel => true,
            }
    }

    /// Why its attempt failed when its lease ended without a word of its owner; `None` while nobody holds it.
    #[must_use]
    pub fn vanished(&self) -> Option<String> {
        self.owner.as_ref().map(|owner| format!("worker {owner} vanished while it drove the job"))
    }
}

/// Which jobs to list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct JobFilter {
    /// Only those of this VM.
    pub context: Option<ContextId>,
    /// Only those that have not ended.
    pub live_only: bool,
    /// Only those that stand in one of these ways; of none: however they stand.
    pub statuses: BTreeSet<JobStatus>,
    /// Which way the list goes.
    pub order: Order,
    /// Only those behind this one in the list, which must be recorded still.
    pub after: Option<JobId>,
    /// Only those that operate and that this worker may take up now: nobody holds them, or it does itself, or the lease has ended by the
    /// store's clock.
    pub left_to: Option<WorkerId>,
}

impl JobFilter {
    /// The states of what is listed; `None` when any will do.
    #[must_use]
    pub fn states(&self) -> Option<BTreeSet<JobStatus>> {
        let is_wanted = |status: &&JobStatus| {
            (self.statuses.is_empty() || self.statuses.contains(status))
                && !(self.live_only && status.is_terminal())
        };
        let states: BTreeSet<_> = JobStatus::ALL.iter().filter(is_wanted).copied().collect();
        (states.len() < JobStatus::ALL.len()).then_some(states)
    }

    /// Whether a job is of the VM and stands so; where it is in the list and whom it is left to is not looked at.
    #[must_use]
    pub fn lets_through(&self, job: &ReplicationJob) -> bool {
        self.context.as_ref().is_none_or(|context| *context == job.context)
            && self.states().is_none_or(|states| states.contains(&job.status))
    }
}

/// The time-limited right of one worker to drive one job.
///
/// Every write of a job carries it and is refused with [`ErrorKind::Fenced`](crate::ErrorKind::Fenced)
/// once a newer token was given out or the job has ended (L16).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// The job.
    pub job: JobId,
    /// Who holds it.
    pub worker: WorkerId,
    /// Its fencing token.
    pub fence: Fence,
    /// When it ends unless renewed, by the store's clock.
    pub expires_at: Timestamp,
}
