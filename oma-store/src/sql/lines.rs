//! `job_logs`, and the rows of `jobs` that they hang on.

use super::{rows, statements};

macro_rules! line {
    () => {
        "SELECT job_id, line_number, stream, content, ts FROM job_logs"
    };
}

macro_rules! insert {
    ($count:tt) => {
        concat!(
            "INSERT INTO job_logs (job_id, line_number, stream, content, ts) VALUES ",
            rows!($count, "(?, ?, ?, ?, ?)")
        )
    };
}

statements! {
    RUN = "SELECT id FROM jobs WHERE job_id = ?";
    /// The number of a run; its row stays locked, so that nobody else numbers lines of it.
    LOCK_RUN = "SELECT id FROM jobs WHERE job_id = ?",
        mysql: "SELECT id FROM jobs WHERE job_id = ? FOR UPDATE",
        postgres: "SELECT id FROM jobs WHERE job_id = ? FOR NO KEY UPDATE";

    INSERT_1 = insert!(1);
    INSERT_10 = insert!(10);
    INSERT_100 = insert!(100);

    /// Of a hundred numbers those that are there. They are also said to lie between two: PostgreSQL looks through all of a
    /// run that it takes for a short one, as every run was when it was last analysed.
    NUMBERED = concat!(
        line!(),
        " WHERE job_id = ? AND line_number >= ? AND line_number <= ? AND line_number IN (",
        rows!(100, "?"),
        ")"
    );
    AFTER = concat!(line!(), " WHERE job_id = ? AND line_number > ? ORDER BY line_number LIMIT ?");

    NTH_NEWEST = "SELECT id FROM job_logs WHERE id <= ? ORDER BY id DESC LIMIT 1 OFFSET ?";
    NTH_OLDEST = "SELECT id FROM job_logs WHERE id <= ? ORDER BY id LIMIT 1 OFFSET ?";
    DELETE_UP_TO = "DELETE FROM job_logs WHERE id <= ?";
    NTH_BEFORE = "SELECT id, ts FROM job_logs WHERE ts < ? ORDER BY ts, id LIMIT 1 OFFSET ?";
    DELETE_BEFORE = "DELETE FROM job_logs WHERE ts < ?";
    DELETE_AT = "DELETE FROM job_logs WHERE ts = ? AND id <= ?";
}
