mod reconcile;

use std::collections::HashMap;
use std::time::Duration;

use futures_util::TryStreamExt;
use oma_api::{OperationRow, VolumeRow};
use oma_core::engine::{VolumeChange, VolumeRequest, VolumeService, VolumesConfig};
use oma_core::record::{Operation, OperationFilter, VmContext, VolumeRecord};
use oma_core::state::OperationStatus;
use oma_core::traits::{Inventory, VolumeRegistry};
use oma_core::{ContextId, Error, ErrorKind, OperationId, Result, VolumeId};

use super::Context;
use crate::appliance::{self, Appliance};
use crate::args::{AbandonArgs, ChangeArgs, ListArgs, OperationsArgs, VolumesArgs, VolumesCommand};
use crate::table::{Align, Table};
use oma_examples::failure::Failed;
use oma_examples::output;
use oma_examples::source::Source;

/// Lists volumes and operations, or changes a single volume.
pub(super) async fn run(context: &Context, args: &VolumesArgs) -> Result<(), Failed> {
    let usual = VolumesConfig::default();
    let done = match &args.command {
        VolumesCommand::Compare(args) => return reconcile::compare(context, args.plan.as_deref()).await,
        VolumesCommand::Repair(args) => return reconcile::repair(context, &args.plan).await,
        VolumesCommand::List(args) => list(context, args).await,
        VolumesCommand::Operations(args) => operations(context, args).await,
        VolumesCommand::Attach(args) => change(context, args, VolumeChange::Attach, usual).await,
        VolumesCommand::Detach(args) => change(context, args, VolumeChange::Detach, usual).await,
        VolumesCommand::Resize(args) => {
            change(context, &args.change, VolumeChange::Resize { capacity: args.size }, usual).await
        }
        VolumesCommand::Delete(args) => {
            let config = VolumesConfig { grace: args.grace, ..usual };
            change(context, &args.change, VolumeChange::Delete, config).await
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
        store.by_path(path).await?.ok_or_else(|| {
            Error::new(ErrorKind::NotFound, "list volumes", path)
                .because("there is no such VM; `oma disks` lists what there is")
        })?;
    }
    let volumes: Vec<VolumeRecord> = store.volumes(None).try_collect().await?;
    let rows = volumes.iter().map(|volume| VolumeRow::new(vms.get(&volume.disk.context), volume));
    let rows: Vec<_> = rows.filter(|row| args.vm_path.is_none() || row.vm_path == args.vm_path).collect();
    store.close().await;
    if context.json { output::json(&rows) } else { output::line(volume_table(rows)) }
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
    if context.json { output::json(&rows) } else { output::line(operation_table(rows)) }
}

async fn vms(inventory: &dyn Inventory) -> Result<HashMap<ContextId, VmContext>> {
    inventory.contexts(None).map_ok(|vm| (vm.id.clone(), vm)).try_collect().await
}

/// Asks for a change and waits until it is known what became of it.
async fn change(
    context: &Context,
    args: &ChangeArgs,
    change: VolumeChange,
    config: VolumesConfig,
) -> Result<()> {
    let (appliance, volume) = open(context, &args.volume).await?;
    let service = appliance.volumes(config);
    let id = args.id.clone().unwrap_or_else(OperationId::mint);
    let request = VolumeRequest { id, disk: volume.disk.clone(), volume: Some(volume.id.clone()), change };
    let ended = ended(&service, request).await;
    service.shutdown().await;
    let told = match ended {
        Ok(operation) => tell(context, &appliance, &operation).await,
        Err(error) => Err(error),
    };
    appliance.close().await;
    told
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
    let pardoned = match appliance.services.volumes.unfinished(&volume.disk).await {
        Ok(Some(delete)) => service.pardon(&delete.spec.id, "called off by an operator").await,
        Ok(None) => Err(Error::new(ErrorKind::Conflict, "call off the deletion of volume", &volume.id)
            .because("it is not condemned")),
        Err(error) => Err(error),
    };
    service.shutdown().await;
    appliance.close().await;
    let pardoned = pardoned?;
    if context.json {
        return output::json(&OperationRow::new(None, &pardoned));
    }
    output::line(format_args!("{} is not deleted; replicate to it as before", volume.id))
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
    let abandoned = service.abandon(&args.operation, &args.reason).await;
    service.shutdown().await;
    appliance.close().await;
    let abandoned = abandoned?;
    if context.json {
        return output::json(&OperationRow::new(None, &abandoned));
    }
    let why = abandoned.error.unwrap_or_default();
    output::line(format_args!(
        "{} ({}) is {}: {why}",
        abandoned.spec.id, abandoned.spec.kind, abandoned.status
    ))
}

/// Looks before anything is made or locked.
async fn open(context: &Context, id: &VolumeId) -> Result<(Appliance, VolumeRecord)> {
    let store = appliance::open_records(&context.data).await?;
    let found = store.volume(id).await;
    store.close().await;
    let volume = found?.ok_or_else(|| {
        Error::new(ErrorKind::NotFound, "find volume", id)
            .because("there is no such volume; `oma volumes list` lists what there is")
    })?;
    Ok((Appliance::open(&context.data, Source::nothing()?).await?, volume))
}

/// What was done; what the backend refused is an error.
async fn tell(context: &Context, appliance: &Appliance, operation: &Operation) -> Result<()> {
    let spec = &operation.spec;
    let volume = spec.volume.as_ref().map(ToString::to_string).unwrap_or_default();
    match operation.status {
        OperationStatus::Failed => {
            let why = operation.error.clone().unwrap_or_default();
            return Err(Error::new(ErrorKind::Conflict, format!("{} volume", spec.kind), volume).because(why));
        }
        OperationStatus::Executing => {
            let why = operation.error.clone().unwrap_or_default();
            return Err(Error::new(
                ErrorKind::Unavailable,
                format!("tell what became of the {} of volume", spec.kind),
                volume,
            )
            .because(format!("{why}; `oma volumes recover` asks again")));
        }
        _ if context.json => {
            let vm = appliance.services.inventory.context(&spec.disk.context).await?;
            return output::json(&OperationRow::new(vm.as_ref(), operation));
        }
        _ => {}
    }
    match operation.due_at {
        Some(due_at) => output::line(format_args!(
            "{volume} is condemned: it is deleted by `oma volumes recover`, or by any change of a volume, after {due_at}; \
             until then `oma volumes pardon {volume}` calls that off"
        )),
        None => output::line(format_args!("{} of {volume} is {}", spec.kind, operation.status)),
    }
}

fn volume_table(rows: Vec<VolumeRow>) -> Table {
    let mut table = Table::new(&[
        ("volume", Align::Left),
        ("VM", Align::Left),
        ("disk", Align::Left),
        ("size", Align::Right),
        ("status", Align::Left),
        ("epoch", Align::Right),
        ("path", Align::Left),
    ]);
    for row in rows {
        table.row([
            row.volume_id.to_string(),
            row.vm_path.map(String::from).unwrap_or_default(),
            row.disk_key.to_string(),
            row.capacity_bytes.to_string(),
            row.status.to_string(),
            row.epoch.map(|epoch| epoch.to_string()).unwrap_or_default(),
            row.device_path.unwrap_or_default(),
        ]);
    }
    table
}

fn operation_table(rows: Vec<OperationRow>) -> Table {
    let mut table = Table::new(&[
        ("operation", Align::Left),
        ("kind", Align::Left),
        ("status", Align::Left),
        ("volume", Align::Left),
        ("VM", Align::Left),
        ("disk", Align::Left),
        ("recorded", Align::Left),
        ("due", Align::Left),
        ("error", Align::Left),
    ]);
    for row in rows {
        table.row([
            row.operation_id.to_string(),
            row.kind.to_string(),
            row.status.to_string(),
            row.volume_id.map(|volume| volume.to_string()).unwrap_or_default(),
            row.vm_path.map(String::from).unwrap_or_default(),
            row.disk_key.to_string(),
            row.created_at,
            row.due_at.unwrap_or_default(),
            row.error.unwrap_or_default(),
        ]);
    }
    table
}
