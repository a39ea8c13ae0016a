use oma_api::ChangeIdRow;
use oma_core::record::VmContext;
use oma_core::traits::Inventory;
use oma_core::{ChangeId, DiskKey, Error, ErrorKind, Result};

use super::Context;
use crate::appliance;
use crate::args::ChangeIdArgs;
use oma_examples::output;

/// Prints change ids of last epochs, also while another process replicates.
pub(super) async fn run(context: &Context, args: &ChangeIdArgs) -> Result<()> {
    let store = appliance::open_records(&context.data).await?;
    let Some(vm) = store.by_path(&args.vm_path).await? else {
        return Err(unknown(format!("VM {}", args.vm_path)));
    };
    let disks = store.disks(&vm.id).await?;
    store.close().await;
    let wanted = |key: &DiskKey| args.disk_key.as_ref().is_none_or(|wanted| wanted == key);
    let rows: Vec<ChangeIdRow> =
        disks.iter().filter(|disk| wanted(&disk.disk.key)).map(|disk| ChangeIdRow::new(&vm, disk)).collect();
    match (rows.as_slice(), &args.disk_key) {
        ([], Some(key)) => Err(unknown(format!("disk {key} of {}", vm.path))),
        ([row], Some(_)) if context.json => output::json(row),
        (rows, _) if context.json => output::json(&rows),
        ([row], _) => output::line(committed(&vm, row)?),
        (rows, _) => rows.iter().try_for_each(|row| {
            output::line(format_args!(
                "{}\t{}",
                row.disk_key,
                row.change_id.as_ref().map_or("", ChangeId::as_str)
            ))
        }),
    }
}

/// A script that asks for one id must not take an empty line for one.
fn committed<'a>(vm: &VmContext, row: &'a ChangeIdRow) -> Result<&'a ChangeId> {
    row.change_id.as_ref().ok_or_else(|| {
        Error::new(ErrorKind::NotFound, "find the change id of", format!("{} {}", vm.path, row.disk_key))
            .because("no epoch of it is committed yet; replicate it first")
    })
}

fn unknown(what: String) -> Error {
    Error::new(ErrorKind::NotFound, "find", what)
        .because("it was never replicated into this data directory; `oma disks` lists what was")
}
