use super::{labelled, transitions};

labelled! {
    /// How a replication job stands.
    JobStatus, "replication job status" {
        /// Recorded; nothing was done.
        Initializing = "initializing",
        /// Volumes are created or found.
        Provisioning = "provisioning",
        /// Volumes are published; nothing was written in this epoch.
        Ready = "ready",
        /// Blocks are copied.
        Replicating = "replicating",
        /// Flushed, verified, committed.
        Finalizing = "finalizing",
        /// Every disk has the epoch, or what an operator asked for is done.
        Completed = "completed",
        /// Ended without the epoch; the next job continues from its journal.
        Failed = "failed",
        /// Ended by an operator.
        Cancelled = "cancelled",
    }
}

labelled! {
    /// What happens to a replication job.
    JobEvent, "replication job event" {
        /// Volumes are about to be created.
        Provision = "provision",
        /// Volumes exist and are published.
        Prepared = "prepared",
        /// The first write comes next.
        Copy = "copy",
        /// Every extent was written.
        Copied = "copied",
        /// The epoch is committed.
        Committed = "committed",
        /// What an operator asked for is done.
        Operated = "operated",
        /// It cannot go on.
        Fail = "fail",
        /// An operator ends it.
        Cancel = "cancel",
    }
}

labelled! {
    /// Whether a job copies whole disks or what changed.
    ReplicationType, "replication type" {
        /// Every allocated block.
        Initial = "initial",
        /// Blocks changed since the last epoch.
        Incremental = "incremental",
    }
}

labelled! {
    /// What an operator wants of a job that has not ended.
    Wanted, "wanted of a job" {
        /// It is to be driven to its end.
        Run = "run",
        /// It rests until it is wanted to run again: nobody gets it who does not name it, and who drives it stops.
        Pause = "pause",
        /// It is to end without its epoch. Nothing else can be wanted of it any more.
        Cancel = "cancel",
    }
}

labelled! {
    /// What a job does with the volumes of its VM.
    JobKind, "job kind" {
        /// It brings them to the VM's next epoch.
        Replicate = "replicate",
        /// It brings them back to a recovery point. No epoch comes of it, and nobody who replicates drives it.
        Revert = "revert",
        /// It changes a single one for an operator. VM and disks stay as they are, no epoch comes of it, and nobody who replicates
        /// drives it.
        Operate = "operate",
    }
}

use JobEvent as E;
use JobStatus as S;

transitions! { JobStatus, JobEvent, "replication job" {
    S::Initializing, E::Provision => S::Provisioning,
    S::Provisioning, E::Prepared => S::Ready,
    S::Ready, E::Copy => S::Replicating,
    S::Replicating, E::Copied => S::Finalizing,
    S::Finalizing, E::Committed => S::Completed,
    S::Initializing, E::Operated => S::Completed,
    S::Initializing | S::Provisioning | S::Ready | S::Replicating | S::Finalizing, E::Fail => S::Failed,
    S::Initializing | S::Provisioning | S::Ready | S::Replicating | S::Finalizing, E::Cancel => S::Cancelled,
}}

impl JobStatus {
    /// Whether the job has ended.
    #[must_use]
    pub const fn is_terminal(self) -> bool {
        matches!(self, Self::Completed | Self::Failed | Self::Cancelled)
    }
}
