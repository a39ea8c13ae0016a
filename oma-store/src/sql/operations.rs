//! `volume_operations`.

use super::statements;

macro_rules! operation {
    () => {
        operation!("")
    };
    // Through an index, where an engine has to be told.
    ($index:literal) => {
        concat!("SELECT o.id, o.type, o.status, o.vm_context_id, o.disk_id, o.job_id, o.worker, o.capacity_bytes, o.volume_name, \
         o.provisioning, o.snapshot_id, v.volume_id, m.volume_id AS made_volume, o.error, o.due_at, o.created_at, \
         o.updated_at FROM volume_operations o", $index, " LEFT JOIN ossea_volumes v ON v.id = o.ossea_volume_id \
         LEFT JOIN ossea_volumes m ON m.id = o.made_volume_id")
    };
}

/// Behind a place, in the order of a list.
macro_rules! newest {
    () => {
        " o.created_at <= ? AND (o.created_at < ? OR o.id < ?) ORDER BY o.created_at DESC, o.id DESC LIMIT ?"
    };
}

macro_rules! oldest {
    () => {
        " o.created_at >= ? AND (o.created_at > ? OR o.id > ?) ORDER BY o.created_at, o.id LIMIT ?"
    };
}

/// Both orders of a list. Of the indexes that begin with its column MariaDB may take one that has another order, and sort.
macro_rules! list {
    ($order:ident) => {
        concat!(operation!(), " WHERE", $order!())
    };
    ($order:ident, kind) => {
        concat!(operation!(), " WHERE o.type = ? AND o.status = ? AND", $order!())
    };
    ($order:ident, $of:literal) => {
        concat!(operation!(), " WHERE o.", $of, " = ? AND", $order!())
    };
    ($order:ident, $of:literal, by $index:literal) => {
        concat!(operation!($index), " WHERE o.", $of, " = ? AND", $order!())
    };
    ($order:ident, $of:literal, kind) => {
        concat!(operation!(), " WHERE o.", $of, " = ? AND o.type = ? AND o.status = ? AND", $order!())
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
    /// Those that have not ended and that no live job can carry out.
    LEFT = concat!(
        operation!(),
        " WHERE o.unfinished = 1 AND NOT EXISTS \
         (SELECT 1 FROM replication_jobs j WHERE j.vm_context_id = o.vm_context_id AND j.live = 1)"
    );
    /// Pending ones that are due by then: no other has a time.
    DUE = concat!(operation!(), " WHERE o.unfinished = 1 AND o.due_at <= ?");
    NEWEST = list!(newest);
    OLDEST = list!(oldest);
    NEWEST_OF_KIND = list!(newest, kind);
    OLDEST_OF_KIND = list!(oldest, kind);
    /// On disks of a VM.
    NEWEST_OF_VM = list!(newest, "vm_context_id"),
        mysql: list!(newest, "vm_context_id", by " FORCE INDEX (ix_operations_context)");
    OLDEST_OF_VM = list!(oldest, "vm_context_id"),
        mysql: list!(oldest, "vm_context_id", by " FORCE INDEX (ix_operations_context)");
    NEWEST_OF_VM_AND_KIND = list!(newest, "vm_context_id", kind);
    OLDEST_OF_VM_AND_KIND = list!(oldest, "vm_context_id", kind);
    /// That were asked for on a volume, by the number of its row.
    NEWEST_ON = list!(newest, "ossea_volume_id"),
        mysql: list!(newest, "ossea_volume_id", by " FORCE INDEX (ix_operations_on)");
    OLDEST_ON = list!(oldest, "ossea_volume_id"),
        mysql: list!(oldest, "ossea_volume_id", by " FORCE INDEX (ix_operations_on)");
    NEWEST_ON_AND_KIND = list!(newest, "ossea_volume_id", kind);
    OLDEST_ON_AND_KIND = list!(oldest, "ossea_volume_id", kind);
    /// That ended with a volume, by the number of its row.
    NEWEST_BY = list!(newest, "made_volume_id"),
        mysql: list!(newest, "made_volume_id", by " FORCE INDEX (ix_operations_by)");
    OLDEST_BY = list!(oldest, "made_volume_id"),
        mysql: list!(oldest, "made_volume_id", by " FORCE INDEX (ix_operations_by)");
    NEWEST_BY_AND_KIND = list!(newest, "made_volume_id", kind);
    OLDEST_BY_AND_KIND = list!(oldest, "made_volume_id", kind);
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
