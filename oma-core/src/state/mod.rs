//! State machines: one enum, one event enum and one pure, total `next` each.
//!
//! ```text
//! replication job  initializing → provisioning → ready → replicating → finalizing → completed
//!                  any of these → failed | cancelled
//! disk sync        pending → syncing → completed | failed
//! operation        pending → executing → completed | failed | cancelled
//! volume           creating → created → attached ⇄ detached → deleting → deleted; condemned = delete planned
//! recovery point   creating → taken → ready → deleting
//! export           starting → running → draining → stopped
//! cleanup          planned → executing → completed; refused = the world changed
//! VM context       discovered → replicating → ready_for_failover; failed, cleanup_required
//! ```
//!
//! The labels are what the database stores; a test fixes each.

mod account;
mod cleanup;
mod context;
mod disk;
mod export;
mod job;
mod log;
mod operation;
mod point;
mod volume;

pub use account::{Role, TokenKind};
pub use cleanup::{CleanupEvent, CleanupStatus, CleanupStepStatus, FailoverKind, FailoverStatus};
pub use context::{ContextEvent, ContextStatus};
pub use disk::{DiskEvent, DiskStatus};
pub use export::{ExportEvent, ExportStatus};
pub use job::{JobEvent, JobKind, JobStatus, ReplicationType, Wanted};
pub use log::{LineStream, LogLevel, StepStatus};
pub use operation::{OperationEvent, OperationKind, OperationStatus};
pub use point::{PointEvent, PointStatus};
pub use volume::{VolumeEvent, VolumeStatus};

/// An event that a state does not allow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{machine}: {event} is not possible in state {state}")]
pub struct Refused {
    /// Which machine.
    pub machine: &'static str,
    /// The state it is in.
    pub state: &'static str,
    /// The event refused.
    pub event: &'static str,
}

/// A label that no state has.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{label:?} is not a {what}; known are {known:?}")]
pub struct UnknownLabel {
    /// What was to be read.
    pub what: &'static str,
    /// The label found.
    pub label: String,
    /// The labels there are.
    pub known: &'static [&'static str],
}

/// An enum whose values have fixed labels.
macro_rules! labelled {
    ($(#[$doc:meta])* $name:ident, $what:literal { $($(#[$vdoc:meta])* $variant:ident = $label:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
        pub enum $name {
            $($(#[$vdoc])* #[serde(rename = $label)] $variant,)+
        }

        impl $name {
            /// Every value, in the order of its life.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// The label that databases, JSON and logs carry.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $label,)+ }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.pad(self.as_str())
            }
        }

        impl std::str::FromStr for $name {
            type Err = crate::state::UnknownLabel;
            fn from_str(label: &str) -> Result<Self, Self::Err> {
                Self::ALL.iter().copied().find(|value| value.as_str() == label).ok_or_else(|| {
                    crate::state::UnknownLabel { what: $what, label: label.to_owned(), known: &[$($label,)+] }
                })
            }
        }
    };
}
pub(crate) use labelled;

/// `next` of a machine: a table of (state, event) → state, everything else refused.
macro_rules! transitions {
    ($state:ident, $event:ident, $machine:literal { $($from:pat, $on:pat => $to:expr,)+ }) => {
        impl $state {
            /// The state after an event.
            ///
            /// # Errors
            /// When the event is not possible in this state.
            pub const fn next(self, event: $event) -> Result<Self, crate::state::Refused> {
                #[allow(unreachable_patterns, reason = "a table may name every pair itself")]
                match (self, event) {
                    $(($from, $on) => Ok($to),)+
                    _ => Err(crate::state::Refused {
                        machine: $machine,
                        state: self.as_str(),
                        event: event.as_str(),
                    }),
                }
            }
        }
    };
}
pub(crate) use transitions;

#[cfg(test)]
mod tests;
