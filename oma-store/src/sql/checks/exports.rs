//! Exports: what they serve, and for whom.

super::rules! {
    "nbd_exports" {
        "export-of-ended-job", "it is not stopped, and its job {} has ended" =>
            concat!(
                "SELECT e.export_name AS row_key, e.job_id AS found FROM nbd_exports e \
                 JOIN replication_jobs j ON j.id = e.job_id \
                 WHERE e.status IN ('starting', 'running', 'draining') AND ", super::ended!("j.status")
            );
        "export-for-other-vm", "its job {} is of another VM" =>
            "SELECT e.export_name AS row_key, e.job_id AS found FROM nbd_exports e JOIN vm_disks d ON d.id = e.vm_disk_id \
             JOIN replication_jobs j ON j.id = e.job_id WHERE j.vm_context_id <> d.vm_context_id";
        "export-of-other-disk", "its volume {} was made for another disk" =>
            "SELECT e.export_name AS row_key, v.volume_id AS found FROM nbd_exports e JOIN vm_disks d ON d.id = e.vm_disk_id \
             JOIN ossea_volumes v ON v.volume_id = e.device_mapping_uuid \
             WHERE v.vm_context_id <> d.vm_context_id OR v.disk_id <> d.disk_id";
        "volume-exported-twice", "its volume {} is served under another name too" =>
            "SELECT MAX(export_name) AS row_key, device_mapping_uuid AS found FROM nbd_exports \
             WHERE status IN ('starting', 'running', 'draining') GROUP BY device_mapping_uuid HAVING COUNT(*) > 1";
        "disk-exported-twice", "another volume of its disk {} is served too" =>
            "SELECT MAX(export_name) AS row_key, vm_disk_id AS found FROM nbd_exports \
             WHERE status IN ('starting', 'running', 'draining') GROUP BY vm_disk_id \
             HAVING COUNT(DISTINCT device_mapping_uuid) > 1";
    }
}
