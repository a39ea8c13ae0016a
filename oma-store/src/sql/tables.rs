//! Every table as a list of columns, for moving a database as a whole.
//!
//! The order is the one in which rows can be inserted: what a row refers to comes before it, but for the links, which are
//! set when all rows are there. Generated columns are not among them, nor what is the database's own (`oma_meta`,
//! `oma_migrations`). A test compares the lists with the schema.

use super::{rows, statements};
use crate::batch::Insert;
use crate::db::{Sql, sql};

/// A table.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Table {
    pub(crate) name: &'static str,
    pub(crate) key: &'static str,
    pub(crate) columns: &'static [Column],
    /// A page of rows behind a key.
    pub(crate) page: Sql,
    pub(crate) insert: Insert,
    /// Sets the columns that refer to rows of later tables, in their order, of one row.
    pub(crate) link: Option<Sql>,
    /// Has the next row that is not moved numbered behind all that are, where the engine does not see to it.
    pub(crate) advance: Option<Sql>,
}

/// A column.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Column {
    pub(crate) name: &'static str,
    pub(crate) kind: Kind,
}

/// What stands in a column, on every engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Int,
    Text,
    Time,
    /// A text or number that refers to a row of a later table.
    LinkText,
    LinkInt,
}

impl Kind {
    pub(crate) const fn is_link(self) -> bool {
        matches!(self, Self::LinkText | Self::LinkInt)
    }
}

macro_rules! insert {
    ($count:tt, $table:literal, [$first:literal $($column:literal)*]) => {
        concat!(
            "INSERT INTO ", $table, " (", $first, $(", ", $column,)* ") VALUES ",
            rows!($count, concat!("(?", $($crate::sql::tables::mark!($column),)* ")"))
        )
    };
}

macro_rules! mark {
    ($column:literal) => {
        ", ?"
    };
}
use mark;

/// Makes the numbers of PostgreSQL's identity columns go on behind those that are there.
macro_rules! advance {
    ($table:literal, named $key:literal) => {
        None
    };
    ($table:literal, numbered $key:literal) => {
        Some(sql!(
            sqlite: "",
            mysql: "",
            postgres: concat!(
                "SELECT setval(pg_get_serial_sequence('", $table, "', '", $key, "'), (SELECT COALESCE(MAX(", $key,
                "), 0) + 1 FROM ", $table, "), false) AS next"
            ),
        ))
    };
}

/// `table by key, how it comes about, links { columns }`: a `numbered` key is given out by the database.
macro_rules! tables {
    ($($table:literal $kind:ident by $key:literal $(, links $link:literal)? {
        $first:literal: $first_kind:ident, $($column:literal: $column_kind:ident,)*
    })+) => {
        /// All tables, in the order of insertion.
        pub(crate) const TABLES: &[Table] = &[$(Table {
            name: $table,
            key: $key,
            columns: &[
                Column { name: $first, kind: Kind::$first_kind },
                $(Column { name: $column, kind: Kind::$column_kind },)*
            ],
            page: sql!(concat!(
                "SELECT ", $first, $(", ", $column,)* " FROM ", $table, " WHERE ", $key, " > ? ORDER BY ", $key, " LIMIT ?"
            )),
            insert: Insert {
                one: sql!(insert!(1, $table, [$first $($column)*])),
                ten: sql!(insert!(10, $table, [$first $($column)*])),
                hundred: sql!(insert!(100, $table, [$first $($column)*])),
            },
            link: tables!(@link $table $key $($link)?),
            advance: advance!($table, $kind $key),
        },)+];
    };
    (@link $table:literal $key:literal) => {
        None
    };
    (@link $table:literal $key:literal $link:literal) => {
        Some(sql!(concat!("UPDATE ", $table, " SET ", $link, " WHERE ", $key, " = ?")))
    };
}

tables! {
    "ossea_configs" numbered by "id" {
        "id": Int, "name": Text, "api_url": Text, "credential_ref": Text, "domain": Text, "zone": Text, "template_id": Text,
        "network_id": Text, "service_offering_id": Text, "disk_offering_id": Text, "oma_vm_id": Text, "is_active": Int,
        "created_at": Time, "updated_at": Time,
    }
    "schedules" named by "id" {
        "id": Text, "name": Text, "description": Text, "cron_expression": Text, "timezone": Text, "replication_type": Text,
        "max_concurrent_jobs": Int, "retry_attempts": Int, "retry_delay_minutes": Int, "skip_if_running": Int,
        "enabled": Int, "created_by": Text, "created_at": Time, "updated_at": Time,
    }
    "vm_replication_contexts" named by "context_id", links "current_job_id = ?, last_successful_job_id = ?" {
        "context_id": Text, "vmware_vm_id": Text, "vcenter_host": Text, "vm_name": Text, "vm_path": Text, "datacenter": Text,
        "current_status": Text, "epoch": Int, "current_job_id": LinkText, "last_successful_job_id": LinkText,
        "total_jobs_run": Int, "successful_jobs": Int, "failed_jobs": Int, "ossea_config_id": Int, "created_at": Time,
        "updated_at": Time, "last_status_change": Time,
    }
    "replication_jobs" numbered by "seq" {
        "seq": Int, "id": Text, "vm_context_id": Text, "source_vm_id": Text, "source_vm_name": Text, "source_vm_path": Text,
        "vcenter_host": Text, "datacenter": Text, "kind": Text, "replication_type": Text, "priority": Int, "target": Text,
        "target_network": Text, "status": Text, "epoch": Int, "disk_ids": Text, "bytes_transferred": Int,
        "total_bytes": Int, "error_message": Text, "commit_digest": Text, "ossea_config_id": Int, "schedule_id": Text,
        "owner": Text, "fence": Int, "attempts": Int, "due_at": Time, "request": Text, "wanted": Text, "progress": Text, "created_at": Time, "updated_at": Time,
        "started_at": Time, "completed_at": Time,
    }
    "vm_disks" numbered by "id", links "ossea_volume_id = ?" {
        "id": Int, "vm_context_id": Text, "job_id": Text, "disk_id": Text, "vm_dk_path": Text, "datastore": Text,
        "unit_number": Int, "label": Text, "capacity_bytes": Int, "provisioning_type": Text, "ossea_volume_id": LinkInt,
        "generation": Int, "disk_change_id": Text, "change_generation": Int, "change_endpoint": Text, "epoch": Int, "committed_bytes": Int,
        "zeroes_broken": Int,
        "sync_status": Text, "planned_bytes": Int, "bytes_synced": Int, "created_at": Time, "updated_at": Time,
    }
    "ossea_volumes" numbered by "id" {
        "id": Int, "volume_id": Text, "volume_name": Text, "vm_context_id": Text, "disk_id": Text, "capacity_bytes": Int,
        "generation": Int, "content": Text, "content_epoch": Int, "held_epoch": Int, "content_stamp": Text, "status": Text,
        "device_path": Text, "mount_point": Text, "volume_type": Text, "ossea_config_id": Int, "created_at": Time,
        "updated_at": Time,
    }
    "device_mappings" numbered by "id" {
        "id": Int, "volume_uuid": Text, "volume_id_numeric": Int, "vm_id": Text, "device_path": Text, "size": Int,
        "created_at": Time, "updated_at": Time,
    }
    "volume_operations" named by "id" {
        "id": Text, "type": Text, "status": Text, "vm_context_id": Text, "disk_id": Text, "job_id": Text,
        "worker": Text, "ossea_volume_id": Int, "made_volume_id": Int, "capacity_bytes": Int, "volume_name": Text, "provisioning": Text,
        "snapshot_id": Text, "error": Text, "due_at": Time, "created_at": Time, "updated_at": Time, "completed_at": Time,
    }
    "nbd_exports" numbered by "id" {
        "id": Int, "job_id": Text, "vm_disk_id": Int, "device_mapping_uuid": Text, "export_name": Text, "port": Int,
        "device_path": Text, "config_path": Text, "status": Text, "created_at": Time, "updated_at": Time,
    }
    "cbt_history" numbered by "id" {
        "id": Int, "vm_context_id": Text, "job_id": Text, "disk_id": Text, "change_id": Text, "previous_change_id": Text,
        "sync_type": Text, "blocks_changed": Int, "bytes_transferred": Int, "sync_duration_seconds": Int,
        "sync_success": Int, "created_at": Time,
    }
    "disk_journals" named by "vm_disk_id" {
        "vm_disk_id": Int, "basis": Text, "planned_parts": Int, "parts": Int, "checksum": Text, "created_at": Time,
    }
    "disk_journal_parts" named by "vm_disk_id" {
        "vm_disk_id": Int, "part": Int, "extents": Text,
    }
    "disk_journal_extents" named by "vm_disk_id" {
        "vm_disk_id": Int, "start_offset": Int, "end_offset": Int, "checksum": Text,
    }
    "verification_reports" named by "job_id" {
        "job_id": Text, "report": Text, "created_at": Time,
    }
    "recovery_points" named by "id" {
        "id": Text, "vm_context_id": Text, "job_id": Text, "epoch": Int, "status": Text, "volumes": Text, "reason": Text,
        "created_at": Time, "updated_at": Time,
    }
    "failover_jobs" numbered by "id" {
        "id": Int, "job_id": Text, "vm_context_id": Text, "vm_id": Text, "replication_job_id": Text, "job_type": Text,
        "status": Text, "source_vm_name": Text, "source_vm_spec": Text, "destination_vm_id": Text,
        "ossea_snapshot_id": Text, "network_mappings": Text, "error_message": Text, "created_at": Time, "updated_at": Time,
        "started_at": Time, "completed_at": Time,
    }
    "cleanups" numbered by "seq" {
        "seq": Int, "id": Text, "job_id": Text, "vm_context_id": Text, "worker": Text, "plan": Text, "status": Text,
        "leftovers": Text, "error_message": Text, "created_at": Time, "updated_at": Time,
    }
    "cleanup_steps" numbered by "id" {
        "id": Int, "cleanup_id": Text, "seq": Int, "name": Text, "status": Text, "failures": Int, "operation_id": Text,
        "error_message": Text, "updated_at": Time,
    }
    "network_mappings" numbered by "id" {
        "id": Int, "vm_context_id": Text, "source_network_name": Text, "destination_network_id": Text,
        "destination_network_name": Text, "is_test_network": Int, "created_at": Time, "updated_at": Time,
    }
    "job_steps" numbered by "id" {
        "id": Int, "job_id": Text, "name": Text, "seq": Int, "status": Text, "error_message": Text, "metadata": Text,
        "started_at": Time, "completed_at": Time,
    }
    "log_events" numbered by "id" {
        "id": Int, "job_id": Text, "step_id": Int, "level": Text, "message": Text, "attrs": Text, "ts": Time,
    }
    "users" numbered by "id" {
        "id": Int, "email": Text, "password_hash": Text, "full_name": Text, "role": Text, "is_active": Int,
        "last_login_at": Time, "created_at": Time, "updated_at": Time,
    }
    "access_tokens" named by "id" {
        "id": Text, "user_id": Int, "kind": Text, "name": Text, "role": Text, "token_hash": Text, "ip_address": Text,
        "created_at": Time, "expires_at": Time, "last_used_at": Time, "revoked_at": Time,
    }
    "token_jobs" numbered by "id" {
        "id": Int, "token_id": Text, "job_id": Text,
    }
    "login_attempts" named by "subject" {
        "subject": Text, "attempts": Int, "until_at": Time,
    }
    "servers" numbered by "id" {
        "id": Int, "hostname": Text, "ip_address": Text, "os_type": Text, "environment": Text, "status": Text,
        "description": Text, "tags": Text, "created_at": Time, "updated_at": Time,
    }
    "playbooks" numbered by "id" {
        "id": Int, "name": Text, "file_path": Text, "description": Text, "variables": Text, "is_active": Int,
        "created_at": Time, "updated_at": Time,
    }
    "jobs" numbered by "id" {
        "id": Int, "job_id": Text, "user_id": Int, "server_id": Int, "playbook_id": Int, "status": Text, "extra_vars": Text,
        "exit_code": Int, "error_message": Text, "created_at": Time, "updated_at": Time, "started_at": Time,
        "completed_at": Time,
    }
    "job_logs" numbered by "id" {
        "id": Int, "job_id": Int, "line_number": Int, "stream": Text, "content": Text, "ts": Time,
    }
    "tickets" numbered by "id" {
        "id": Int, "ticket_id": Text, "job_id": Int, "user_id": Int, "assigned_to": Int, "title": Text, "description": Text,
        "status": Text, "priority": Text, "resolution": Text, "created_at": Time, "updated_at": Time, "resolved_at": Time,
        "closed_at": Time,
    }
    "audit_logs" numbered by "id" {
        "id": Int, "user_id": Int, "actor": Text, "action": Text, "resource_type": Text, "resource_id": Text, "details": Text,
        "ip_address": Text, "ts": Time, "previous_hash": Text, "hash": Text,
    }
    "audit_chain" named by "name" {
        "name": Text, "last_id": Int, "last_hash": Text, "last_ts": Time, "pruned_through": Int,
    }
}

/// A table whose key has two columns: its pages go by the second within the first.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Paired {
    pub(crate) name: &'static str,
    /// A page of the rows of one disk behind a second key.
    pub(crate) within: Sql,
    /// The first rows of later disks.
    pub(crate) behind: Sql,
}

/// All tables of this kind.
pub(crate) const PAIRED: [Paired; 2] = [
    Paired { name: "disk_journal_parts", within: PARTS_WITHIN, behind: PARTS_BEHIND },
    Paired { name: "disk_journal_extents", within: EXTENTS_WITHIN, behind: EXTENTS_BEHIND },
];

statements! {
    PARTS_WITHIN = "SELECT vm_disk_id, part, extents FROM disk_journal_parts \
                    WHERE vm_disk_id = ? AND part > ? ORDER BY part LIMIT ?";
    PARTS_BEHIND = "SELECT vm_disk_id, part, extents FROM disk_journal_parts WHERE vm_disk_id > ? \
                    ORDER BY vm_disk_id, part LIMIT ?";
    EXTENTS_WITHIN = "SELECT vm_disk_id, start_offset, end_offset, checksum FROM disk_journal_extents \
                      WHERE vm_disk_id = ? AND start_offset > ? ORDER BY start_offset LIMIT ?";
    EXTENTS_BEHIND = "SELECT vm_disk_id, start_offset, end_offset, checksum FROM disk_journal_extents WHERE vm_disk_id > ? \
                      ORDER BY vm_disk_id, start_offset LIMIT ?";
    /// A lease that has not ended.
    LEASED = "SELECT id, owner, due_at FROM replication_jobs WHERE owner IS NOT NULL AND due_at > ? LIMIT 1";
    SCHEMA = "SELECT MAX(version) AS version FROM oma_migrations";
    /// The database becomes another deployment's.
    BECOME = "UPDATE oma_meta SET value = ? WHERE name = ?";
}
