use std::sync::Arc;

use oma_api::JobRow;
use oma_core::engine;
use oma_core::memory::MemorySource;
use oma_core::traits::JobStore;
use oma_core::{Endpoint, Error, ErrorKind, JobId, Result};

use super::Context;
use crate::appliance::{self, Appliance};
use crate::args::CancelArgs;
use crate::output;
use crate::source::Source;

/// Ends a job that was interrupted and is not to be continued.
pub(super) async fn run(context: &Context, args: &CancelArgs) -> Result<()> {
    known(context, &args.job).await?;
    // Nothing is read from a source to end a job.
    let endpoint = Endpoint::parse("none")
        .map_err(|error| Error::new(ErrorKind::Internal, "name", "a source").with_source(error))?;
    let appliance =
        Appliance::open(&context.data, Source::Disks(Arc::new(MemorySource::new(endpoint)))).await?;
    let reason = "cancelled by an operator";
    let job = engine::cancel(&appliance.services, &appliance.worker, &args.job, reason).await?;
    let vm = appliance.services.inventory.context(&job.context).await?;
    appliance.close().await;
    if context.json {
        return output::json(&JobRow::new(vm.as_ref(), &job));
    }
    output::line(format_args!(
        "{} is cancelled; what it has copied stays, the next replicate continues there",
        job.id
    ))
}

/// Looks before anything is made or locked.
async fn known(context: &Context, job: &JobId) -> Result<()> {
    let store = appliance::open_records(&context.data).await?;
    let found = store.get(job).await?;
    store.close().await;
    match found {
        Some(_) => Ok(()),
        None => Err(Error::new(ErrorKind::NotFound, "cancel", job)
            .because("there is no such job; `oma jobs` lists what there is")),
    }
}
