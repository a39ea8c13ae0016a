use oma_api::client::Lines;
use oma_api::{JobLineRow, JobStepRow};
use oma_core::{JobId, Result};

use super::Remote;
use crate::args::LogsArgs;
use crate::command::{JobTold, print_log};

impl JobTold for Remote {
    async fn is_over(&self, job: &JobId) -> Result<bool> {
        Ok(self.appliance.job(job).await?.status.is_terminal())
    }

    async fn steps(&self, job: &JobId) -> Result<Vec<JobStepRow>> {
        self.appliance.steps(job).await
    }

    async fn lines(&self, job: &JobId, wanted: &Lines) -> Result<Vec<JobLineRow>> {
        self.appliance.lines(job, wanted).await
    }
}

/// Prints what is told of a job.
pub(super) async fn run(remote: &Remote, args: &LogsArgs) -> Result<()> {
    print_log(remote, args, remote.json).await
}
