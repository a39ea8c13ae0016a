use futures_util::TryStreamExt;
use oma_api::PointRow;
use oma_core::engine::{self, ReplicateConfig};
use oma_core::record::{RecoveryPoint, VmContext};
use oma_core::traits::{Inventory, RecoveryPoints};
use oma_core::{Error, ErrorKind, RecoveryPointId, Result, VmPath};

use super::Context;
use crate::appliance::{self, Appliance};
use crate::args::{ListArgs, PointArgs, PointsArgs, PointsCommand};
use crate::table::{Align, Table};
use oma_examples::output;
use oma_examples::signals::Signals;
use oma_examples::source::Source;
use oma_examples::trail;
use serde_json::json;

/// Lists recovery points, deletes one, or goes back to one.
pub(super) async fn run(context: &Context, args: &PointsArgs) -> Result<()> {
    match &args.command {
        PointsCommand::List(args) => list(context, args).await,
        PointsCommand::Delete(args) => delete(context, args).await,
        PointsCommand::Revert(args) => revert(context, args).await,
    }
}

/// Also while another process replicates.
async fn list(context: &Context, args: &ListArgs) -> Result<()> {
    let store = appliance::open_records(&context.data).await?;
    let vms: Vec<VmContext> = match &args.vm_path {
        None => store.contexts(None).try_collect().await?,
        Some(path) => vec![store.by_path(path).await?.ok_or_else(|| unknown_vm(path))?],
    };
    let mut rows = Vec::new();
    for vm in &vms {
        let points: Vec<RecoveryPoint> = store.points(&vm.id).try_collect().await?;
        rows.extend(points.iter().map(|point| PointRow::new(Some(vm), point)));
    }
    store.close().await;
    tell_list(rows, context.json)
}

/// Prints recovery points, whoever listed them.
pub(crate) fn tell_list(rows: Vec<PointRow>, json: bool) -> Result<()> {
    if json { output::json(&rows) } else { output::line(table(rows)) }
}

/// A VM that nobody knows.
pub(crate) fn unknown_vm(path: &VmPath) -> Error {
    Error::new(ErrorKind::NotFound, "list recovery points", path)
        .because("there is no such VM; `oma disks` lists what there is")
}

async fn delete(context: &Context, args: &PointArgs) -> Result<()> {
    let (appliance, row) = open(context, &args.point).await?;
    let entry = trail::entry("point.delete", "point", &args.point, json!({}));
    let delete = engine::delete_point(&appliance.services, &args.point, "deleted by an operator");
    let deleted = appliance.recorded(entry, delete).await;
    appliance.close().await;
    deleted?;
    tell_deleted(&row, context.json)
}

/// Prints that a point is gone, as it was.
pub(crate) fn tell_deleted(row: &PointRow, json: bool) -> Result<()> {
    if json {
        return output::json(row);
    }
    output::line(format_args!("{} of epoch {} is deleted", row.point_id, row.epoch))
}

async fn revert(context: &Context, args: &PointArgs) -> Result<()> {
    let signals = Signals::listen(
        "stopping; the volumes hold nothing then that is believed: revert again, or replicate (once more: end at once)",
    )?;
    let (appliance, row) = open(context, &args.point).await?;
    let config = ReplicateConfig::default();
    let services = &appliance.services;
    let entry = trail::entry("point.revert", "point", &args.point, json!({}));
    let revert = engine::revert(services, &appliance.worker, &config, &args.point, signals.stop());
    let reverted = appliance.recorded(entry, revert).await;
    appliance.close().await;
    reverted?;
    tell_reverted(&row, context.json)
}

/// Prints that the volumes went back to a point.
pub(crate) fn tell_reverted(row: &PointRow, json: bool) -> Result<()> {
    if json {
        return output::json(row);
    }
    output::line(format_args!(
        "the volumes hold epoch {} again; the next replicate compares them and copies what differs",
        row.epoch
    ))
}

/// Looks before anything is made or locked.
async fn open(context: &Context, id: &RecoveryPointId) -> Result<(Appliance, PointRow)> {
    let store = appliance::open_records(&context.data).await?;
    let found = store.point(id).await?;
    let vm = match &found {
        Some(point) => store.context(&point.context).await?,
        None => None,
    };
    store.close().await;
    let found = found.ok_or_else(|| unknown_point(id))?;
    Ok((Appliance::open(&context.data, Source::nothing()?).await?, PointRow::new(vm.as_ref(), &found)))
}

/// A point that nobody knows.
pub(crate) fn unknown_point(id: &RecoveryPointId) -> Error {
    Error::new(ErrorKind::NotFound, "find recovery point", id)
        .because("there is no such point; `oma points list` lists what there is")
}

fn table(rows: Vec<PointRow>) -> Table {
    let mut table = Table::new(&[
        ("point", Align::Left),
        ("VM", Align::Left),
        ("epoch", Align::Right),
        ("status", Align::Left),
        ("made", Align::Left),
        ("disks", Align::Right),
        ("reason", Align::Left),
    ]);
    for row in rows {
        table.row([
            row.point_id.to_string(),
            row.vm_path.map(String::from).unwrap_or_default(),
            row.epoch.to_string(),
            row.status.to_string(),
            row.created_at,
            row.disks.len().to_string(),
            row.reason.unwrap_or_default(),
        ]);
    }
    table
}
