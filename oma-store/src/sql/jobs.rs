//! `replication_jobs`.

use super::statements;

macro_rules! job {
    () => {
        "SELECT seq, id, vm_context_id, replication_type, status, epoch, disk_ids, error_message, \
         commit_digest, fence, owner, due_at, created_at, updated_at, completed_at FROM replication_jobs"
    };
}

statements! {
    /// Locks the row of a job for the rest of the transaction, if the lease is the newest and was not given back.
    GUARD = "UPDATE replication_jobs SET fence = fence WHERE id = ? AND fence = ? AND owner = ?";

    BY_ID = concat!(job!(), " WHERE id = ?");
    LIVE = concat!(job!(), " WHERE vm_context_id = ? AND live = 1");
    PAGE = concat!(job!(), " WHERE seq < ? ORDER BY seq DESC LIMIT ?");
    PAGE_OF_CONTEXT = concat!(job!(), " WHERE vm_context_id = ? AND seq < ? ORDER BY seq DESC LIMIT ?");
    /// Not by pages: there is at most one for each VM.
    ALL_LIVE = concat!(job!(), " WHERE live = 1");

    INSERT = "INSERT INTO replication_jobs (id, vm_context_id, source_vm_id, source_vm_name, source_vm_path, \
              vcenter_host, replication_type, status, epoch, disk_ids, due_at, created_at, updated_at) \
              VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)";
    /// Only as it was read: not since claimed (`fence`), renewed, released or ended (`due_at`).
    CLAIM = "UPDATE replication_jobs SET owner = ?, fence = ?, due_at = ?, updated_at = ? \
             WHERE id = ? AND fence = ? AND due_at = ?";
    RENEW = "UPDATE replication_jobs SET due_at = ? WHERE id = ? AND fence = ? AND owner = ?";
    RELEASE = "UPDATE replication_jobs SET owner = NULL, due_at = ?, updated_at = ? \
               WHERE id = ? AND fence = ? AND owner = ?";
    ADVANCE = "UPDATE replication_jobs SET status = ?, started_at = COALESCE(started_at, ?), updated_at = ? \
               WHERE id = ? AND fence = ? AND owner = ?";
    END = "UPDATE replication_jobs SET status = ?, error_message = ?, owner = NULL, due_at = NULL, updated_at = ?, \
           completed_at = ? WHERE id = ? AND fence = ? AND owner = ?";
    COMMIT = "UPDATE replication_jobs SET status = ?, commit_digest = ?, owner = NULL, due_at = NULL, updated_at = ?, \
              completed_at = ? WHERE id = ? AND fence = ? AND owner = ?";
    /// What the job's disks have planned and durable, as the job's progress (L25).
    PROGRESS = "UPDATE replication_jobs SET \
                total_bytes = (SELECT COALESCE(SUM(d.planned_bytes), 0) FROM vm_disks d WHERE d.job_id = replication_jobs.id), \
                bytes_transferred = (SELECT COALESCE(SUM(d.bytes_synced), 0) FROM vm_disks d WHERE d.job_id = replication_jobs.id) \
                WHERE id = ? AND fence = ? AND owner = ?";
}
