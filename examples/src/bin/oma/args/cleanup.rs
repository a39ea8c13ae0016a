use clap::Args;
use oma_core::{CleanupId, FailoverJobId, JobId};

const CLEANUP_HELP: &str = "\
Prints what there is of the job and where, what would be removed in which order, and
what stays and why. Nothing is changed without --execute, which looks once more,
prints the same, and does exactly that; a world that changed meanwhile is refused.
A step that failed is kept: run the same command again.

Examples:
    oma cleanup job-20250821-075220-abcdef
    oma cleanup job-20250821-075220-abcdef --execute
    oma cleanup job-20250821-075220-abcdef failover-20250821-123456 --execute";

#[derive(Debug, Args)]
#[command(after_help = CLEANUP_HELP)]
pub(crate) struct CleanupArgs {
    /// The job, as `oma jobs` lists it; it has failed or was cancelled
    #[arg(value_name = "JOB")]
    pub(crate) job: JobId,
    /// The failover job whose record goes with it
    #[arg(value_name = "FAILOVER_JOB")]
    pub(crate) failover_job: Option<FailoverJobId>,
    /// Do it
    #[arg(long)]
    pub(crate) execute: bool,
    /// Condemn volumes that hold or held an epoch, too: they are deleted after seven days, unless `oma volumes pardon` calls it off
    #[arg(long)]
    pub(crate) volumes: bool,
    /// Execute this plan, which was printed before, or go on with it; refused when the world is not as it was then
    #[arg(long, value_name = "CLEANUP", requires = "execute")]
    pub(crate) plan: Option<CleanupId>,
}
