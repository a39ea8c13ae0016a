use super::{labelled, transitions};

labelled! {
    /// What an operation does to a volume.
    OperationKind, "operation kind" {
        /// Make it.
        Create = "create",
        /// Make it visible as a local device.
        Attach = "attach",
        /// Take the local device away.
        Detach = "detach",
        /// Destroy it.
        Delete = "delete",
        /// Make it larger.
        Resize = "resize",
        /// Freeze a copy of it.
        Snapshot = "snapshot",
        /// Go back to a snapshot.
        Revert = "revert",
        /// Destroy a snapshot of it.
        DeleteSnapshot = "delete_snapshot",
    }
}

labelled! {
    /// How an operation stands.
    OperationStatus, "operation status" {
        /// The intent is durable; the backend was not called. So is a delete of a volume that held an epoch, until it is due.
        Pending = "pending",
        /// The backend may have been called.
        Executing = "executing",
        /// The backend did it and the result is recorded.
        Completed = "completed",
        /// The backend did not do it.
        Failed = "failed",
        /// Given up before the backend was called.
        Cancelled = "cancelled",
    }
}

labelled! {
    /// What happens to an operation.
    OperationEvent, "operation event" {
        /// The backend is called next; again after a crash.
        Execute = "execute",
        /// The backend did it.
        Complete = "complete",
        /// The backend did not do it.
        Fail = "fail",
        /// It is not wanted any more.
        Cancel = "cancel",
    }
}

impl OperationKind {
    /// Whether it is about a snapshot of the volume that its intent names.
    #[must_use]
    pub const fn is_of_snapshot(self) -> bool {
        matches!(self, Self::Snapshot | Self::Revert | Self::DeleteSnapshot)
    }
}

use OperationEvent as E;
use OperationStatus as S;

transitions! { OperationStatus, OperationEvent, "operation" {
    S::Pending | S::Executing, E::Execute => S::Executing,
    S::Executing, E::Complete => S::Completed,
    S::Pending | S::Executing, E::Fail => S::Failed,
    S::Pending, E::Cancel => S::Cancelled,
}}

impl OperationStatus {
    /// Whether the operation has ended.
    #[must_use]
    pub const fn is_terminal(self) -> bool {
        matches!(self, Self::Completed | Self::Failed | Self::Cancelled)
    }
}
