//! What must be true of the rows taken together: a statement for each way to be untrue.
//!
//! A statement answers `row_key`, which row it is, and `found`, what stands there. It judges by labels that it knows: a row
//! with another one is told as such, once. These statements walk through whole tables; no others do.

mod exports;
mod jobs;
mod labels;
mod orphans;
mod vms;
mod volumes;

use crate::db::Sql;

/// A way to be untrue, and how it is found.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rule {
    pub(crate) name: &'static str,
    pub(crate) table: &'static str,
    /// What is wrong; `{}` is what was found.
    pub(crate) says: &'static str,
    pub(crate) sql: Sql,
}

/// All of them.
pub(crate) const RULES: &[&[Rule]] =
    &[orphans::RULES, labels::RULES, volumes::RULES, exports::RULES, vms::RULES, jobs::RULES];

/// Rules of tables: `name, what is wrong => statement`. None answers more than 1000 rows: a database that lost a table is
/// told as such.
macro_rules! rules {
    ($($table:literal { $($name:literal, $says:expr => $sql:expr;)+ })+) => {
        pub(super) const RULES: &[super::Rule] = &[$($(super::Rule {
            name: $name,
            table: $table,
            says: $says,
            sql: $crate::db::sql!(concat!($sql, " LIMIT 1000")),
        },)+)+];
    };
}
use rules;

/// The states of a job that has not ended.
macro_rules! live {
    ($column:literal) => {
        concat!($column, " IN ('initializing', 'provisioning', 'ready', 'replicating', 'finalizing')")
    };
}
use live;

/// The states of a job that has ended.
macro_rules! ended {
    ($column:literal) => {
        concat!($column, " IN ('completed', 'failed', 'cancelled')")
    };
}
use ended;

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use oma_core::state::JobStatus;

    use super::*;
    use crate::check::RULES as TOLD;

    #[test]
    fn the_states_of_jobs_are_named_once_each() {
        for status in JobStatus::ALL {
            let list = if status.is_terminal() { ended!("status") } else { live!("status") };
            assert!(list.contains(&format!("'{status}'")), "{status}");
        }
        let names = [live!("status"), ended!("status")].concat();
        assert_eq!(names.matches('\'').count(), 2 * JobStatus::ALL.len());
    }

    #[test]
    fn every_rule_is_told_to_operators() {
        let names: BTreeSet<&str> = RULES.iter().copied().flatten().map(|rule| rule.name).collect();
        let told: BTreeSet<&str> = TOLD.iter().map(|(name, _)| *name).collect();
        assert_eq!(told.len(), TOLD.len());
        let elsewhere = BTreeSet::from(["audit-trail", "check", "unreadable", "incomplete-history"]);
        assert_eq!(names.union(&elsewhere).copied().collect::<BTreeSet<_>>(), told);
        let document = include_str!("../../../../docs/database.md");
        for (name, meaning) in TOLD {
            assert!(document.contains(&format!("| `{name}` | {meaning} |")), "{name}");
        }
    }
}
