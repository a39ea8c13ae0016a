use std::path::Path;

use oma_api::JobRow;
use oma_core::engine;
use oma_core::record::{ReplicationJob, SourceIdentity, VmContext};
use oma_core::state::JobKind;
use oma_core::traits::{Inventory, JobStore};
use oma_core::{Error, ErrorKind, JobId, Result};

use super::Context;
use crate::appliance::{self, Appliance};
use crate::args::CancelArgs;
use oma_examples::output;
use oma_examples::source::Source;
use oma_examples::trail;
use serde_json::json;

/// Ends a job that was interrupted and is not to be continued.
pub(super) async fn run(context: &Context, args: &CancelArgs) -> Result<()> {
    let (kind, known) = known(context, &args.job).await?;
    let source = match (kind, &args.qmp, &known) {
        // It works on volumes alone.
        (JobKind::Revert | JobKind::Operate, ..) => Source::nothing()?,
        (JobKind::Replicate, Some(qmp), Some(vm)) => {
            Source::machine(&vm.path, qmp, args.guest_agent.as_deref())
        }
        (JobKind::Replicate, _, vm) => {
            if vm.as_ref().is_some_and(|vm| vm.identity.endpoint.as_str().starts_with("qemu")) {
                output::note(format_args!(
                    "what the job has left in its machine stays there until the next replicate; to have it gone now, name the monitor with --qmp"
                ));
            }
            // Most sources hold nothing of a job.
            Source::nothing()?
        }
    };
    let appliance = Appliance::open(&context.data, source).await?;
    let machine = args.qmp.as_deref().filter(|_| kind == JobKind::Replicate);
    let entry = trail::entry("replication.cancel", "replication", &args.job, json!({}));
    let job = appliance.recorded(entry, cancel(&appliance, &args.job, machine, known.as_ref())).await;
    appliance.close().await;
    let job = job?;
    if context.json {
        return output::json(&JobRow::new(known.as_ref(), &job));
    }
    let then = match kind {
        JobKind::Replicate => "what it has copied stays, the next replicate continues there",
        JobKind::Revert => {
            "the volumes are as it left them: go back again, or replicate, which compares them and copies what differs"
        }
        JobKind::Operate => "whoever uses the volume next asks the backend what became of the operation",
    };
    output::line(format_args!("{} is cancelled; {then}", job.id))
}

async fn cancel(
    appliance: &Appliance,
    job: &JobId,
    machine: Option<&Path>,
    vm: Option<&VmContext>,
) -> Result<ReplicationJob> {
    let services = &appliance.services;
    // In another machine than the job's nothing would be found, and what the job has left would stay.
    if let (Some(qmp), Some(vm)) = (machine, vm) {
        let found = services.source.discover(&vm.path).await?;
        if found.identity != vm.identity {
            let text =
                |identity: &SourceIdentity| format!("{} at {}", identity.instance_uuid, identity.endpoint);
            return Err(Error::new(ErrorKind::Conflict, "cancel", job).because(format!(
                "the monitor {} is of machine {}, the job of {}; name the monitor of that, or none",
                qmp.display(),
                text(&found.identity),
                text(&vm.identity)
            )));
        }
    }
    engine::cancel(services, &appliance.worker, job, "cancelled by an operator").await
}

/// Looks before anything is made or locked; the job's kind and VM.
async fn known(context: &Context, job: &JobId) -> Result<(JobKind, Option<VmContext>)> {
    let store = appliance::open_records(&context.data).await?;
    let found = store.get(job).await?;
    let vm = match &found {
        Some(found) => store.context(&found.context).await?,
        None => None,
    };
    store.close().await;
    match found {
        Some(found) => Ok((found.kind, vm)),
        None => Err(Error::new(ErrorKind::NotFound, "cancel", job)
            .because("there is no such job; `oma jobs` lists what there is")),
    }
}
