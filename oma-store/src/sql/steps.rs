//! `job_steps`.

use super::statements;

macro_rules! step {
    () => {
        "SELECT id, job_id, seq, name, status, error_message, metadata, started_at, completed_at FROM job_steps"
    };
}

statements! {
    LAST = concat!(step!(), " WHERE job_id = ? ORDER BY seq DESC LIMIT 1");
    AFTER = concat!(step!(), " WHERE job_id = ? AND seq > ? ORDER BY seq LIMIT ?");
    ID = "SELECT id FROM job_steps WHERE job_id = ? AND seq = ?";
    INSERT = "INSERT INTO job_steps (job_id, seq, name, status, metadata, started_at) VALUES (?, ?, ?, ?, ?, ?)";
    END = "UPDATE job_steps SET status = ?, completed_at = ?, error_message = ? WHERE job_id = ? AND seq = ?";
}
