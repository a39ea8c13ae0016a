use oma_api::JobRow;
use oma_core::Result;

use super::Remote;
use crate::command::print_jobs;

/// Lists jobs.
pub(super) async fn run(remote: &Remote) -> Result<()> {
    let rows = remote.appliance.jobs().await?;
    print_jobs(rows.into_iter().map(JobRow::from).collect(), remote.json)
}
