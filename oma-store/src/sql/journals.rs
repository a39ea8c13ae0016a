//! `disk_journals` and `disk_journal_extents`.

use super::statements;

statements! {
    BY_DISK = "SELECT j.vm_disk_id, j.basis, j.planned FROM disk_journals j JOIN vm_disks d ON d.id = j.vm_disk_id \
               WHERE d.vm_context_id = ? AND d.disk_id = ?";
    /// Every row.
    SCAN = "SELECT vm_disk_id, basis, planned FROM disk_journals WHERE vm_disk_id > ? ORDER BY vm_disk_id LIMIT ?";
    EXTENTS = "SELECT vm_disk_id, start_offset, end_offset FROM disk_journal_extents WHERE vm_disk_id = ? \
               ORDER BY start_offset";
    EXISTS = "SELECT vm_disk_id FROM disk_journals WHERE vm_disk_id = ?";
    INSERT = "INSERT INTO disk_journals (vm_disk_id, basis, planned, created_at) VALUES (?, ?, ?, ?)";
    /// Its extents go with it.
    DELETE = "DELETE FROM disk_journals WHERE vm_disk_id = ?";
    /// The last run of finished bytes that begins at or before an offset.
    LAST_UP_TO = "SELECT vm_disk_id, start_offset, end_offset FROM disk_journal_extents \
                  WHERE vm_disk_id = ? AND start_offset <= ? ORDER BY start_offset DESC LIMIT 1";
    INSERT_EXTENT = "INSERT INTO disk_journal_extents (vm_disk_id, start_offset, end_offset) VALUES (?, ?, ?)";
    DELETE_EXTENT = "DELETE FROM disk_journal_extents WHERE vm_disk_id = ? AND start_offset = ?";
}
