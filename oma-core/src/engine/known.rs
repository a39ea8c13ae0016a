//! What is known of a VM, held against what was asked for.

use super::config::PathPolicy;
use crate::record::{DiskRecord, SourceVm, VmContext};
use crate::traits::Inventory;
use crate::{Epoch, Error, ErrorKind, Result};

/// Refuses to rename a VM, and to give it a path that another one has, unless that is meant. Two VMs that have one path since
/// before go on as they are.
pub(super) async fn check_path(
    inventory: &dyn Inventory,
    operation: &'static str,
    policy: PathPolicy,
    known: Option<&VmContext>,
    vm: &SourceVm,
) -> Result<()> {
    let refused = |reason: String| Err(Error::new(ErrorKind::Conflict, operation, &vm.path).because(reason));
    match known {
        Some(known) if known.path == vm.path => return Ok(()),
        _ if policy == PathPolicy::Follow => return Ok(()),
        Some(known) if policy == PathPolicy::Keep => {
            return refused(format!(
                "the VM is known as {}; name that path, or replicate with --rename when it was renamed; \
                 a machine that was copied from it needs a UUID of its own",
                known.path
            ));
        }
        Some(_) | None => {}
    }
    match inventory.by_path(&vm.path).await? {
        Some(other) if other.identity != vm.identity => refused(format!(
            "that path is of another VM, {} at {}; its volumes stay as they are: name another path for this one",
            other.identity.instance_uuid, other.identity.endpoint
        )),
        _ => Ok(()),
    }
}

/// Disks of the VM's last epoch that were not asked for: they stay behind when the others move on.
pub(super) async fn left_out(
    inventory: &dyn Inventory,
    known: &VmContext,
    asked: &SourceVm,
) -> Result<Vec<DiskRecord>> {
    let is_left_out = |record: &DiskRecord| {
        let has_epoch = record.epoch > Epoch::FIRST && record.epoch == known.epoch;
        has_epoch && asked.disks.iter().all(|disk| disk.key != record.disk.key)
    };
    Ok(inventory.disks(&known.id).await?.into_iter().filter(is_left_out).collect())
}
