//! How it is told what became of volumes, wherever they were changed.

use oma_api::{OperationRow, VolumeRow};
use oma_core::state::OperationStatus;
use oma_core::{Error, ErrorKind, Result, VmPath, VolumeId};

use crate::table::{Align, Table};
use oma_examples::output;

/// Prints volumes.
pub(crate) fn print_volumes(rows: &[VolumeRow], json: bool) -> Result<()> {
    if json { output::json(&rows) } else { output::line(volume_table(rows)) }
}

/// Prints what was asked for of volumes.
pub(crate) fn print_operations(rows: &[OperationRow], json: bool) -> Result<()> {
    if json { output::json(&rows) } else { output::line(operation_table(rows)) }
}

/// There is no VM of which volumes are to be listed.
pub(crate) fn no_vm(path: &VmPath) -> Error {
    Error::new(ErrorKind::NotFound, "list volumes", path)
        .because("there is no such VM; `oma disks` lists what there is")
}

/// There is no such volume.
pub(crate) fn no_volume(id: &VolumeId) -> Error {
    Error::new(ErrorKind::NotFound, "find volume", id)
        .because("there is no such volume; `oma volumes list` lists what there is")
}

/// There is no deletion to call off.
pub(crate) fn not_condemned(id: &VolumeId) -> Error {
    Error::new(ErrorKind::Conflict, "call off the deletion of volume", id).because("it is not condemned")
}

/// Who deletes what is condemned once it is due.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Deleter {
    /// A later command on the data directory.
    Command,
    /// The appliance that was asked.
    Appliance,
}

impl Deleter {
    const fn shown(self) -> &'static str {
        match self {
            Self::Command => "`oma volumes recover`, or by any change of a volume,",
            Self::Appliance => "the appliance",
        }
    }
}

/// What was done; what the backend refused, and what was called off, is an error.
pub(crate) fn tell_change(row: &OperationRow, deleter: Deleter, json: bool) -> Result<()> {
    let volume = row.volume_id.as_ref().map(ToString::to_string).unwrap_or_default();
    match row.status {
        OperationStatus::Failed | OperationStatus::Cancelled => {
            let why = row.error.clone().unwrap_or_default();
            return Err(Error::new(ErrorKind::Conflict, format!("{} volume", row.kind), volume).because(why));
        }
        OperationStatus::Executing => {
            let why = row.error.clone().unwrap_or_default();
            let what = format!("tell what became of the {} of volume", row.kind);
            return Err(Error::new(ErrorKind::Unavailable, what, volume)
                .because(format!("{why}; `oma volumes recover` asks again")));
        }
        _ if json => return output::json(row),
        _ => {}
    }
    match &row.due_at {
        Some(due_at) => output::line(format_args!(
            "{volume} is condemned: it is deleted by {} after {due_at}; until then `oma volumes pardon {volume}` calls that off",
            deleter.shown()
        )),
        None => output::line(format_args!("{} of {volume} is {}", row.kind, row.status)),
    }
}

/// A deletion was called off.
pub(crate) fn tell_pardon(row: &OperationRow, json: bool) -> Result<()> {
    if json {
        return output::json(row);
    }
    let volume = row.volume_id.as_ref().map(ToString::to_string).unwrap_or_default();
    output::line(format_args!("{volume} is not deleted; replicate to it as before"))
}

/// An operation was ended of which nobody knows what became.
pub(crate) fn tell_abandoned(row: &OperationRow, json: bool) -> Result<()> {
    if json {
        return output::json(row);
    }
    let why = row.error.as_deref().unwrap_or_default();
    output::line(format_args!("{} ({}) is {}: {why}", row.operation_id, row.kind, row.status))
}

fn volume_table(rows: &[VolumeRow]) -> Table {
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
            row.vm_path.as_ref().map(ToString::to_string).unwrap_or_default(),
            row.disk_key.to_string(),
            row.capacity_bytes.to_string(),
            row.status.to_string(),
            row.epoch.map(|epoch| epoch.to_string()).unwrap_or_default(),
            row.device_path.clone().unwrap_or_default(),
        ]);
    }
    table
}

fn operation_table(rows: &[OperationRow]) -> Table {
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
            row.volume_id.as_ref().map(ToString::to_string).unwrap_or_default(),
            row.vm_path.as_ref().map(ToString::to_string).unwrap_or_default(),
            row.disk_key.to_string(),
            row.created_at.clone(),
            row.due_at.clone().unwrap_or_default(),
            row.error.clone().unwrap_or_default(),
        ]);
    }
    table
}
