use super::{labelled, transitions};

labelled! {
    /// How a recovery point stands.
    PointStatus, "recovery point status" {
        /// Its snapshots are being made.
        Creating = "creating",
        /// Every volume has its snapshot; their epoch is not committed yet.
        Taken = "taken",
        /// Its epoch is committed: volumes can go back to it.
        Ready = "ready",
        /// Its snapshots are being deleted.
        Deleting = "deleting",
    }
}

labelled! {
    /// What happens to a recovery point.
    PointEvent, "recovery point event" {
        /// The last snapshot was made.
        Take = "take",
        /// Its epoch is committed.
        Commit = "commit",
        /// It is not wanted any more.
        Condemn = "condemn",
    }
}

use PointEvent as E;
use PointStatus as S;

transitions! { PointStatus, PointEvent, "recovery point" {
    S::Creating | S::Taken, E::Take => S::Taken,
    S::Taken, E::Commit => S::Ready,
    S::Creating | S::Taken | S::Ready | S::Deleting, E::Condemn => S::Deleting,
}}
