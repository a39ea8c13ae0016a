use super::{labelled, transitions};

labelled! {
    /// How a cleanup stands.
    CleanupStatus, "cleanup status" {
        /// It is to be read; nothing was done.
        Planned = "planned",
        /// Its steps are done, one after the other, until all are.
        Executing = "executing",
        /// Every step is done, and nothing was found left.
        Completed = "completed",
        /// The world is not as the plan saw it: it is never done, or not to its end.
        Refused = "refused",
    }
}

labelled! {
    /// What happens to a cleanup.
    CleanupEvent, "cleanup event" {
        /// An operator wants it done.
        Execute = "execute",
        /// Every step is done.
        Complete = "complete",
        /// It is not done any more.
        Refuse = "refuse",
    }
}

labelled! {
    /// How a step of a cleanup stands.
    CleanupStepStatus, "cleanup step status" {
        /// Nothing of it was done.
        Pending = "pending",
        /// It may have been done.
        Executing = "executing",
        /// It is done.
        Done = "done",
        /// It was tried and not done. It is tried again.
        Failed = "failed",
        /// It is not done, for the world is not as the plan saw it.
        Refused = "refused",
    }
}

labelled! {
    /// How a VM is booted from its volumes.
    FailoverKind, "failover kind" {
        /// For good: the volumes are production from then on (L07).
        Live = "live",
        /// To look whether it would.
        Test = "test",
    }
}

labelled! {
    /// How a failover job stands.
    FailoverStatus, "failover status" {
        /// Recorded; nothing was done.
        Pending = "pending",
        /// It is looked whether it can be.
        Validating = "validating",
        /// Snapshots are made.
        Snapshotting = "snapshotting",
        /// The VM is made.
        CreatingVm = "creating_vm",
        /// Volumes are given to the VM.
        SwitchingVolume = "switching_volume",
        /// The VM is started.
        PoweringOn = "powering_on",
        /// The VM runs from the volumes.
        Completed = "completed",
        /// It is taken back.
        Reverting = "reverting",
        /// It was taken back.
        Reverted = "reverted",
        /// It cannot go on.
        Failed = "failed",
        /// What it left is removed.
        Cleanup = "cleanup",
    }
}

use CleanupEvent as E;
use CleanupStatus as S;

transitions! { CleanupStatus, CleanupEvent, "cleanup" {
    S::Planned | S::Executing, E::Execute => S::Executing,
    S::Executing, E::Complete => S::Completed,
    S::Planned | S::Executing, E::Refuse => S::Refused,
}}

impl CleanupStatus {
    /// Whether nothing of it is done any more.
    #[must_use]
    pub const fn is_terminal(self) -> bool {
        matches!(self, Self::Completed | Self::Refused)
    }
}

impl FailoverStatus {
    /// Whether it has ended without a VM that runs, so that its record may go.
    #[must_use]
    pub const fn is_over(self) -> bool {
        matches!(self, Self::Failed | Self::Reverted)
    }
}
