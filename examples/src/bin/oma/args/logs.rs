use clap::Args;
use oma_core::JobId;
use oma_core::state::LogLevel;

#[derive(Debug, Args)]
pub(crate) struct LogsArgs {
    /// The job, as `oma jobs` lists it
    #[arg(value_name = "JOB")]
    pub(crate) job: JobId,
    /// Print lines as they come, until the job has ended
    #[arg(long, short)]
    pub(crate) follow: bool,
    /// Only lines that matter at least so much: DEBUG, INFO, WARN or ERROR
    #[arg(long, value_name = "LEVEL")]
    pub(crate) level: Option<LogLevel>,
    /// Only lines of the step of this number
    #[arg(long, value_name = "NUMBER")]
    pub(crate) step: Option<u32>,
    /// List the steps in place of lines
    #[arg(long, conflicts_with_all = ["follow", "level", "step"])]
    pub(crate) steps: bool,
}
