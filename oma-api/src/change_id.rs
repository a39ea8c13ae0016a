use oma_core::record::{DiskRecord, VmContext};
use oma_core::{ChangeId, DiskKey, Epoch, VmPath};
use serde::{Deserialize, Serialize};

/// The change id of a disk's last committed epoch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChangeIdRow {
    /// The VM.
    pub vm_path: VmPath,
    /// The disk.
    pub disk_key: DiskKey,
    /// The change id; `None` before the first epoch.
    pub change_id: Option<ChangeId>,
    /// The epoch that it belongs to; 0 before the first.
    pub epoch: Epoch,
}

impl ChangeIdRow {
    /// The row of a disk.
    #[must_use]
    pub fn new(vm: &VmContext, disk: &DiskRecord) -> Self {
        Self {
            vm_path: vm.path.clone(),
            disk_key: disk.disk.key.clone(),
            change_id: disk.change_id.clone(),
            epoch: disk.epoch,
        }
    }
}
