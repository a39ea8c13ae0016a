//! Jobs, the change ids that they brought about, and their logs.

super::rules! {
    "replication_jobs" {
        "live-job-unknown-to-vm", "it has not ended, and its VM {} has no live job as its current one" =>
            concat!(
                "SELECT j.id AS row_key, c.context_id AS found FROM replication_jobs j \
                 JOIN vm_replication_contexts c ON c.context_id = j.vm_context_id \
                 LEFT JOIN replication_jobs o ON o.id = c.current_job_id AND o.vm_context_id = c.context_id \
                 AND ", super::live!("o.status"), " WHERE o.id IS NULL AND ", super::live!("j.status")
            );
        "live-job-of-idle-vm", "it has not ended, and its VM is {}" =>
            concat!(
                "SELECT j.id AS row_key, c.current_status AS found FROM replication_jobs j \
                 JOIN vm_replication_contexts c ON c.context_id = j.vm_context_id \
                 WHERE j.kind <> 'operate' AND ", super::live!("j.status"), " AND c.current_status IN ('discovered', 'ready_for_failover', \
                 'failed_over_test', 'failed_over_live', 'completed', 'failed', 'cleanup_required')"
            );
        "jobs-at-once", "another job of VM {} has not ended either" =>
            concat!(
                "SELECT MAX(id) AS row_key, vm_context_id AS found FROM replication_jobs WHERE ", super::live!("status"),
                " GROUP BY vm_context_id HAVING COUNT(*) > 1"
            );
        "epoch-of-live-job", "it makes epoch {}, which is not the next one of its VM" =>
            concat!(
                "SELECT j.id AS row_key, j.epoch AS found FROM replication_jobs j \
                 JOIN vm_replication_contexts c ON c.context_id = j.vm_context_id \
                 WHERE j.kind <> 'operate' AND ", super::live!("j.status"), " AND j.epoch <> c.epoch + 1"
            );
        "epoch-of-completed-job", "it completed epoch {}, later than that of its VM" =>
            "SELECT j.id AS row_key, j.epoch AS found FROM replication_jobs j \
             JOIN vm_replication_contexts c ON c.context_id = j.vm_context_id \
             WHERE j.kind <> 'operate' AND j.status = 'completed' AND j.epoch > c.epoch";
        "epoch-twice", "another job of its VM completed epoch {} too" =>
            "SELECT MAX(id) AS row_key, epoch AS found FROM replication_jobs \
             WHERE kind <> 'operate' AND status = 'completed' GROUP BY vm_context_id, epoch HAVING COUNT(*) > 1";
        "owner-of-ended-job", "it has ended, and {} still owns it" =>
            concat!(
                "SELECT id AS row_key, owner AS found FROM replication_jobs WHERE owner IS NOT NULL AND ",
                super::ended!("status")
            );
        "due", "it is {}, and when anybody may take it up says otherwise" =>
            concat!(
                "SELECT id AS row_key, status AS found FROM replication_jobs WHERE (due_at IS NOT NULL AND ",
                super::ended!("status"), ") OR (due_at IS NULL AND ", super::live!("status"), ")"
            );
        "job-end", "it is {}, and when it ended says otherwise" =>
            concat!(
                "SELECT id AS row_key, status AS found FROM replication_jobs WHERE (completed_at IS NULL AND ",
                super::ended!("status"), ") OR (completed_at IS NOT NULL AND ", super::live!("status"), ")"
            );
    }
    "cbt_history" {
        "completed-without-success", "its job {} is completed, and this disk was not" =>
            "SELECT h.id AS row_key, j.id AS found FROM cbt_history h JOIN replication_jobs j ON j.id = h.job_id \
             WHERE j.status = 'completed' AND h.sync_success = 0";
        "success-without-commit", "it is recorded as a success, and its job is {}" =>
            concat!(
                "SELECT h.id AS row_key, j.status AS found FROM cbt_history h JOIN replication_jobs j ON j.id = h.job_id \
                 WHERE h.sync_success = 1 AND (j.status IN ('failed', 'cancelled') OR ", super::live!("j.status"), ")"
            );
        "history-of-other-vm", "its job {} is of another VM" =>
            "SELECT h.id AS row_key, j.id AS found FROM cbt_history h JOIN replication_jobs j ON j.id = h.job_id \
             JOIN vm_replication_contexts c ON c.context_id = h.vm_context_id WHERE j.vm_context_id <> h.vm_context_id";
    }
    "failover_jobs" {
        "failover-of-other-vm", "its replication job {} is of another VM" =>
            "SELECT f.job_id AS row_key, j.id AS found FROM failover_jobs f \
             JOIN replication_jobs j ON j.id = f.replication_job_id WHERE j.vm_context_id <> f.vm_context_id";
    }
    "log_events" {
        "log-of-other-job", "its step is one of job {}" =>
            "SELECT l.id AS row_key, s.job_id AS found FROM job_steps s JOIN log_events l ON l.step_id = s.id \
             WHERE l.job_id <> s.job_id";
    }
    "job_logs" {
        "line-twice", "another line of its job has number {} too" =>
            "SELECT MAX(id) AS row_key, line_number AS found FROM job_logs GROUP BY job_id, line_number HAVING COUNT(*) > 1";
    }
}
