use std::sync::Arc;

use oma_api::JobRow;
use oma_core::engine;
use oma_core::memory::MemorySource;
use oma_core::record::VmContext;
use oma_core::traits::{Inventory, JobStore};
use oma_core::{Endpoint, Error, ErrorKind, JobId, Result};

use super::Context;
use crate::appliance::{self, Appliance};
use crate::args::CancelArgs;
use crate::output;
use crate::source::Source;

/// Ends a job that was interrupted and is not to be continued.
pub(super) async fn run(context: &Context, args: &CancelArgs) -> Result<()> {
    let known = known(context, &args.job).await?;
    let source = match (&args.qmp, known) {
        (Some(qmp), Some(vm)) => Source::machine(&vm.path, qmp, args.guest_agent.as_deref()),
        (_, vm) => {
            if vm.is_some_and(|vm| vm.identity.endpoint.as_str().starts_with("qemu")) {
                output::note(format_args!(
                    "what the job has left in its machine stays there until the next replicate; to have it gone now, name the monitor with --qmp"
                ));
            }
            nothing()?
        }
    };
    let appliance = Appliance::open(&context.data, source).await?;
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

/// Nothing is read from a source to end a job, and most hold nothing.
fn nothing() -> Result<Source> {
    let endpoint = Endpoint::parse("none")
        .map_err(|error| Error::new(ErrorKind::Internal, "name", "a source").with_source(error))?;
    Ok(Source::Disks(Arc::new(MemorySource::new(endpoint))))
}

/// Looks before anything is made or locked; the job's VM.
async fn known(context: &Context, job: &JobId) -> Result<Option<VmContext>> {
    let store = appliance::open_records(&context.data).await?;
    let found = store.get(job).await?;
    let vm = match &found {
        Some(found) => store.context(&found.context).await?,
        None => None,
    };
    store.close().await;
    match found {
        Some(_) => Ok(vm),
        None => Err(Error::new(ErrorKind::NotFound, "cancel", job)
            .because("there is no such job; `oma jobs` lists what there is")),
    }
}
