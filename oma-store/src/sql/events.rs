//! `log_events`.

use super::{rows, statements};

macro_rules! event {
    () => {
        "SELECT id, job_id, (SELECT s.seq FROM job_steps s WHERE s.id = log_events.step_id) AS step, level, message, attrs, ts \
         FROM log_events"
    };
}

macro_rules! insert {
    ($count:tt) => {
        concat!(
            "INSERT INTO log_events (job_id, step_id, level, message, attrs, ts) VALUES ",
            rows!($count, "(?, ?, ?, ?, ?, ?)")
        )
    };
}

statements! {
    INSERT_1 = insert!(1);
    INSERT_10 = insert!(10);
    INSERT_100 = insert!(100);

    AFTER = concat!(event!(), " WHERE id > ? ORDER BY id LIMIT ?");
    BEFORE = concat!(event!(), " WHERE id < ? ORDER BY id DESC LIMIT ?");
    /// Of one level: those of several are merged, each read through its own part of the index.
    OF_LEVEL_AFTER = concat!(event!(), " WHERE level = ? AND id > ? ORDER BY id LIMIT ?");
    OF_LEVEL_BEFORE = concat!(event!(), " WHERE level = ? AND id < ? ORDER BY id DESC LIMIT ?");
    OF_JOB_AFTER = concat!(event!(), " WHERE job_id = ? AND id > ? ORDER BY id LIMIT ?");
    OF_JOB_BEFORE = concat!(event!(), " WHERE job_id = ? AND id < ? ORDER BY id DESC LIMIT ?");
    /// Those of one job are few enough to be looked through; COALESCE keeps planners off the index of levels.
    OF_JOB_AND_LEVELS_AFTER = concat!(
        event!(),
        " WHERE job_id = ? AND COALESCE(level, '') IN (?, ?, ?) AND id > ? ORDER BY id LIMIT ?"
    );
    OF_JOB_AND_LEVELS_BEFORE = concat!(
        event!(),
        " WHERE job_id = ? AND COALESCE(level, '') IN (?, ?, ?) AND id < ? ORDER BY id DESC LIMIT ?"
    );
    /// Those of one step, among those of its job; COALESCE keeps planners off the index of steps, which has no order of lines.
    OF_STEP_AFTER = concat!(
        event!(),
        " WHERE job_id = ? AND COALESCE(step_id, 0) = ? AND COALESCE(level, '') IN (?, ?, ?, ?) AND id > ? ORDER BY id LIMIT ?"
    );
    OF_STEP_BEFORE = concat!(
        event!(),
        " WHERE job_id = ? AND COALESCE(step_id, 0) = ? AND COALESCE(level, '') IN (?, ?, ?, ?) AND id < ? \
         ORDER BY id DESC LIMIT ?"
    );

    NTH_NEWEST = "SELECT id FROM log_events WHERE id <= ? ORDER BY id DESC LIMIT 1 OFFSET ?";
    NTH_OLDEST = "SELECT id FROM log_events WHERE id <= ? ORDER BY id LIMIT 1 OFFSET ?";
    DELETE_UP_TO = "DELETE FROM log_events WHERE id <= ?";
    NTH_BEFORE = "SELECT id, ts FROM log_events WHERE ts < ? ORDER BY ts, id LIMIT 1 OFFSET ?";
    DELETE_BEFORE = "DELETE FROM log_events WHERE ts < ?";
    DELETE_AT = "DELETE FROM log_events WHERE ts = ? AND id <= ?";
    NTH_NEWEST_OF_JOB = "SELECT id FROM log_events WHERE job_id = ? AND id <= ? ORDER BY id DESC LIMIT 1 OFFSET ?";
    NTH_OLDEST_OF_JOB = "SELECT id FROM log_events WHERE job_id = ? AND id <= ? ORDER BY id LIMIT 1 OFFSET ?";
    DELETE_OF_JOB = "DELETE FROM log_events WHERE job_id = ? AND id <= ?";
}
