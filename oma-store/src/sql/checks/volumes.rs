//! Volumes, their devices, what was asked of their backend, and the journals of what was copied.

super::rules! {
    "device_mappings" {
        "device-of-deleted-volume", "device {} shows a volume that is recorded as deleted" =>
            "SELECT m.volume_uuid AS row_key, m.device_path AS found FROM device_mappings m \
             JOIN ossea_volumes v ON v.volume_id = m.volume_uuid WHERE v.status = 'deleted'";
        "device-of-detached-volume", "a device shows it, and the volume is recorded as {}" =>
            "SELECT m.volume_uuid AS row_key, v.status AS found FROM device_mappings m \
             JOIN ossea_volumes v ON v.volume_id = m.volume_uuid \
             WHERE v.status IN ('creating', 'created', 'detached', 'condemned')";
        "device-twice", "device {} shows another volume too" =>
            "SELECT MAX(volume_uuid) AS row_key, device_path AS found FROM device_mappings \
             GROUP BY COALESCE(vm_id, ''), device_path HAVING COUNT(*) > 1";
    }
    "ossea_volumes" {
        "attached-without-device", "it is recorded as {}, and no device shows it" =>
            "SELECT v.volume_id AS row_key, v.status AS found FROM ossea_volumes v \
             LEFT JOIN device_mappings m ON m.volume_uuid = v.volume_id WHERE v.status = 'attached' AND m.id IS NULL";
        "device-path", "its device path {} is not that of its device" =>
            "SELECT v.volume_id AS row_key, v.device_path AS found FROM ossea_volumes v \
             LEFT JOIN device_mappings m ON m.volume_uuid = v.volume_id \
             WHERE COALESCE(v.device_path, '') <> COALESCE(m.device_path, '') \
             AND (m.id IS NOT NULL OR v.status IN ('creating', 'created', 'detached', 'condemned', 'deleted'))";
        "condemned-without-delete", "it is {}, and no operation that is to delete it says so" =>
            "SELECT v.volume_id AS row_key, v.status AS found FROM ossea_volumes v \
             LEFT JOIN volume_operations o ON o.ossea_volume_id = v.id AND o.type = 'delete' \
             AND o.status = CASE v.status WHEN 'condemned' THEN 'pending' ELSE 'executing' END \
             WHERE v.status IN ('condemned', 'deleting') AND o.id IS NULL";
        "epoch-never-held", "it holds epoch {}, and is recorded as one that never held any" =>
            "SELECT volume_id AS row_key, content_epoch AS found FROM ossea_volumes WHERE content = 'epoch' AND held_epoch = 0";
        "generation-ahead", "its generation {} is later than any that its disk gave out" =>
            "SELECT v.volume_id AS row_key, v.generation AS found FROM ossea_volumes v \
             JOIN vm_disks d ON d.vm_context_id = v.vm_context_id AND d.disk_id = v.disk_id WHERE v.generation > d.generation";
    }
    "vm_disks" {
        "link-to-other-disk", "its volume {} was made for another disk" =>
            "SELECT d.id AS row_key, v.volume_id AS found FROM vm_disks d JOIN ossea_volumes v ON v.id = d.ossea_volume_id \
             WHERE v.vm_context_id <> d.vm_context_id OR v.disk_id <> d.disk_id";
        "link-to-deleted-volume", "its volume {} is recorded as deleted" =>
            "SELECT d.id AS row_key, v.volume_id AS found FROM vm_disks d JOIN ossea_volumes v ON v.id = d.ossea_volume_id \
             WHERE v.status = 'deleted' AND v.vm_context_id = d.vm_context_id AND v.disk_id = d.disk_id";
        "content-of-other-epoch", "its volume holds epoch {}, which its change id contradicts" =>
            "SELECT d.id AS row_key, v.content_epoch AS found FROM vm_disks d \
             JOIN ossea_volumes v ON v.id = d.ossea_volume_id AND v.vm_context_id = d.vm_context_id AND v.disk_id = d.disk_id \
             WHERE v.content = 'epoch' AND v.status <> 'deleted' AND (d.disk_change_id IS NULL OR d.epoch < v.content_epoch \
             OR d.change_generation > v.generation OR (d.change_generation = v.generation AND d.epoch <> v.content_epoch))";
    }
    "volume_operations" {
        "operation-on-other-disk", "its volume {} was made for another disk" =>
            "SELECT o.id AS row_key, v.volume_id AS found FROM volume_operations o \
             JOIN ossea_volumes v ON v.id = o.ossea_volume_id OR v.id = o.made_volume_id \
             WHERE v.vm_context_id <> o.vm_context_id OR v.disk_id <> o.disk_id";
        "operation-without-volume", "it is {}, and no volume is named that it ended with" =>
            "SELECT id AS row_key, status AS found FROM volume_operations \
             WHERE status = 'completed' AND made_volume_id IS NULL";
        "operation-end", "it is {}, and when it ended says otherwise" =>
            "SELECT id AS row_key, status AS found FROM volume_operations \
             WHERE (status IN ('pending', 'executing') AND completed_at IS NOT NULL) \
             OR (status IN ('completed', 'failed', 'cancelled') AND completed_at IS NULL)";
        "operation-due", "it is {}, and when it is due says otherwise" =>
            "SELECT id AS row_key, status AS found FROM volume_operations \
             WHERE (status = 'pending' AND type = 'delete' AND due_at IS NULL) OR (status <> 'pending' AND due_at IS NOT NULL)";
        "operation-on-no-snapshot", "it is a {}, and names no snapshot" =>
            "SELECT id AS row_key, type AS found FROM volume_operations \
             WHERE type IN ('snapshot', 'revert', 'delete_snapshot') AND snapshot_id IS NULL";
        "operations-at-once", "another operation of disk {} has not ended either" =>
            "SELECT MAX(id) AS row_key, disk_id AS found FROM volume_operations \
             WHERE status IN ('pending', 'executing') GROUP BY vm_context_id, disk_id HAVING COUNT(*) > 1";
    }
    "recovery_points" {
        "point-of-other-vm", "its job {} is of another VM" =>
            "SELECT p.id AS row_key, j.id AS found FROM recovery_points p JOIN replication_jobs j ON j.id = p.job_id \
             WHERE j.vm_context_id <> p.vm_context_id";
        "point-without-commit", "it is ready, and its job {} did not complete its epoch" =>
            "SELECT p.id AS row_key, j.id AS found FROM recovery_points p JOIN replication_jobs j ON j.id = p.job_id \
             WHERE p.status = 'ready' AND j.vm_context_id = p.vm_context_id AND (j.status <> 'completed' OR j.epoch <> p.epoch)";
        "points-of-one-epoch", "another ready one is of epoch {} too" =>
            "SELECT MAX(id) AS row_key, epoch AS found FROM recovery_points WHERE status = 'ready' \
             GROUP BY vm_context_id, epoch HAVING COUNT(*) > 1";
    }
    "disk_journals" {
        "journal-without-job", "disk {} has a journal and belongs to no job" =>
            "SELECT j.vm_disk_id AS row_key, d.disk_id AS found FROM disk_journals j JOIN vm_disks d ON d.id = j.vm_disk_id \
             WHERE d.job_id IS NULL";
        "journal-of-committed-disk", "disk {} is committed and still has a journal" =>
            "SELECT j.vm_disk_id AS row_key, d.disk_id AS found FROM disk_journals j JOIN vm_disks d ON d.id = j.vm_disk_id \
             WHERE d.sync_status = 'completed'";
    }
}
