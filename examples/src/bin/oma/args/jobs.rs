use clap::Args;
use oma_core::VmPath;
use oma_core::record::Order;
use oma_core::state::JobStatus;

#[derive(Clone, Debug, Args)]
pub(crate) struct JobsArgs {
    /// Only jobs that stand so; several with commas between them. One of initializing, provisioning, ready, replicating, finalizing,
    /// completed, failed, cancelled
    #[arg(long, value_name = "STATUS", value_delimiter = ',')]
    pub(crate) status: Vec<JobStatus>,
    /// Only jobs that have not ended
    #[arg(long)]
    pub(crate) live: bool,
    /// Only jobs of the VM that has this path
    #[arg(long, value_name = "PATH")]
    pub(crate) vm_path: Option<VmPath>,
    /// `newest` first, or `oldest` first
    #[arg(long, value_name = "ORDER", default_value_t)]
    pub(crate) order: Order,
    /// No more than so many
    #[arg(long, value_name = "COUNT")]
    pub(crate) limit: Option<usize>,
}
