//! Recovery points: which are kept, and what is done with them.

use std::time::Duration;

use clap::{Args, Subcommand};
use oma_core::engine::KeepPoints;
use oma_core::{RecoveryPointId, VmPath};
use oma_examples::age::age;

/// Whether an epoch has a recovery point, and which ones are kept.
#[derive(Debug, Args)]
pub(crate) struct KeepArgs {
    /// Make a recovery point of the epoch, and keep the newest so many
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..))]
    keep_points: Option<u32>,
    /// Make a recovery point of the epoch, and keep those that are younger, e.g. 12h, 7d; with --keep-points a point stays
    /// while one of both says so
    #[arg(long, value_name = "AGE", value_parser = age)]
    keep_points_for: Option<Duration>,
}

impl KeepArgs {
    /// `None` when no point was asked for.
    pub(crate) fn keep(&self) -> Option<KeepPoints> {
        let keep = KeepPoints { last: self.keep_points, younger_than: self.keep_points_for };
        (keep != KeepPoints::default()).then_some(keep)
    }
}

const POINTS_HELP: &str = "\
`oma replicate --keep-points 5` makes a recovery point of each epoch: a snapshot of every
volume, of exactly that epoch. Examples:
    oma points list --vm-path /DC/vm/web01
    oma points revert point-0193a2b4-…
    oma points delete point-0193a2b4-…

What they cost, and what is left after a crash: docs/recovery-points.md";

#[derive(Debug, Args)]
#[command(after_help = POINTS_HELP)]
pub(crate) struct PointsArgs {
    #[command(subcommand)]
    pub(crate) command: PointsCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum PointsCommand {
    /// List recovery points, newest first
    List(ListArgs),
    /// Delete a recovery point and its snapshots
    Delete(PointArgs),
    /// Give the volumes the content of a recovery point; the next replicate compares and copies what differs
    Revert(PointArgs),
}

#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    /// Only those of this VM
    #[arg(long, value_name = "/DC/vm/NAME")]
    pub(crate) vm_path: Option<VmPath>,
}

#[derive(Debug, Args)]
pub(crate) struct PointArgs {
    /// The point, as `oma points list` names it
    #[arg(value_name = "POINT")]
    pub(crate) point: RecoveryPointId,
}
