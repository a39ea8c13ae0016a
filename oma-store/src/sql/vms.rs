//! `vm_replication_contexts` and `vm_disks`.

use super::statements;

macro_rules! context {
    () => {
        "SELECT context_id, vmware_vm_id, vcenter_host, vm_name, vm_path, current_status, epoch, current_job_id, \
         created_at, updated_at FROM vm_replication_contexts"
    };
}

macro_rules! disk {
    () => {
        "SELECT d.id AS row_id, d.vm_context_id, d.disk_id, d.job_id, d.label, d.vm_dk_path, d.capacity_bytes, \
         d.unit_number, v.volume_id, d.generation, d.disk_change_id, d.change_generation, d.change_endpoint, d.epoch, \
         d.committed_bytes, d.zeroes_broken, d.sync_status, d.bytes_synced, d.updated_at FROM vm_disks d \
         LEFT JOIN ossea_volumes v ON v.id = d.ossea_volume_id"
    };
}

statements! {
    /// Locks the row of a VM for the rest of the transaction.
    LOCK = "UPDATE vm_replication_contexts SET context_id = context_id WHERE context_id = ?";
    CONTEXT = concat!(context!(), " WHERE context_id = ?");
    BY_IDENTITY = concat!(context!(), " WHERE vmware_vm_id = ? AND vcenter_host = ?");
    BY_PATH = concat!(context!(), " WHERE vm_path = ? ORDER BY created_at DESC, context_id DESC LIMIT 1");
    PAGE = concat!(context!(), " WHERE context_id > ? ORDER BY context_id LIMIT ?");

    INSERT = "INSERT INTO vm_replication_contexts (context_id, vmware_vm_id, vcenter_host, vm_name, vm_path, \
              current_status, created_at, updated_at, last_status_change) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)";
    DISCOVER = "UPDATE vm_replication_contexts SET vm_name = ?, vm_path = ?, updated_at = ? \
                WHERE context_id = ?";
    JOB_BEGINS = "UPDATE vm_replication_contexts SET current_status = ?, current_job_id = ?, \
                  total_jobs_run = total_jobs_run + 1, updated_at = ?, last_status_change = ? WHERE context_id = ?";
    OPERATION_BEGINS = "UPDATE vm_replication_contexts SET current_job_id = ?, updated_at = ? WHERE context_id = ?";
    OPERATION_ENDS = "UPDATE vm_replication_contexts SET current_job_id = NULL, updated_at = ? WHERE context_id = ?";
    JOB_FAILS = "UPDATE vm_replication_contexts SET current_status = ?, current_job_id = NULL, \
                 failed_jobs = failed_jobs + 1, updated_at = ?, last_status_change = ? WHERE context_id = ?";
    JOB_COMMITS = "UPDATE vm_replication_contexts SET current_status = ?, current_job_id = NULL, epoch = ?, \
                   last_successful_job_id = ?, successful_jobs = successful_jobs + 1, updated_at = ?, \
                   last_status_change = ? WHERE context_id = ?";

    DISK = concat!(disk!(), " WHERE d.vm_context_id = ? AND d.disk_id = ?");
    /// Every row.
    SCAN_DISKS = concat!(disk!(), " WHERE d.id > ? ORDER BY d.id LIMIT ?");
    DISKS = concat!(disk!(), " WHERE d.vm_context_id = ? ORDER BY d.disk_id");

    INSERT_DISK = "INSERT INTO vm_disks (vm_context_id, disk_id, vm_dk_path, label, capacity_bytes, unit_number, \
                   sync_status, created_at, updated_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)";
    DISCOVER_DISK = "UPDATE vm_disks SET vm_dk_path = ?, label = ?, capacity_bytes = ?, unit_number = ?, \
                     updated_at = ? WHERE id = ?";
    ASSIGN_DISK = "UPDATE vm_disks SET job_id = ?, sync_status = ?, bytes_synced = 0, updated_at = ? WHERE id = ?";
    START_DISK = "UPDATE vm_disks SET sync_status = ?, planned_bytes = ?, bytes_synced = 0, updated_at = ? WHERE id = ?";
    SYNC_DISK = "UPDATE vm_disks SET sync_status = ?, bytes_synced = ?, updated_at = ? WHERE id = ?";
    FAIL_DISKS = "UPDATE vm_disks SET sync_status = ?, updated_at = ? WHERE job_id = ?";
    COMMIT_DISK = "UPDATE vm_disks SET sync_status = ?, disk_change_id = ?, change_generation = ?, \
                   change_endpoint = ?, epoch = ?, committed_bytes = ?, updated_at = ? WHERE id = ?";
    DISTRUST_ZEROES = "UPDATE vm_disks SET zeroes_broken = 1, updated_at = ? WHERE id = ?";
    /// The volume of a disk; `generation` never goes back.
    LINK_VOLUME = "UPDATE vm_disks SET ossea_volume_id = (SELECT v.id FROM ossea_volumes v WHERE v.volume_id = ?), \
                   generation = ?, updated_at = ? WHERE id = ?";
    UNLINK_VOLUME = "UPDATE vm_disks SET ossea_volume_id = NULL, updated_at = ? \
                     WHERE ossea_volume_id = (SELECT v.id FROM ossea_volumes v WHERE v.volume_id = ?)";
    /// What is committed of a disk goes on with its volume.
    RENEW_CHANGE = "UPDATE vm_disks SET change_generation = ? WHERE id = ? AND change_generation = ?";
    ADVANCE_GENERATION = "UPDATE vm_disks SET generation = ? WHERE id = ?";

    /// What is there of a VM, one of each.
    VOLUME_OF = "SELECT volume_id AS name FROM ossea_volumes WHERE vm_context_id = ? AND status <> 'deleted' LIMIT 1";
    UNFINISHED_OF = "SELECT id AS name FROM volume_operations WHERE vm_context_id = ? AND unfinished = 1 LIMIT 1";
    EXPORT_OF = "SELECT e.export_name AS name FROM nbd_exports e JOIN vm_disks d ON d.id = e.vm_disk_id \
                 WHERE d.vm_context_id = ? LIMIT 1";
    POINT_OF = "SELECT id AS name FROM recovery_points WHERE vm_context_id = ? LIMIT 1";
    CLEANUP_OF = "SELECT id AS name FROM cleanups WHERE vm_context_id = ? AND status = 'executing' LIMIT 1";
    /// They and their volumes name each other; all else goes with the VM.
    FORGET_OPERATIONS = "DELETE FROM volume_operations WHERE vm_context_id = ? AND unfinished IS NULL";
    FORGET_VOLUMES = "DELETE FROM ossea_volumes WHERE vm_context_id = ? AND status = 'deleted'";
    REMOVE = "DELETE FROM vm_replication_contexts WHERE context_id = ? AND current_job_id IS NULL";
}
