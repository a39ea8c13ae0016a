//! `disk_journals`, `disk_journal_parts` and `disk_journal_extents`.

use super::statements;

statements! {
    BY_DISK = "SELECT j.vm_disk_id, j.basis, j.planned_parts, j.parts, j.checksum FROM disk_journals j \
               JOIN vm_disks d ON d.id = j.vm_disk_id WHERE d.vm_context_id = ? AND d.disk_id = ?";
    /// Every row.
    SCAN = "SELECT vm_disk_id, basis, planned_parts, parts, checksum FROM disk_journals WHERE vm_disk_id > ? \
            ORDER BY vm_disk_id LIMIT ?";
    PARTS = "SELECT vm_disk_id, part, extents FROM disk_journal_parts WHERE vm_disk_id = ? ORDER BY part";
    EXTENTS = "SELECT vm_disk_id, start_offset, end_offset, checksum FROM disk_journal_extents WHERE vm_disk_id = ? \
               ORDER BY start_offset";
    CHECKSUM = "SELECT vm_disk_id, checksum FROM disk_journals WHERE vm_disk_id = ?";
    INSERT = "INSERT INTO disk_journals (vm_disk_id, basis, planned_parts, parts, checksum, created_at) \
              VALUES (?, ?, ?, ?, ?, ?)";
    INSERT_PART = "INSERT INTO disk_journal_parts (vm_disk_id, part, extents) VALUES (?, ?, ?)";
    /// Its parts and extents go with it.
    DELETE = "DELETE FROM disk_journals WHERE vm_disk_id = ?";
    /// The last run of finished bytes that begins at or before an offset.
    LAST_UP_TO = "SELECT vm_disk_id, start_offset, end_offset, checksum FROM disk_journal_extents \
                  WHERE vm_disk_id = ? AND start_offset <= ? ORDER BY start_offset DESC LIMIT 1";
    INSERT_EXTENT = "INSERT INTO disk_journal_extents (vm_disk_id, start_offset, end_offset, checksum) VALUES (?, ?, ?, ?)";
    DELETE_EXTENT = "DELETE FROM disk_journal_extents WHERE vm_disk_id = ? AND start_offset = ?";
}
