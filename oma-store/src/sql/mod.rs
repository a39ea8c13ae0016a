//! Every statement of the store, in the subset that SQLite, MariaDB, MySQL and PostgreSQL share.
//!
//! Rules: `?` for values and never a literal from outside; no RETURNING, no upsert, no JSON function, no row value; whoever
//! writes for a job locks its row first with [`jobs::GUARD`]. A test prepares each statement and reads its query plan.

pub(crate) mod changes;
pub(crate) mod exports;
pub(crate) mod jobs;
pub(crate) mod journals;
pub(crate) mod meta;
pub(crate) mod operations;
pub(crate) mod vms;
pub(crate) mod volumes;

/// Named statements, and the table of them all that the tests walk.
macro_rules! statements {
    ($($(#[$doc:meta])* $name:ident = $text:expr;)+) => {
        $($(#[$doc])* pub(crate) const $name: $crate::db::Sql = $crate::db::sql!($text);)+

        #[cfg(test)]
        pub(crate) const ALL: &[(&str, $crate::db::Sql)] = &[$((stringify!($name), $name),)+];
    };
}
pub(crate) use statements;

/// The states of a job that has not ended; the same words as in the partial index `ux_jobs_live`.
macro_rules! live {
    () => {
        "status NOT IN ('completed', 'failed', 'cancelled')"
    };
}
pub(crate) use live;

#[cfg(test)]
mod tests;
