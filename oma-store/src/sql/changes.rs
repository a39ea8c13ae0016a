//! `cbt_history`.

use super::statements;

macro_rules! record {
    () => {
        "SELECT id, job_id, vm_context_id, disk_id, change_id, previous_change_id, sync_type, \
         blocks_changed, bytes_transferred, sync_success, created_at FROM cbt_history"
    };
}

statements! {
    PAGE = concat!(record!(), " WHERE vm_context_id = ? AND disk_id = ? AND id < ? ORDER BY id DESC LIMIT ?");
    /// Every row.
    SCAN = concat!(record!(), " WHERE id > ? ORDER BY id LIMIT ?");
    /// Completed jobs and how many of their disks have a history, by the order of insertion.
    OF_COMPLETED = "SELECT j.seq, j.id, j.disk_ids, \
                    (SELECT COUNT(*) FROM cbt_history h WHERE h.job_id = j.id) AS disks_with_history \
                    FROM replication_jobs j \
                    WHERE j.kind <> 'operate' AND j.status = 'completed' AND j.seq > ? ORDER BY j.seq LIMIT ?";
    OF_JOB = concat!(record!(), " WHERE job_id = ? ORDER BY disk_id");
    INSERT = "INSERT INTO cbt_history (job_id, vm_context_id, disk_id, change_id, previous_change_id, sync_type, \
              created_at) VALUES (?, ?, ?, ?, ?, ?, ?)";
    REPLACE = "UPDATE cbt_history SET change_id = ?, previous_change_id = ?, sync_type = ?, created_at = ? \
               WHERE job_id = ? AND disk_id = ?";
    COMMIT = "UPDATE cbt_history SET blocks_changed = ?, bytes_transferred = ?, sync_duration_seconds = ?, \
              sync_success = 1 WHERE job_id = ? AND disk_id = ?";
}
