use std::time::Duration;

use crate::WorkerId;

/// Who asks for the next job, and on what terms.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClaimRequest {
    /// The appliance that will drive it.
    pub worker: WorkerId,
    /// How long the lease lasts unless renewed.
    pub ttl: Duration,
    /// How many jobs may be driven at a time.
    pub limits: ClaimLimits,
    /// A job whose attempts reach this number because its worker vanished is ended, not given out again; 0 counts as 1.
    pub attempts: u32,
}

/// How many jobs may be driven at a time. `None` is no bound; 0 gives nothing out.
///
/// Counted are leases that have not ended, but for those of jobs that operate. A job whose worker vanished does not count once its lease has ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClaimLimits {
    /// By the worker that asks (one appliance).
    pub per_worker: Option<u32>,
    /// Of VMs with the same endpoint (one vCenter or host).
    pub per_source: Option<u32>,
    /// Towards the same target. Jobs without a target are neither counted nor bounded.
    pub per_target: Option<u32>,
}
