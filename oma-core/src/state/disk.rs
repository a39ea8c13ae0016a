use super::{labelled, transitions};

labelled! {
    /// How a disk stands in the last job that had it.
    DiskStatus, "disk sync status" {
        /// Known, not copied by the job yet. Committed from here when nothing was left to copy.
        Pending = "pending",
        /// Its volume is written.
        Syncing = "syncing",
        /// Its epoch is committed.
        Completed = "completed",
        /// Its job ended without the epoch.
        Failed = "failed",
    }
}

labelled! {
    /// What happens to a disk.
    DiskEvent, "disk event" {
        /// A job takes it up.
        Assign = "assign",
        /// The first write comes next.
        Start = "start",
        /// The epoch is committed.
        Committed = "committed",
        /// The job ended without the epoch.
        Fail = "fail",
    }
}

use DiskEvent as E;
use DiskStatus as S;

transitions! { DiskStatus, DiskEvent, "disk" {
    _, E::Assign => S::Pending,
    S::Pending | S::Syncing, E::Start => S::Syncing,
    S::Pending | S::Syncing | S::Completed, E::Committed => S::Completed,
    S::Pending | S::Syncing | S::Failed, E::Fail => S::Failed,
}}
