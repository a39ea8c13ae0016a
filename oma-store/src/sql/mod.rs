//! Every statement of the store, in the subset that SQLite, MariaDB, MySQL and PostgreSQL share.
//!
//! Rules: `?` for values and never a literal from outside; no RETURNING, no upsert, no JSON function, no row value. A test
//! prepares each statement on each engine and reads its query plan.
//!
//! Servers have several writers (READ COMMITTED), so what was read may be old when it is written upon. Whoever writes for
//! a job locks its row first with [`jobs::GUARD`]; who begins a job, its VM's with [`vms::LOCK`]; all else is guarded by a
//! unique key, or by the predicate of the statement that writes.

pub(crate) mod accounts;
pub(crate) mod audit;
pub(crate) mod changes;
pub(crate) mod checks;
pub(crate) mod cleanups;
pub(crate) mod events;
pub(crate) mod exports;
pub(crate) mod jobs;
pub(crate) mod journals;
pub(crate) mod lines;
pub(crate) mod meta;
pub(crate) mod operations;
pub(crate) mod overview;
pub(crate) mod points;
pub(crate) mod reports;
pub(crate) mod steps;
pub(crate) mod tables;
pub(crate) mod vms;
pub(crate) mod volumes;

/// Named statements, and the table of them all that the tests walk.
///
/// `NAME = "…"` is the same on every engine, `NAME(locking) = "…"` locks the rows that it finds, `NAME = "…", mysql: "…"`
/// is another on the engines named (see [`sql!`](crate::db::sql)).
macro_rules! statements {
    ($($(#[$doc:meta])* $name:ident $(($form:ident))? = $text:expr $(, $engine:ident: $other:expr)*;)+) => {
        $($(#[$doc])* pub(crate) const $name: $crate::db::Sql =
            $crate::db::sql!($($form)? $text $(, $engine: $other)*);)+

        #[cfg(any(test, feature = "servers"))]
        pub(crate) const ALL: &[(&str, $crate::db::Sql)] = &[$((stringify!($name), $name),)+];
    };
}
pub(crate) use statements;

/// Every statement with its name.
#[cfg(any(test, feature = "servers"))]
pub(crate) fn all() -> impl Iterator<Item = (&'static str, crate::db::Sql)> {
    let modules = [
        accounts::ALL,
        audit::ALL,
        changes::ALL,
        cleanups::ALL,
        events::ALL,
        exports::ALL,
        jobs::ALL,
        journals::ALL,
        lines::ALL,
        meta::ALL,
        operations::ALL,
        overview::ALL,
        points::ALL,
        reports::ALL,
        steps::ALL,
        tables::ALL,
        vms::ALL,
        volumes::ALL,
    ];
    modules.into_iter().flatten().copied()
}

/// The placeholders of one row, so many times: `VALUES` of an insert in batches.
macro_rules! rows {
    (1, $row:expr) => {
        $row
    };
    (10, $row:expr) => {
        concat!(
            $row, ", ", $row, ", ", $row, ", ", $row, ", ", $row, ", ", $row, ", ", $row, ", ", $row, ", ",
            $row, ", ", $row
        )
    };
    (100, $row:expr) => {
        $crate::sql::rows!(10, $crate::sql::rows!(10, $row))
    };
}
pub(crate) use rows;

#[cfg(test)]
mod tests;
