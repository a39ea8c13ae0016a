use oma_core::{Error, ErrorKind, Result};

use super::Remote;
use crate::args::{ForecastArgs, ReportArgs};
use crate::command::{forecast, report};
use crate::metrics_file;

/// Prints the verification report of a job, as it is stored there.
pub(super) async fn report(remote: &Remote, args: &ReportArgs) -> Result<()> {
    match remote.appliance.report_of(&args.job).await {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let known = remote.appliance.job(&args.job).await;
            let is_known = known.as_ref().err().is_none_or(|error| error.kind() != ErrorKind::NotFound);
            Err(report::missing(&args.job, is_known))
        }
        found => report::tell(&found?, args, remote.json),
    }
}

/// Prints what the next epoch of a VM will cost.
pub(super) async fn forecast(remote: &Remote, args: &ForecastArgs) -> Result<()> {
    args.metrics.as_deref().map_or(Ok(()), metrics_file::check)?;
    let vms = remote.appliance.vms().await?;
    // They come in the order in which their records were made; of several the last one has the path.
    let vm = vms.iter().rfind(|vm| vm.path == args.vm_path);
    let vm = vm.ok_or_else(|| forecast::missing(&args.vm_path, false))?;
    match remote.appliance.forecast(&vm.context_id).await {
        Err(error) if error.kind() == ErrorKind::NotFound => Err(forecast::missing(&args.vm_path, true)),
        found => forecast::tell(&found?, args, remote.json),
    }
}

/// What a comparison is had by.
pub(super) fn verify() -> Error {
    Error::new(ErrorKind::Unsupported, "verify", "by the appliance").because(
        "a comparison reads source and volumes itself, on the machine of the volumes: run it there without --api, also while omad serves; \
         or have the appliance compare with `oma replicate --verify full`, and read what it found with `oma report JOB`",
    )
}
