//! `verification_reports`.

use super::statements;

statements! {
    OF_JOB = "SELECT job_id, report FROM verification_reports WHERE job_id = ?";
    /// Every row.
    SCAN = "SELECT job_id, report FROM verification_reports WHERE job_id > ? ORDER BY job_id LIMIT ?";
    INSERT = "INSERT INTO verification_reports (job_id, report, created_at) VALUES (?, ?, ?)";
    DELETE = "DELETE FROM verification_reports WHERE job_id = ?";
}
