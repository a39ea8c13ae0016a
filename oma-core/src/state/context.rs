use super::{labelled, transitions};

labelled! {
    /// How a VM context stands.
    ContextStatus, "VM context status" {
        /// Its disks are known.
        Discovered = "discovered",
        /// A job runs.
        Replicating = "replicating",
        /// Its volumes held a committed epoch when its last job ended; what each holds now, its own record tells.
        ReadyForFailover = "ready_for_failover",
        /// A test VM runs from its volumes.
        FailedOverTest = "failed_over_test",
        /// Its volumes are production (L07).
        FailedOverLive = "failed_over_live",
        /// The migration has ended.
        Completed = "completed",
        /// The last job ended without an epoch.
        Failed = "failed",
        /// Something of a job is left behind: a cleanup removes it, or the next job goes on from it.
        CleanupRequired = "cleanup_required",
    }
}

labelled! {
    /// What happens to a VM context.
    ContextEvent, "VM context event" {
        /// A replication job begins.
        Replicate = "replicate",
        /// An epoch is committed.
        Committed = "committed",
        /// The job ended without an epoch.
        Fail = "fail",
    }
}

use ContextEvent as E;
use ContextStatus as S;

transitions! { ContextStatus, ContextEvent, "VM context" {
    S::Discovered | S::Replicating | S::ReadyForFailover | S::Failed | S::CleanupRequired, E::Replicate => S::Replicating,
    S::Replicating, E::Committed => S::ReadyForFailover,
    S::Replicating, E::Fail => S::Failed,
}}
