use super::{labelled, transitions};

labelled! {
    /// How an export stands.
    ExportStatus, "export status" {
        /// Recorded; the server was not told.
        Starting = "starting",
        /// Clients can connect.
        Running = "running",
        /// No new requests; those in flight finish.
        Draining = "draining",
        /// No write through it can land any more.
        Stopped = "stopped",
    }
}

labelled! {
    /// What happens to an export.
    ExportEvent, "export event" {
        /// The server serves it.
        Started = "started",
        /// It is to go.
        Drain = "drain",
        /// The last connection is gone.
        Stopped = "stopped",
    }
}

use ExportEvent as E;
use ExportStatus as S;

transitions! { ExportStatus, ExportEvent, "export" {
    S::Starting, E::Started => S::Running,
    S::Starting | S::Running | S::Draining, E::Drain => S::Draining,
    S::Starting | S::Draining, E::Stopped => S::Stopped,
}}
