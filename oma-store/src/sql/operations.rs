//! `volume_operations`.

use super::statements;

macro_rules! operation {
    () => {
        "SELECT o.id, o.type, o.status, o.vm_context_id, o.disk_id, o.job_id, o.worker, o.capacity_bytes, o.volume_name, \
         o.provisioning, o.snapshot_id, v.volume_id, m.volume_id AS made_volume, o.error, o.due_at, o.created_at, \
         o.updated_at FROM volume_operations o LEFT JOIN ossea_volumes v ON v.id = o.ossea_volume_id \
         LEFT JOIN ossea_volumes m ON m.id = o.made_volume_id"
    };
}

statements! {
    BY_ID = concat!(operation!(), " WHERE o.id = ?");
    UNFINISHED = concat!(
        operation!(),
        " WHERE o.vm_context_id = ? AND o.disk_id = ? AND o.unfinished = 1"
    );
    /// Every row.
    SCAN = concat!(operation!(), " WHERE o.id > ? ORDER BY o.id LIMIT ?");
    /// Those that have not ended: there is at most one for each disk.
    ALL_UNFINISHED = concat!(operation!(), " WHERE o.unfinished = 1");
    /// Those that have not ended and that no live job can carry out.
    LEFT = concat!(
        operation!(),
        " WHERE o.unfinished = 1 AND NOT EXISTS \
         (SELECT 1 FROM replication_jobs j WHERE j.vm_context_id = o.vm_context_id AND j.live = 1)"
    );
    /// Pending ones that are due by then: no other has a time.
    DUE = concat!(operation!(), " WHERE o.unfinished = 1 AND o.due_at <= ?");
    /// Newest first, behind one.
    PAGE = concat!(
        operation!(),
        " WHERE o.created_at <= ? AND (o.created_at < ? OR o.id < ?) ORDER BY o.created_at DESC, o.id DESC LIMIT ?"
    );
    /// All on disks of a VM.
    OF_CONTEXT = concat!(operation!(), " WHERE o.vm_context_id = ?");
    /// All that were asked for on a volume.
    ON_VOLUME = concat!(operation!(), " WHERE v.volume_id = ?");
    /// All that ended with a volume.
    MADE_VOLUME = concat!(operation!(), " WHERE m.volume_id = ?");
    INSERT = "INSERT INTO volume_operations (id, type, status, vm_context_id, disk_id, job_id, worker, capacity_bytes, volume_name, \
              provisioning, snapshot_id, ossea_volume_id, due_at, created_at, updated_at) \
              VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, (SELECT v.id FROM ossea_volumes v WHERE v.volume_id = ?), ?, ?, ?)";
    COMPLETE = "UPDATE volume_operations SET status = ?, \
                made_volume_id = (SELECT v.id FROM ossea_volumes v WHERE v.volume_id = ?), error = NULL, updated_at = ?, \
                completed_at = ? WHERE id = ?";
    /// How it ends without a result.
    END = "UPDATE volume_operations SET status = ?, error = ?, due_at = NULL, updated_at = ?, completed_at = ? WHERE id = ?";
    EXECUTE = "UPDATE volume_operations SET status = ?, due_at = NULL, updated_at = ? WHERE id = ?";
    DOUBT = "UPDATE volume_operations SET error = ?, updated_at = ? WHERE id = ?";
}
