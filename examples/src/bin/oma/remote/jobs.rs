use oma_api::JobRow;
use oma_api::client::Jobs;
use oma_core::Result;

use super::Remote;
use crate::args::JobsArgs;
use crate::command::print_jobs;

/// Lists jobs.
pub(super) async fn run(remote: &Remote, args: &JobsArgs) -> Result<()> {
    let JobsArgs { status, live, vm_path, order, limit } = args.clone();
    let wanted = Jobs { statuses: status, live, vm_path, order, limit };
    let rows = remote.appliance.jobs(&wanted).await?;
    print_jobs(rows.into_iter().map(JobRow::from).collect(), remote.json)
}
