use oma_api::{ChangeIdRow, DiskRow};
use oma_core::{ContextId, ErrorKind, Result};

use super::Remote;
use crate::args::ChangeIdArgs;
use crate::command::{change_id, disks};

/// Lists disks with their volumes.
pub(super) async fn run(remote: &Remote) -> Result<()> {
    let mut rows = Vec::new();
    for vm in remote.appliance.vms().await? {
        rows.extend(of(remote, &vm.context_id).await?.unwrap_or_default());
    }
    disks::print(rows, remote.json)
}

/// `None` where the record of the VM is gone meanwhile.
async fn of(remote: &Remote, vm: &ContextId) -> Result<Option<Vec<DiskRow>>> {
    match remote.appliance.disks(vm).await {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        rows => rows.map(Some),
    }
}

/// Prints change ids of last epochs.
pub(super) async fn change_id(remote: &Remote, args: &ChangeIdArgs) -> Result<()> {
    let vms = remote.appliance.vms().await?;
    let found = match vms.iter().find(|vm| vm.path == args.vm_path) {
        Some(vm) => of(remote, &vm.context_id).await?,
        None => None,
    };
    let rows = found.ok_or_else(|| change_id::no_vm(&args.vm_path))?;
    change_id::print(rows.into_iter().map(committed).collect(), args, remote.json)
}

fn committed(disk: DiskRow) -> ChangeIdRow {
    let DiskRow { vm_path, disk_key, change_id, epoch, .. } = disk;
    ChangeIdRow { vm_path, disk_key, change_id, epoch }
}
