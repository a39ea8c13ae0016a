//! Labels of tables whose rows this program does not read as records yet; those of the others are found when they are read.

/// Columns of a table, and the labels that may stand there.
macro_rules! labels {
    ($($table:literal by $key:literal { $($column:literal: $labels:literal,)+ })+) => {
        super::rules! {$($table {$(
            "label", concat!("its ", $column, " {} is none that is known") => concat!(
                "SELECT ", $key, " AS row_key, ", $column, " AS found FROM ", $table,
                " WHERE ", $column, " NOT IN (", $labels, ")"
            );
        )+})+}
    };
}

labels! {
    "schedules" by "id" { "replication_type": "'initial', 'incremental'", }
    "failover_jobs" by "job_id" {
        "job_type": "'live', 'test'",
        "status": "'pending', 'validating', 'snapshotting', 'creating_vm', 'switching_volume', 'powering_on', 'completed', \
                   'reverting', 'reverted', 'failed', 'cleanup'",
    }
    "cleanup_steps" by "id" { "status": "'pending', 'executing', 'done', 'failed', 'refused'", }
    "job_steps" by "id" { "status": "'running', 'completed', 'failed', 'skipped'", }
    "users" by "id" { "role": "'viewer', 'operator', 'admin', 'agent'", }
    "access_tokens" by "id" {
        "kind": "'api', 'session'",
        "role": "'agent', 'viewer', 'operator', 'admin'",
    }
    "servers" by "id" { "status": "'active', 'maintenance', 'inactive'", }
    "jobs" by "job_id" { "status": "'pending', 'running', 'completed', 'failed', 'cancelled'", }
    "job_logs" by "id" { "stream": "'stdout', 'stderr'", }
    "tickets" by "ticket_id" {
        "status": "'open', 'in_progress', 'resolved', 'closed'",
        "priority": "'low', 'medium', 'high', 'critical'",
    }
}
