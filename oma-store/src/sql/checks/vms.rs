//! VMs and their disks.

super::rules! {
    "vm_replication_contexts" {
        "current-job-ended", "its current job {} has ended" =>
            concat!(
                "SELECT c.context_id AS row_key, j.id AS found FROM vm_replication_contexts c \
                 JOIN replication_jobs j ON j.id = c.current_job_id WHERE ", super::ended!("j.status")
            );
        "current-job-of-other-vm", "its current job {} is of another VM" =>
            "SELECT c.context_id AS row_key, j.id AS found FROM vm_replication_contexts c \
             JOIN replication_jobs j ON j.id = c.current_job_id WHERE j.vm_context_id <> c.context_id";
        "replicating-without-job", "it is {}, and no job of it is live" =>
            concat!(
                "SELECT c.context_id AS row_key, c.current_status AS found FROM vm_replication_contexts c \
                 LEFT JOIN replication_jobs j ON j.vm_context_id = c.context_id AND ", super::live!("j.status"),
                " WHERE c.current_status = 'replicating' AND j.id IS NULL"
            );
        "last-job", "its last successful job {} did not complete its epoch" =>
            concat!(
                "SELECT c.context_id AS row_key, j.id AS found FROM vm_replication_contexts c \
                 JOIN replication_jobs j ON j.id = c.last_successful_job_id \
                 WHERE j.status IN ('failed', 'cancelled') OR ", super::live!("j.status"),
                " OR j.vm_context_id <> c.context_id OR j.epoch <> c.epoch"
            );
        "job-counts", "its {} jobs are fewer than those that succeeded and failed" =>
            "SELECT context_id AS row_key, total_jobs_run AS found FROM vm_replication_contexts \
             WHERE total_jobs_run < successful_jobs + failed_jobs";
    }
    "vm_disks" {
        "disk-of-other-vm", "its job {} is of another VM" =>
            "SELECT d.id AS row_key, j.id AS found FROM vm_disks d JOIN replication_jobs j ON j.id = d.job_id \
             WHERE j.vm_context_id <> d.vm_context_id";
        "epoch-ahead", "its epoch {} is later than that of its VM" =>
            "SELECT d.id AS row_key, d.epoch AS found FROM vm_disks d \
             JOIN vm_replication_contexts c ON c.context_id = d.vm_context_id WHERE d.epoch > c.epoch";
        "change-id-ahead", "its change id is of generation {}, later than any that it gave out" =>
            "SELECT id AS row_key, change_generation AS found FROM vm_disks WHERE change_generation > generation";
        "change-id-of-other-epoch", "the job of its epoch brought it to change id {}, not to the one that it has" =>
            "SELECT d.id AS row_key, h.change_id AS found FROM vm_disks d \
             JOIN replication_jobs j ON j.vm_context_id = d.vm_context_id AND j.epoch = d.epoch AND j.status = 'completed' AND j.kind <> 'operate' \
             JOIN cbt_history h ON h.job_id = j.id AND h.disk_id = d.disk_id \
             WHERE h.sync_success = 1 AND h.change_id <> d.disk_change_id";
        "change-id-incomplete", "its change id {} lacks its generation, source or epoch, or is lacking" =>
            "SELECT id AS row_key, disk_change_id AS found FROM vm_disks \
             WHERE (disk_change_id IS NULL AND (change_generation IS NOT NULL OR change_endpoint IS NOT NULL OR epoch <> 0)) \
             OR (disk_change_id IS NOT NULL AND (change_generation IS NULL OR change_endpoint IS NULL OR epoch = 0))";
        "not-committed", "its job {} is completed, and the disk is not at the job's epoch" =>
            "SELECT d.id AS row_key, j.id AS found FROM vm_disks d JOIN replication_jobs j ON j.id = d.job_id \
             WHERE j.status = 'completed' AND j.vm_context_id = d.vm_context_id \
             AND (d.sync_status IN ('pending', 'syncing', 'failed') OR d.epoch <> j.epoch)";
        "syncs-without-job", "it is {}, and no live job has it" =>
            concat!(
                "SELECT d.id AS row_key, d.sync_status AS found FROM vm_disks d \
                 LEFT JOIN replication_jobs j ON j.id = d.job_id \
                 WHERE (d.sync_status = 'syncing' AND d.job_id IS NULL) \
                 OR (d.sync_status IN ('pending', 'syncing') AND j.status IN ('failed', 'cancelled'))"
            );
    }
}
