//! Everything in numbers. The columns are named by the states that they count.

use super::statements;

macro_rules! vms {
    ($($status:literal)+) => {
        concat!("SELECT 1 AS id", $(
            ", (SELECT COUNT(*) FROM vm_replication_contexts WHERE current_status = '", $status, "') AS ", $status,
        )+)
    };
}

macro_rules! live_jobs {
    ($($status:literal)+) => {
        concat!(
            "SELECT COUNT(*) AS id",
            $(", COUNT(CASE WHEN status = '", $status, "' THEN 1 END) AS ", $status,)+
            " FROM replication_jobs WHERE live = 1"
        )
    };
}

/// Servers answer sums as decimals unless told otherwise.
macro_rules! ended_jobs {
    ($whole:literal: $($status:literal)+) => {
        concat!(
            "SELECT COUNT(*) AS id",
            $(
                ", COUNT(CASE WHEN status = '", $status, "' THEN 1 END) AS ", $status,
                ", CAST(COALESCE(SUM(CASE WHEN status = '", $status, "' THEN bytes_transferred END), 0) AS ",
                $whole, ") AS ", $status, "_bytes",
            )+
            " FROM replication_jobs WHERE completed_at >= ?"
        )
    };
}

statements! {
    VMS = vms!("discovered" "replicating" "ready_for_failover" "failed_over_test" "failed_over_live" "completed"
        "failed" "cleanup_required");
    LIVE = live_jobs!("initializing" "provisioning" "ready" "replicating" "finalizing");
    ENDED = ended_jobs!("BIGINT": "completed" "failed" "cancelled"),
        mysql: ended_jobs!("SIGNED": "completed" "failed" "cancelled");
    /// Without those that revert or operate: whoever asked for one drives it.
    WAITING = "SELECT COUNT(*) AS waiting, MIN(due_at) AS oldest_due FROM replication_jobs \
               WHERE due_at <= ? AND kind = 'replicate'";
}
