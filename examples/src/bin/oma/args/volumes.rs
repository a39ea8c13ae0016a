//! Volumes, one by one.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};
use oma_core::{ByteSize, OperationId, VolumeId};

use oma_examples::age::age;

use super::points::ListArgs;

const VOLUMES_HELP: &str = "\
Where an appliance serves the data directory, and with --api, these are asked of it. Each change is
recorded before it is done, and goes on when this command is killed: at the appliance, else with the
next command. Examples:
    oma volumes list
    oma volumes detach vol-0193a2b4-…
    oma volumes delete vol-0193a2b4-… --grace 7d
    oma volumes pardon vol-0193a2b4-…
    oma volumes compare --plan plan.json && oma volumes repair plan.json

What is deleted when, and what a failed operation leaves: docs/volumes.md";

#[derive(Debug, Args)]
#[command(after_help = VOLUMES_HELP)]
pub(crate) struct VolumesArgs {
    #[command(subcommand)]
    pub(crate) command: VolumesCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum VolumesCommand {
    /// List volumes as they are recorded
    List(ListArgs),
    /// List what was asked for of volumes, newest first
    Operations(OperationsArgs),
    /// Make a volume visible on this machine, or on the appliance's
    Attach(ChangeArgs),
    /// Take a volume's device away
    Detach(ChangeArgs),
    /// Make a volume larger
    Resize(ResizeArgs),
    /// Delete a detached volume; one that held an epoch is condemned first and can be pardoned meanwhile
    Delete(DeleteArgs),
    /// Call off the deletion of a condemned volume
    Pardon(PardonArgs),
    /// Finish what killed commands left, and delete what is due; an appliance does so by itself
    Recover,
    /// End an operation of which the backend will never tell what became of it
    Abandon(AbandonArgs),
    /// Compare records and volumes in both directions, and tell what is not in order; nothing is changed
    Compare(CompareArgs),
    /// Do what a plan of `compare` says, then compare again
    Repair(RepairArgs),
}

#[derive(Debug, Args)]
pub(crate) struct CompareArgs {
    /// Write what can be repaired to this file, to be read and given to `repair`
    #[arg(long, value_name = "FILE")]
    pub(crate) plan: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct RepairArgs {
    /// The plan
    #[arg(value_name = "FILE")]
    pub(crate) plan: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct OperationsArgs {
    /// Only those of this volume
    #[arg(long, value_name = "VOLUME")]
    pub(crate) volume: Option<VolumeId>,
}

#[derive(Debug, Args)]
pub(crate) struct ChangeArgs {
    /// The volume, as `oma volumes list` names it
    #[arg(value_name = "VOLUME")]
    pub(crate) volume: VolumeId,
    /// Idempotency key: given again, nothing is done a second time
    #[arg(long, value_name = "OPERATION")]
    pub(crate) id: Option<OperationId>,
}

#[derive(Debug, Args)]
pub(crate) struct ResizeArgs {
    #[command(flatten)]
    pub(crate) change: ChangeArgs,
    /// Its size afterwards, e.g. 40GiB
    #[arg(value_name = "SIZE")]
    pub(crate) size: ByteSize,
}

#[derive(Debug, Args)]
pub(crate) struct DeleteArgs {
    #[command(flatten)]
    pub(crate) change: ChangeArgs,
    /// How long a volume that held an epoch stays condemned, e.g. 12h, 7d; 7d when it is not said. An appliance has a setting for it
    #[arg(long, value_name = "AGE", value_parser = age)]
    pub(crate) grace: Option<Duration>,
}

#[derive(Debug, Args)]
pub(crate) struct PardonArgs {
    /// The volume, as `oma volumes list` names it
    #[arg(value_name = "VOLUME")]
    pub(crate) volume: VolumeId,
}

#[derive(Debug, Args)]
pub(crate) struct AbandonArgs {
    /// The operation, as `oma volumes operations` names it: `executing`, with an error beside it
    #[arg(value_name = "OPERATION")]
    pub(crate) operation: OperationId,
    /// Why, for those who read it later
    #[arg(long, value_name = "TEXT")]
    pub(crate) reason: String,
}
