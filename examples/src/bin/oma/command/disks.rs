use futures_util::TryStreamExt;
use oma_api::DiskRow;
use oma_core::Result;
use oma_core::traits::{Inventory, VolumeRegistry};

use super::Context;
use crate::appliance;
use crate::table::{Align, Table};
use oma_examples::output;

/// Lists disks with their volumes, also while another process replicates.
pub(super) async fn run(context: &Context) -> Result<()> {
    let store = appliance::open_records(&context.data).await?;
    let mut vms = store.contexts(None);
    let mut rows = Vec::new();
    while let Some(vm) = vms.try_next().await? {
        for disk in store.disks(&vm.id).await? {
            let volume = store.volume_of(&disk.disk).await?;
            rows.push(DiskRow::new(&vm, &disk, volume.as_ref()));
        }
    }
    drop(vms);
    store.close().await;
    print(rows, context.json)
}

/// Wherever they are from.
pub(crate) fn print(rows: Vec<DiskRow>, json: bool) -> Result<()> {
    if json { output::json(&rows) } else { output::line(table(rows)) }
}

fn table(rows: Vec<DiskRow>) -> Table {
    let mut table = Table::new(&[
        ("VM", Align::Left),
        ("disk", Align::Left),
        ("size", Align::Right),
        ("status", Align::Left),
        ("synced", Align::Right),
        ("epoch", Align::Right),
        ("generation", Align::Right),
        ("change id", Align::Left),
        ("volume", Align::Left),
    ]);
    for row in rows {
        table.row([
            row.vm_path.to_string(),
            row.disk_key.to_string(),
            row.capacity_bytes.to_string(),
            row.sync_status.to_string(),
            row.bytes_synced.to_string(),
            row.epoch.to_string(),
            row.generation.map(|generation| generation.to_string()).unwrap_or_default(),
            row.change_id.map(String::from).unwrap_or_default(),
            row.volume_path.unwrap_or_default(),
        ]);
    }
    table
}
