//! `replication_jobs`.

use super::statements;

macro_rules! job {
    () => {
        "SELECT seq, id, vm_context_id, kind, replication_type, status, epoch, disk_ids, priority, target, \
         error_message, attempts, commit_digest, fence, owner, due_at, request, wanted, created_at, updated_at, completed_at \
         FROM replication_jobs"
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

macro_rules! of_both {
    () => {
        " WHERE vm_context_id = ? AND status = ? AND"
    };
}

/// Through the index of a filter: whoever takes the order's own in its place looks at all that the filter leaves out.
macro_rules! by {
    (sqlite $index:literal) => {
        concat!(job!(), " INDEXED BY ", $index)
    };
    (mysql $index:literal) => {
        concat!(job!(), " FORCE INDEX (", $index, ")")
    };
}

macro_rules! candidate {
    () => {
        "SELECT seq, id, priority, vcenter_host, target FROM replication_jobs"
    };
}

/// Through the index that has the order of the queue. By another one MariaDB would sort, and lock, all that is due; so
/// would SQLite after an ANALYZE, which takes the many jobs that are not live into account as if they were one of two values.
macro_rules! in_order {
    (sqlite) => {
        " INDEXED BY ix_jobs_queue"
    };
    (mysql) => {
        " FORCE INDEX (ix_jobs_queue)"
    };
}

/// What is given out to anybody.
macro_rules! for_anybody {
    () => {
        " AND kind = 'replicate' AND (wanted = 'cancel' OR (wanted = 'run' AND request IS NOT NULL))"
    };
}

macro_rules! next {
    () => {
        concat!(" WHERE live = 1 AND due_at <= ?", for_anybody!(), " ORDER BY priority DESC, seq LIMIT 1")
    };
}

macro_rules! below {
    () => {
        concat!(
            " WHERE live = 1 AND priority < ? AND due_at <= ?",
            for_anybody!(),
            " ORDER BY priority DESC, seq LIMIT ?"
        )
    };
}

macro_rules! behind {
    () => {
        concat!(
            " WHERE live = 1 AND priority = ? AND seq > ? AND due_at <= ?",
            for_anybody!(),
            " ORDER BY seq LIMIT ?"
        )
    };
}

statements! {
    /// Locks the row of a job for the rest of the transaction, if the lease is the newest and was not given back.
    GUARD = "UPDATE replication_jobs SET fence = fence WHERE id = ? AND fence = ? AND owner = ?";

    BY_ID = concat!(job!(), " WHERE id = ?");
    LIVE = concat!(job!(), " WHERE vm_context_id = ? AND live = 1");
    /// Its place in the order of insertion.
    SEQ = "SELECT id, seq FROM replication_jobs WHERE id = ?";
    NEWEST = concat!(job!(), " WHERE", newest!());
    OLDEST = concat!(job!(), " WHERE", oldest!());
    NEWEST_OF_CONTEXT = concat!(job!(), " WHERE vm_context_id = ? AND", newest!());
    OLDEST_OF_CONTEXT = concat!(job!(), " WHERE vm_context_id = ? AND", oldest!());
    NEWEST_OF_STATUS = concat!(by!(sqlite "ix_jobs_status"), " WHERE status = ? AND", newest!()),
        mysql: concat!(by!(mysql "ix_jobs_status"), " WHERE status = ? AND", newest!()),
        postgres: concat!(job!(), " WHERE status = ? AND", newest!());
    OLDEST_OF_STATUS = concat!(by!(sqlite "ix_jobs_status"), " WHERE status = ? AND", oldest!()),
        mysql: concat!(by!(mysql "ix_jobs_status"), " WHERE status = ? AND", oldest!()),
        postgres: concat!(job!(), " WHERE status = ? AND", oldest!());
    NEWEST_OF_BOTH = concat!(by!(sqlite "ix_jobs_context_status"), of_both!(), newest!()),
        mysql: concat!(by!(mysql "ix_jobs_context_status"), of_both!(), newest!()),
        postgres: concat!(job!(), of_both!(), newest!());
    OLDEST_OF_BOTH = concat!(by!(sqlite "ix_jobs_context_status"), of_both!(), oldest!()),
        mysql: concat!(by!(mysql "ix_jobs_context_status"), of_both!(), oldest!()),
        postgres: concat!(job!(), of_both!(), oldest!());

    /// Those that operate and that a worker may take up.
    LEFT_TO = concat!(
        job!(),
        " WHERE live = 1 AND kind = 'operate' AND (owner IS NULL OR owner = ? OR due_at <= ?)"
    );

    /// The job to be driven next, when no bound is asked.
    NEXT = concat!(job!(), in_order!(sqlite), next!()),
        mysql: concat!(job!(), in_order!(mysql), next!(), " FOR UPDATE SKIP LOCKED"),
        postgres: concat!(job!(), next!(), " FOR NO KEY UPDATE SKIP LOCKED");
    /// A candidate, if it is one still.
    DUE(locking) = concat!(job!(), " WHERE id = ? AND live = 1 AND due_at <= ?", for_anybody!());
    /// Candidates below a priority, in their order.
    DUE_BELOW = concat!(candidate!(), in_order!(sqlite), below!()),
        mysql: concat!(candidate!(), in_order!(mysql), below!()),
        postgres: concat!(candidate!(), below!());
    /// Candidates of a priority behind one of them, in their order.
    DUE_BEHIND = concat!(candidate!(), in_order!(sqlite), behind!()),
        mysql: concat!(candidate!(), in_order!(mysql), behind!()),
        postgres: concat!(candidate!(), behind!());
    /// Leases that have not ended, of everybody.
    LEASES = "SELECT id, owner, vcenter_host, target FROM replication_jobs WHERE owner IS NOT NULL AND due_at > ? \
              AND kind <> 'operate'";
    /// Every row, by the order of insertion.
    SCAN = concat!(job!(), " WHERE seq > ? ORDER BY seq LIMIT ?");

    INSERT = "INSERT INTO replication_jobs (id, vm_context_id, source_vm_id, source_vm_name, source_vm_path, \
              vcenter_host, kind, replication_type, status, epoch, disk_ids, priority, target, request, due_at, created_at, \
              updated_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)";
    /// Locks the row of a job for the rest of the transaction, whoever has its lease.
    LOCK = "UPDATE replication_jobs SET fence = fence WHERE id = ?";
    /// One that nobody holds is due at once.
    WANT = "UPDATE replication_jobs SET wanted = ?, updated_at = ?, \
            due_at = CASE WHEN owner IS NULL THEN ? ELSE due_at END WHERE id = ?";
    /// Only one that has ended.
    DELETE = "DELETE FROM replication_jobs WHERE id = ? AND live IS NULL";
    /// An export of a job, if one is recorded.
    EXPORT_OF = "SELECT export_name AS name FROM nbd_exports WHERE job_id = ? LIMIT 1";
    /// An operation of a job that has not ended, if there is one.
    OPERATION_OF = "SELECT id AS name FROM volume_operations WHERE job_id = ? AND unfinished = 1 LIMIT 1";
    PROGRESS_TOLD = "SELECT id, progress FROM replication_jobs WHERE id = ?";
    /// Also of one that has ended under this token: nobody drives it any more.
    TELL_PROGRESS = "UPDATE replication_jobs SET progress = ? WHERE id = ? AND fence = ? AND (owner = ? OR live IS NULL)";
    /// Only as it was read: not since claimed (`fence`), renewed, released or ended (`due_at`).
    CLAIM = "UPDATE replication_jobs SET owner = ?, fence = ?, due_at = ?, updated_at = ? \
             WHERE id = ? AND fence = ? AND due_at = ?";
    RENEW = "UPDATE replication_jobs SET due_at = ? WHERE id = ? AND fence = ? AND owner = ?";
    RELEASE = "UPDATE replication_jobs SET owner = NULL, due_at = ?, updated_at = ? \
               WHERE id = ? AND fence = ? AND owner = ?";
    /// An attempt failed.
    ATTEMPT = "UPDATE replication_jobs SET attempts = ?, error_message = ? WHERE id = ? AND fence = ? AND owner = ?";
    ADVANCE = "UPDATE replication_jobs SET status = ?, started_at = COALESCE(started_at, ?), updated_at = ? \
               WHERE id = ? AND fence = ? AND owner = ?";
    END = "UPDATE replication_jobs SET status = ?, error_message = ?, owner = NULL, due_at = NULL, updated_at = ?, \
           completed_at = ? WHERE id = ? AND fence = ? AND owner = ?";
    COMMIT = "UPDATE replication_jobs SET status = ?, commit_digest = ?, error_message = NULL, owner = NULL, \
              due_at = NULL, updated_at = ?, completed_at = ? WHERE id = ? AND fence = ? AND owner = ?";
    /// What the job's disks have planned and durable, as the job's progress (L25).
    PROGRESS = "UPDATE replication_jobs SET \
                total_bytes = (SELECT COALESCE(SUM(d.planned_bytes), 0) FROM vm_disks d WHERE d.job_id = replication_jobs.id), \
                bytes_transferred = (SELECT COALESCE(SUM(d.bytes_synced), 0) FROM vm_disks d WHERE d.job_id = replication_jobs.id) \
                WHERE id = ? AND fence = ? AND owner = ?";
}
