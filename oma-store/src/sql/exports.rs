//! `nbd_exports`.

use super::statements;

macro_rules! export {
    () => {
        "SELECT e.export_name, e.job_id, d.vm_context_id, d.disk_id, e.device_mapping_uuid, e.status, e.updated_at \
         FROM nbd_exports e JOIN vm_disks d ON d.id = e.vm_disk_id"
    };
}

statements! {
    BY_NAME = concat!(export!(), " WHERE e.export_name = ?");
    PAGE = concat!(export!(), " WHERE e.export_name > ? ORDER BY e.export_name LIMIT ?");
    INSERT = "INSERT INTO nbd_exports (export_name, job_id, vm_disk_id, device_mapping_uuid, device_path, status, \
              created_at, updated_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?)";
    RESTART = "UPDATE nbd_exports SET job_id = ?, device_path = ?, status = ?, updated_at = ? WHERE export_name = ?";
    SET_STATUS = "UPDATE nbd_exports SET status = ?, updated_at = ? WHERE export_name = ?";
    DELETE = "DELETE FROM nbd_exports WHERE export_name = ? AND status = ?";
}
