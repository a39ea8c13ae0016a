//! `ossea_volumes` and `device_mappings`. A deleted volume is a row that no reading statement answers for.

use super::statements;

macro_rules! volume {
    () => {
        "SELECT v.volume_id, v.volume_name, v.vm_context_id, v.disk_id, v.capacity_bytes, v.generation, \
         v.content, v.content_epoch, v.held_epoch, v.content_stamp, v.status, m.device_path, m.vm_id, v.updated_at FROM ossea_volumes v \
         LEFT JOIN device_mappings m ON m.volume_uuid = v.volume_id"
    };
}

statements! {
    BY_ID = concat!(volume!(), " WHERE v.volume_id = ? AND v.status <> 'deleted'");
    /// Also a deleted one.
    MADE_BY = concat!(volume!(), " JOIN volume_operations o ON o.made_volume_id = v.id WHERE o.id = ?");
    /// Also a deleted one.
    ANY_BY_ID = concat!(volume!(), " WHERE v.volume_id = ?");
    OF_DISK = concat!(volume!(), " JOIN vm_disks d ON d.ossea_volume_id = v.id WHERE d.vm_context_id = ? AND d.disk_id = ?");
    AT_DEVICE = concat!(volume!(), " WHERE m.vm_id = ? AND m.device_path = ? AND v.status <> 'deleted'");
    PAGE = concat!(volume!(), " WHERE v.volume_id > ? AND v.status <> 'deleted' ORDER BY v.volume_id LIMIT ?");

    PAGE_OF_STATUS = concat!(volume!(), " WHERE v.status = ? AND v.volume_id > ? ORDER BY v.volume_id LIMIT ?");
    PAGE_OF_VM = concat!(
        volume!(),
        " WHERE v.vm_context_id = ? AND v.status = ? AND v.volume_id > ? ORDER BY v.volume_id LIMIT ?"
    );
    /// The number of its row, also of a deleted one.
    ROW = "SELECT id, volume_id, vm_context_id FROM ossea_volumes WHERE volume_id = ?";

    /// Every row, also of deleted ones.
    SCAN = concat!(volume!(), " WHERE v.volume_id > ? ORDER BY v.volume_id LIMIT ?");

    INSERT = "INSERT INTO ossea_volumes (volume_id, volume_name, vm_context_id, disk_id, capacity_bytes, generation, \
              content, status, created_at, updated_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)";
    /// A backend that gives an id again after the volume was gone.
    REVIVE = "UPDATE ossea_volumes SET volume_name = ?, capacity_bytes = ?, generation = ?, content = ?, \
              content_epoch = NULL, held_epoch = 0, content_stamp = NULL, status = ?, updated_at = ? WHERE volume_id = ?";
    SET_STATUS = "UPDATE ossea_volumes SET status = ?, device_path = ?, updated_at = ? WHERE volume_id = ?";
    SET_CAPACITY = "UPDATE ossea_volumes SET capacity_bytes = ?, updated_at = ? WHERE volume_id = ?";
    SET_CONTENT = "UPDATE ossea_volumes SET content = ?, content_epoch = ?, content_stamp = NULL, updated_at = ? WHERE volume_id = ?";
    KEEP_STAMP = "UPDATE ossea_volumes SET content_stamp = ?, updated_at = ? WHERE volume_id = ?";
    SET_GENERATION = "UPDATE ossea_volumes SET generation = ?, content = ?, content_epoch = NULL, content_stamp = NULL, updated_at = ? WHERE volume_id = ?";
    RENEW_GENERATION = "UPDATE ossea_volumes SET generation = ?, held_epoch = 1, updated_at = ? WHERE volume_id = ?";
    COMMIT = "UPDATE ossea_volumes SET content = ?, content_epoch = ?, held_epoch = 1, content_stamp = ?, updated_at = ? \
              WHERE volume_id = ?";

    BY_DEVICE = "SELECT volume_uuid FROM device_mappings WHERE vm_id = ? AND device_path = ?";
    MAP = "INSERT INTO device_mappings (volume_uuid, vm_id, device_path, size, created_at, updated_at) \
           VALUES (?, ?, ?, ?, ?, ?)";
    REMAP = "UPDATE device_mappings SET vm_id = ?, device_path = ?, size = ?, updated_at = ? WHERE volume_uuid = ?";
    RESIZE_DEVICE = "UPDATE device_mappings SET size = ?, updated_at = ? WHERE volume_uuid = ?";
    UNMAP = "DELETE FROM device_mappings WHERE volume_uuid = ?";
}
