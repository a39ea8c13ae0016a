use std::collections::BTreeMap;

use crate::state::{ContextStatus, JobStatus};
use crate::{ByteSize, Timestamp};

/// How everything stands, in numbers. A state that nothing is in has no entry.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Jobs that have not ended, by state.
    pub live: BTreeMap<JobStatus, u64>,
    /// Jobs that have ended since the moment asked for, by state.
    pub ended: BTreeMap<JobStatus, Ended>,
    /// VMs, by state.
    pub vms: BTreeMap<ContextStatus, u64>,
    /// Jobs that anybody may take up now.
    pub waiting: u64,
    /// Since when the one that waits longest may be taken up.
    pub oldest_due: Option<Timestamp>,
}

/// Jobs that have ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ended {
    /// How many.
    pub jobs: u64,
    /// What they made durable at their targets (L25).
    pub bytes: ByteSize,
}
