//! `volume_operations`.

use super::statements;

macro_rules! operation {
    () => {
        "SELECT o.id, o.type, o.status, o.vm_context_id, o.disk_id, o.job_id, o.capacity_bytes, v.volume_id, \
         o.error, o.created_at, o.updated_at FROM volume_operations o \
         LEFT JOIN ossea_volumes v ON v.id = o.ossea_volume_id"
    };
}

statements! {
    BY_ID = concat!(operation!(), " WHERE o.id = ?");
    UNFINISHED = concat!(
        operation!(),
        " WHERE o.vm_context_id = ? AND o.disk_id = ? AND o.status IN ('pending', 'executing')"
    );
    /// Every row.
    SCAN = concat!(operation!(), " WHERE o.id > ? ORDER BY o.id LIMIT ?");
    INSERT = "INSERT INTO volume_operations (id, type, status, vm_context_id, disk_id, job_id, \
              capacity_bytes, ossea_volume_id, created_at, updated_at) \
              VALUES (?, ?, ?, ?, ?, ?, ?, (SELECT v.id FROM ossea_volumes v WHERE v.volume_id = ?), ?, ?)";
    COMPLETE = "UPDATE volume_operations SET status = ?, \
                made_volume_id = (SELECT v.id FROM ossea_volumes v WHERE v.volume_id = ?), updated_at = ?, \
                completed_at = ? WHERE id = ?";
    FAIL = "UPDATE volume_operations SET status = ?, error = ?, updated_at = ?, completed_at = ? WHERE id = ?";
}
