//! `recovery_points`.

use super::statements;

macro_rules! point {
    () => {
        "SELECT id, vm_context_id, job_id, epoch, status, volumes, reason, created_at, updated_at FROM recovery_points"
    };
}

statements! {
    BY_ID = concat!(point!(), " WHERE id = ?");
    /// Those of a VM, newest first.
    PAGE = concat!(
        point!(),
        " WHERE vm_context_id = ? AND (epoch < ? OR (epoch = ? AND id < ?)) ORDER BY epoch DESC, id DESC LIMIT ?"
    );
    /// How many ready ones of a VM are newer than one of them.
    NEWER_READY = "SELECT COUNT(*) AS newer FROM recovery_points \
                   WHERE vm_context_id = ? AND status = 'ready' AND (epoch > ? OR (epoch = ? AND id > ?))";
    /// Every row.
    SCAN = concat!(point!(), " WHERE id > ? ORDER BY id LIMIT ?");
    INSERT = "INSERT INTO recovery_points (id, vm_context_id, job_id, epoch, status, volumes, created_at, updated_at) \
              VALUES (?, ?, ?, ?, ?, ?, ?, ?)";
    SET_STATUS = "UPDATE recovery_points SET status = ?, reason = ?, updated_at = ? WHERE id = ?";
    /// Those of a job that are not ready.
    GIVE_UP = "UPDATE recovery_points SET status = ?, reason = ?, updated_at = ? \
               WHERE job_id = ? AND status IN ('creating', 'taken')";
    COMMIT = "UPDATE recovery_points SET status = ?, updated_at = ? WHERE job_id = ? AND status = 'taken'";
    DELETE = "DELETE FROM recovery_points WHERE id = ?";
}
