//! The store's statements once more, for the bare driver. Whether they are as many as the store's is counted on MariaDB.

use super::task::Kind;
use crate::bare::Statement;
use crate::engine::Engine;

/// The statements of a transaction, as one engine wants them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Texts {
    /// SQLite is not asked for the time.
    pub(super) now: Option<Statement>,
    pub(super) guard: Statement,
    pub(super) job: Statement,
    pub(super) renew: Statement,
    pub(super) claim: Statement,
    pub(super) disk: Statement,
    pub(super) journal: Statement,
    pub(super) last_up_to: Statement,
    pub(super) delete_extent: Statement,
    pub(super) insert_extent: Statement,
    pub(super) sync_disk: Statement,
    pub(super) progress: Statement,
}

impl Texts {
    pub(super) fn new(engine: Engine) -> Self {
        let text = |text| Statement::new(engine, text);
        let now = engine.pick(
            None,
            Some("SELECT CURRENT_TIMESTAMP(3) AS at_time"),
            Some("SELECT clock_timestamp() AS at_time"),
        );
        Self {
            now: now.map(text),
            guard: text("UPDATE replication_jobs SET fence = fence WHERE id = ? AND fence = ? AND owner = ?"),
            job: text(
                "SELECT seq, id, vm_context_id, replication_type, status, epoch, disk_ids, priority, target, \
                 error_message, attempts, commit_digest, fence, owner, due_at, created_at, updated_at, completed_at FROM replication_jobs \
                 WHERE id = ?",
            ),
            renew: text("UPDATE replication_jobs SET due_at = ? WHERE id = ? AND fence = ? AND owner = ?"),
            claim: text(
                "UPDATE replication_jobs SET owner = ?, fence = ?, due_at = ?, updated_at = ? \
                 WHERE id = ? AND fence = ? AND due_at = ?",
            ),
            disk: text(
                "SELECT d.id AS row_id, d.vm_context_id, d.disk_id, d.job_id, d.label, d.vm_dk_path, \
                 d.capacity_bytes, d.unit_number, v.volume_id, d.generation, d.disk_change_id, d.change_generation, \
                 d.change_endpoint, d.epoch, d.sync_status, d.bytes_synced, d.updated_at FROM vm_disks d \
                 LEFT JOIN ossea_volumes v ON v.id = d.ossea_volume_id WHERE d.vm_context_id = ? AND d.disk_id = ?",
            ),
            journal: text("SELECT vm_disk_id, checksum FROM disk_journals WHERE vm_disk_id = ?"),
            last_up_to: text(
                "SELECT vm_disk_id, start_offset, end_offset, checksum FROM disk_journal_extents \
                 WHERE vm_disk_id = ? AND start_offset <= ? ORDER BY start_offset DESC LIMIT 1",
            ),
            delete_extent: text("DELETE FROM disk_journal_extents WHERE vm_disk_id = ? AND start_offset = ?"),
            insert_extent: text(
                "INSERT INTO disk_journal_extents (vm_disk_id, start_offset, end_offset, checksum) VALUES (?, ?, ?, ?)",
            ),
            sync_disk: text(
                "UPDATE vm_disks SET sync_status = 'syncing', bytes_synced = ?, updated_at = ? WHERE id = ?",
            ),
            progress: text(
                "UPDATE replication_jobs SET total_bytes = (SELECT COALESCE(SUM(d.planned_bytes), 0) \
                 FROM vm_disks d WHERE d.job_id = replication_jobs.id), \
                 bytes_transferred = (SELECT COALESCE(SUM(d.bytes_synced), 0) \
                 FROM vm_disks d WHERE d.job_id = replication_jobs.id) \
                 WHERE id = ? AND fence = ? AND owner = ?",
            ),
        }
    }

    /// How many a transaction has between its begin and its commit.
    pub(super) fn count(engine: Engine, kind: Kind) -> u32 {
        let without_clock = match kind {
            Kind::Renew => 1,
            Kind::Claim => 2,
            Kind::Record => 10,
        };
        without_clock + engine.pick(0, 1, 1)
    }
}
