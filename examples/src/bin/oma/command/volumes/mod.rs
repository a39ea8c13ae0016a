mod reconcile;
mod told;

use std::collections::HashMap;
use std::time::Duration;

use futures_util::TryStreamExt;
use oma_api::{OperationRow, VolumeRow};
use oma_core::engine::{VolumeChange, VolumeRequest, VolumeService, VolumesConfig};
use oma_core::record::{Operation, OperationFilter, VmContext, VolumeFilter, VolumeRecord};
use oma_core::traits::{Inventory, VolumeRegistry};
use oma_core::{ContextId, OperationId, Result, VolumeId};

pub(crate) use self::reconcile::{
    keep as keep_plan, read as read_plan, tell as tell_comparison, tell_repaired,
};
pub(crate) use self::told::{
    Deleter, no_vm, no_volume, not_condemned, print_operations, print_volumes, tell_abandoned, tell_change,
    tell_pardon,
};
use super::Context;
use crate::appliance::{self, Appliance};
use crate::args::{AbandonArgs, ChangeArgs, ListArgs, OperationsArgs, VolumesArgs, VolumesCommand};
use oma_examples::failure::Failed;
use oma_examples::output;
use oma_examples::source::Source;
use oma_examples::trail;
use serde_json::json;

/// Lists volumes and operations, or changes a single volume.
pub(super) async fn run(context: &Context, args: &VolumesArgs) -> Result<(), Failed> {
    let usual = VolumesConfig::default();
    let done = match &args.command {
        VolumesCommand::Compare(args) => return reconcile::compare(context, args.plan.as_deref()).await,
        VolumesCommand::Repair(args) => return reconcile::repair(context, &args.plan).await,
        VolumesCommand::List(args) => list(context, args).await,
        VolumesCommand::Operations(args) => operations(context, args).await,
        VolumesCommand::Attach(args) => {
            change(context, args, ("volume.attach", VolumeChange::Attach), usual).await
        }
        VolumesCommand::Detach(args) => {
            change(context, args, ("volume.detach", VolumeChange::Detach), usual).await
        }
        VolumesCommand::Resize(args) => {
            change(
                context,
                &args.change,
                ("volume.resize", VolumeChange::Resize { capacity: args.size }),
                usual,
            )
            .await
        }
        VolumesCommand::Delete(args) => {
            let config = VolumesConfig { grace: args.grace.unwrap_or(usual.grace), ..usual };
            change(context, &args.change, ("volume.delete", VolumeChange::Delete), config).await
        }
        VolumesCommand::Pardon(args) => pardon(context, &args.volume).await,
        VolumesCommand::Recover => recover(context).await,
        VolumesCommand::Abandon(args) => abandon(context, args).await,
    };
    Ok(done?)
}

/// Also while another process replicates.
async fn list(context: &Context, args: &ListArgs) -> Result<()> {
    let store = appliance::open_records(&context.data).await?;
    let vms = vms(&store).await?;
    if let Some(path) = &args.vm_path {
        store.by_path(path).await?.ok_or_else(|| no_vm(path))?;
    }
    let volumes: Vec<VolumeRecord> = store.volumes(VolumeFilter::default()).try_collect().await?;
    let rows = volumes.iter().map(|volume| VolumeRow::new(vms.get(&volume.disk.context), volume));
    let rows: Vec<_> = rows.filter(|row| args.vm_path.is_none() || row.vm_path == args.vm_path).collect();
    store.close().await;
    print_volumes(&rows, context.json)
}

async fn operations(context: &Context, args: &OperationsArgs) -> Result<()> {
    let store = appliance::open_records(&context.data).await?;
    let vms = vms(&store).await?;
    let filter = OperationFilter { volume: args.volume.clone(), ..OperationFilter::default() };
    let found: Vec<Operation> = store.operations(filter).try_collect().await?;
    store.close().await;
    let rows: Vec<_> = found
        .iter()
        .map(|operation| OperationRow::new(vms.get(&operation.spec.disk.context), operation))
        .collect();
    print_operations(&rows, context.json)
}

async fn vms(inventory: &dyn Inventory) -> Result<HashMap<ContextId, VmContext>> {
    inventory.contexts(None).map_ok(|vm| (vm.id.clone(), vm)).try_collect().await
}

/// Asks for a change and waits until it is known what became of it.
async fn change(
    context: &Context,
    args: &ChangeArgs,
    (action, change): (&str, VolumeChange),
    config: VolumesConfig,
) -> Result<()> {
    let (appliance, volume) = open(context, &args.volume).await?;
    let service = appliance.volumes(config);
    let id = args.id.clone().unwrap_or_else(OperationId::mint);
    let request = VolumeRequest { id, disk: volume.disk.clone(), volume: Some(volume.id.clone()), change };
    let new = json!({ "operation_id": request.id });
    let entry = trail::entry(action, "volume", &volume.id, new);
    let ended = appliance.recorded(entry, ended(&service, request)).await;
    service.shutdown().await;
    let row = row(&appliance, ended).await;
    appliance.close().await;
    tell_change(&row?, Deleter::Command, context.json)
}

async fn ended(service: &VolumeService, request: VolumeRequest) -> Result<Operation> {
    service.finish_left_over().await?;
    let id = request.id.clone();
    service.submit(request).await?;
    service.wait(&id, Duration::MAX).await
}

async fn pardon(context: &Context, volume: &VolumeId) -> Result<()> {
    let (appliance, volume) = open(context, volume).await?;
    let service = appliance.volumes(VolumesConfig::default());
    let pardon = async {
        let delete = appliance.services.volumes.unfinished(&volume.disk).await?;
        let delete = delete.ok_or_else(|| not_condemned(&volume.id))?;
        service.pardon(&delete.spec.id, "called off by an operator").await
    };
    let pardoned =
        appliance.recorded(trail::entry("volume.pardon", "volume", &volume.id, json!({})), pardon).await;
    service.shutdown().await;
    let row = row(&appliance, pardoned).await;
    appliance.close().await;
    tell_pardon(&row?, context.json)
}

async fn recover(context: &Context) -> Result<()> {
    let appliance = Appliance::open(&context.data, Source::nothing()?).await?;
    let service = appliance.volumes(VolumesConfig::default());
    let finished = service.finish_left_over().await;
    service.shutdown().await;
    appliance.close().await;
    let finished = finished?;
    if context.json {
        let rows: Vec<_> = finished.iter().map(|operation| OperationRow::new(None, operation)).collect();
        return output::json(&rows);
    }
    for operation in &finished {
        output::line(format_args!(
            "{} ({}) is {}",
            operation.spec.id, operation.spec.kind, operation.status
        ))?;
    }
    output::line(format_args!("{} finished", finished.len()))
}

/// Nothing else is finished before: that may be what hangs.
async fn abandon(context: &Context, args: &AbandonArgs) -> Result<()> {
    let appliance = Appliance::open(&context.data, Source::nothing()?).await?;
    let service = appliance.volumes(VolumesConfig::default());
    let new = json!({ "reason": args.reason });
    let entry = trail::entry("operation.abandon", "operation", &args.operation, new);
    let abandoned = appliance.recorded(entry, service.abandon(&args.operation, &args.reason)).await;
    service.shutdown().await;
    let row = row(&appliance, abandoned).await;
    appliance.close().await;
    tell_abandoned(&row?, context.json)
}

/// An operation with the VM that it is about.
async fn row(appliance: &Appliance, operation: Result<Operation>) -> Result<OperationRow> {
    let operation = operation?;
    let vm = appliance.services.inventory.context(&operation.spec.disk.context).await?;
    Ok(OperationRow::new(vm.as_ref(), &operation))
}

/// Looks before anything is made or locked.
async fn open(context: &Context, id: &VolumeId) -> Result<(Appliance, VolumeRecord)> {
    let store = appliance::open_records(&context.data).await?;
    let found = store.volume(id).await;
    store.close().await;
    let volume = found?.ok_or_else(|| no_volume(id))?;
    Ok((Appliance::open(&context.data, Source::nothing()?).await?, volume))
}
