use oma_api::ChangeIdRow;
use oma_core::traits::Inventory;
use oma_core::{ChangeId, Error, ErrorKind, Result, VmPath};

use super::Context;
use crate::appliance;
use crate::args::ChangeIdArgs;
use oma_examples::output;

/// Prints change ids of last epochs, also while another process replicates.
pub(super) async fn run(context: &Context, args: &ChangeIdArgs) -> Result<()> {
    let store = appliance::open_records(&context.data).await?;
    let Some(vm) = store.by_path(&args.vm_path).await? else {
        return Err(no_vm(&args.vm_path));
    };
    let disks = store.disks(&vm.id).await?;
    store.close().await;
    print(disks.iter().map(|disk| ChangeIdRow::new(&vm, disk)).collect(), args, context.json)
}

/// Of the disks of a VM those that are wanted, wherever they are from.
pub(crate) fn print(mut rows: Vec<ChangeIdRow>, args: &ChangeIdArgs, json: bool) -> Result<()> {
    rows.retain(|row| args.disk_key.as_ref().is_none_or(|wanted| *wanted == row.disk_key));
    match (rows.as_slice(), &args.disk_key) {
        ([], Some(key)) => Err(unknown(format!("disk {key} of {}", args.vm_path))),
        ([row], Some(_)) if json => output::json(row),
        (rows, _) if json => output::json(&rows),
        ([row], _) => output::line(committed(row)?),
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
fn committed(row: &ChangeIdRow) -> Result<&ChangeId> {
    row.change_id.as_ref().ok_or_else(|| {
        Error::new(ErrorKind::NotFound, "find the change id of", format!("{} {}", row.vm_path, row.disk_key))
            .because("no epoch of it is committed yet; replicate it first")
    })
}

/// There is no such VM.
pub(crate) fn no_vm(path: &VmPath) -> Error {
    unknown(format!("VM {path}"))
}

fn unknown(what: String) -> Error {
    Error::new(ErrorKind::NotFound, "find", what)
        .because("it was never replicated here; `oma disks` lists what was")
}
