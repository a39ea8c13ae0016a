//! `cleanups`, `cleanup_steps`, and what a cleanup has to know of `failover_jobs` and of what is left.

use super::statements;

macro_rules! cleanup {
    () => {
        "SELECT seq, id, job_id, vm_context_id, worker, plan, status, leftovers, error_message, created_at, updated_at FROM cleanups"
    };
}

macro_rules! failover {
    () => {
        "SELECT job_id, vm_context_id, replication_job_id, job_type, status, destination_vm_id FROM failover_jobs"
    };
}

/// Behind a place, in the order of a list.
macro_rules! newest {
    () => {
        " seq < ? ORDER BY seq DESC LIMIT ?"
    };
}

macro_rules! oldest {
    () => {
        " seq > ? ORDER BY seq LIMIT ?"
    };
}

/// Through the index of a filter: another one's rows MariaDB would sort.
macro_rules! by {
    ($index:literal) => {
        concat!(cleanup!(), " FORCE INDEX (", $index, ")")
    };
}

/// One list in one order, by the index of its filter.
macro_rules! list {
    ($order:ident, $filter:literal) => {
        concat!(cleanup!(), $filter, $order!())
    };
    ($order:ident, $filter:literal, $index:literal) => {
        concat!(by!($index), $filter, $order!())
    };
}

statements! {
    BY_ID = concat!(cleanup!(), " WHERE id = ?");
    NEWEST = concat!(cleanup!(), " WHERE", newest!());
    OLDEST = concat!(cleanup!(), " WHERE", oldest!());
    NEWEST_OF_JOB = list!(newest, " WHERE job_id = ? AND"),
        mysql: list!(newest, " WHERE job_id = ? AND", "ix_cleanups_job");
    OLDEST_OF_JOB = list!(oldest, " WHERE job_id = ? AND"),
        mysql: list!(oldest, " WHERE job_id = ? AND", "ix_cleanups_job");
    NEWEST_OF_STATUS = list!(newest, " WHERE status = ? AND"),
        mysql: list!(newest, " WHERE status = ? AND", "ix_cleanups_status");
    OLDEST_OF_STATUS = list!(oldest, " WHERE status = ? AND"),
        mysql: list!(oldest, " WHERE status = ? AND", "ix_cleanups_status");
    NEWEST_OF_BOTH = list!(newest, " WHERE job_id = ? AND status = ? AND"),
        mysql: list!(newest, " WHERE job_id = ? AND status = ? AND", "ix_cleanups_job_status");
    OLDEST_OF_BOTH = list!(oldest, " WHERE job_id = ? AND status = ? AND"),
        mysql: list!(oldest, " WHERE job_id = ? AND status = ? AND", "ix_cleanups_job_status");
    /// Every row.
    SCAN = concat!(cleanup!(), " WHERE seq > ? ORDER BY seq LIMIT ?");
    INSERT = "INSERT INTO cleanups (id, job_id, vm_context_id, worker, plan, status, created_at, updated_at) \
              VALUES (?, ?, ?, ?, ?, ?, ?, ?)";
    /// Locks the row for the rest of the transaction.
    LOCK = "UPDATE cleanups SET updated_at = updated_at WHERE id = ?";
    /// Locks those of a job for the rest of the transaction.
    LOCK_OF_JOB = "UPDATE cleanups SET updated_at = updated_at WHERE job_id = ?";
    SET_STATUS = "UPDATE cleanups SET status = ?, leftovers = ?, error_message = ?, updated_at = ? WHERE id = ?";
    /// Another one of the job is begun in their place.
    SUPERSEDE = "UPDATE cleanups SET status = 'refused', error_message = ?, updated_at = ? \
                 WHERE job_id = ? AND status = 'executing' AND id <> ?";
    PRUNE = "DELETE FROM cleanups WHERE status = ? AND updated_at < ?";
    TOUCH = "UPDATE cleanups SET updated_at = ? WHERE id = ?";

    STEPS = "SELECT id, cleanup_id, seq, name, status, failures, operation_id, error_message, updated_at FROM cleanup_steps \
             WHERE cleanup_id = ? ORDER BY seq";
    INSERT_STEP = "INSERT INTO cleanup_steps (cleanup_id, seq, name, status, updated_at) VALUES (?, ?, ?, ?, ?)";
    TELL_STEP = "UPDATE cleanup_steps SET status = ?, failures = ?, operation_id = ?, error_message = ?, updated_at = ? \
                 WHERE cleanup_id = ? AND seq = ?";

    /// Those of a VM that are being carried out.
    EXECUTING_OF_VM = concat!(cleanup!(), " WHERE vm_context_id = ? AND status = 'executing'");

    FAILOVERS = concat!(failover!(), " WHERE vm_context_id = ?");
    FAILOVER = concat!(failover!(), " WHERE job_id = ?");
    /// Only as it was read.
    FORGET_FAILOVER = "DELETE FROM failover_jobs WHERE job_id = ? AND status IN ('failed', 'reverted') AND destination_vm_id IS NULL";

    /// What names a job (seed 003, phase 5).
    LEFT_DISKS = "SELECT COUNT(*) AS rows_left FROM vm_disks d LEFT JOIN replication_jobs j ON j.id = d.job_id \
                  WHERE d.job_id = ? AND j.id IS NULL";
    LEFT_EXPORTS = "SELECT COUNT(*) AS rows_left FROM nbd_exports WHERE job_id = ?";
    LEFT_MAPPINGS = "SELECT COUNT(*) AS rows_left FROM vm_export_mappings WHERE job_id = ?";
    LEFT_DEVICES = "SELECT COUNT(*) AS rows_left FROM ossea_volumes v JOIN device_mappings m ON m.volume_uuid = v.volume_id \
                    WHERE v.vm_context_id = ? AND v.status = 'deleted' AND EXISTS (SELECT 1 FROM volume_operations o \
                    WHERE o.vm_context_id = v.vm_context_id AND o.disk_id = v.disk_id AND o.job_id = ?)";
    LEFT_OPERATIONS = "SELECT COUNT(*) AS rows_left FROM volume_operations WHERE job_id = ? AND unfinished = 1";
    LEFT_FAILOVERS = "SELECT COUNT(*) AS rows_left FROM failover_jobs f LEFT JOIN replication_jobs j ON j.id = f.replication_job_id \
                      WHERE f.replication_job_id = ? AND j.id IS NULL";
}
