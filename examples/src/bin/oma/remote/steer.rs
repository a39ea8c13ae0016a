use oma_api::client::Steer;
use oma_core::{Error, ErrorKind, JobId, Result};

use super::Remote;
use crate::args::CancelArgs;
use oma_examples::output;

/// Has a job ended by whoever drives it. It is over once the appliance says so.
pub(super) async fn cancel(remote: &Remote, args: &CancelArgs) -> Result<()> {
    if args.qmp.is_some() {
        return Err(Error::new(ErrorKind::Invalid, "read", "--qmp")
            .because("the appliance knows the machine from what was asked for; leave it out"));
    }
    run(remote, &args.job, Steer::Cancel).await
}

/// Has something else done with a job.
pub(super) async fn run(remote: &Remote, job: &JobId, steer: Steer) -> Result<()> {
    let row = remote.appliance.steer(job, steer).await?;
    if remote.json {
        return output::json(&row);
    }
    let id = &row.job_id;
    match steer {
        Steer::Cancel => output::line(format_args!("{id} is being cancelled; what it has copied stays")),
        Steer::Pause => output::line(format_args!(
            "{id} is being paused; what it has copied stays, and `oma resume {id}` goes on"
        )),
        Steer::Resume => output::line(format_args!("{id} goes on")),
        Steer::Retry if row.job_id == *job => output::line(format_args!("{id} is attempted now")),
        Steer::Retry => output::line(format_args!("{id} is asked for the same")),
    }
}
