//! Rows that refer to a row that is not there. The keys forbid them, unless somebody switched the keys off.

/// Columns of a table, and what they refer to.
macro_rules! orphans {
    ($($table:literal by $key:literal { $($column:literal -> $parent:literal . $parent_key:literal,)+ })+) => {
        super::rules! {$($table {$(
            "orphan", concat!("its ", $column, " {} is not in ", $parent) => concat!(
                "SELECT c.", $key, " AS row_key, c.", $column, " AS found FROM ", $table, " c \
                 LEFT JOIN ", $parent, " p ON p.", $parent_key, " = c.", $column,
                " WHERE c.", $column, " IS NOT NULL AND p.", $parent_key, " IS NULL"
            );
        )+})+
        "ossea_volumes" {
            "orphan", "its disk {} is not in vm_disks" =>
                "SELECT v.volume_id AS row_key, v.disk_id AS found FROM ossea_volumes v \
                 LEFT JOIN vm_disks d ON d.vm_context_id = v.vm_context_id AND d.disk_id = v.disk_id WHERE d.id IS NULL";
        }
        "volume_operations" {
            "orphan", "its disk {} is not in vm_disks" =>
                "SELECT o.id AS row_key, o.disk_id AS found FROM volume_operations o \
                 LEFT JOIN vm_disks d ON d.vm_context_id = o.vm_context_id AND d.disk_id = o.disk_id WHERE d.id IS NULL";
        }}
    };
}

orphans! {
    "vm_replication_contexts" by "context_id" {
        "current_job_id" -> "replication_jobs"."id",
        "last_successful_job_id" -> "replication_jobs"."id",
        "ossea_config_id" -> "ossea_configs"."id",
    }
    "replication_jobs" by "id" {
        "vm_context_id" -> "vm_replication_contexts"."context_id",
        "ossea_config_id" -> "ossea_configs"."id",
        "schedule_id" -> "schedules"."id",
    }
    "vm_disks" by "id" {
        "vm_context_id" -> "vm_replication_contexts"."context_id",
        "job_id" -> "replication_jobs"."id",
        "ossea_volume_id" -> "ossea_volumes"."id",
    }
    "ossea_volumes" by "volume_id" {
        "ossea_config_id" -> "ossea_configs"."id",
    }
    "device_mappings" by "volume_uuid" {
        "volume_uuid" -> "ossea_volumes"."volume_id",
    }
    "volume_operations" by "id" {
        "ossea_volume_id" -> "ossea_volumes"."id",
        "made_volume_id" -> "ossea_volumes"."id",
    }
    "nbd_exports" by "export_name" {
        "job_id" -> "replication_jobs"."id",
        "vm_disk_id" -> "vm_disks"."id",
        "device_mapping_uuid" -> "device_mappings"."volume_uuid",
    }
    "cbt_history" by "id" {
        "vm_context_id" -> "vm_replication_contexts"."context_id",
        "job_id" -> "replication_jobs"."id",
    }
    "disk_journals" by "vm_disk_id" {
        "vm_disk_id" -> "vm_disks"."id",
    }
    "disk_journal_parts" by "vm_disk_id" {
        "vm_disk_id" -> "disk_journals"."vm_disk_id",
    }
    "disk_journal_extents" by "vm_disk_id" {
        "vm_disk_id" -> "disk_journals"."vm_disk_id",
    }
    "verification_reports" by "job_id" {
        "job_id" -> "replication_jobs"."id",
    }
    "recovery_points" by "id" {
        "vm_context_id" -> "vm_replication_contexts"."context_id",
    }
    "failover_jobs" by "job_id" {
        "vm_context_id" -> "vm_replication_contexts"."context_id",
        "replication_job_id" -> "replication_jobs"."id",
    }
    "cleanups" by "id" {
        "vm_context_id" -> "vm_replication_contexts"."context_id",
    }
    "cleanup_steps" by "id" {
        "cleanup_id" -> "cleanups"."id",
    }
    "network_mappings" by "id" {
        "vm_context_id" -> "vm_replication_contexts"."context_id",
    }
    "job_steps" by "id" {
        "job_id" -> "replication_jobs"."id",
    }
    "log_events" by "id" {
        "job_id" -> "replication_jobs"."id",
        "step_id" -> "job_steps"."id",
    }
    "access_tokens" by "id" {
        "user_id" -> "users"."id",
    }
    "token_jobs" by "id" {
        "token_id" -> "access_tokens"."id",
        "job_id" -> "replication_jobs"."id",
    }
    "jobs" by "job_id" {
        "user_id" -> "users"."id",
        "server_id" -> "servers"."id",
        "playbook_id" -> "playbooks"."id",
    }
    "job_logs" by "id" {
        "job_id" -> "jobs"."id",
    }
    "tickets" by "ticket_id" {
        "job_id" -> "jobs"."id",
        "user_id" -> "users"."id",
        "assigned_to" -> "users"."id",
    }
    "audit_logs" by "id" {
        "user_id" -> "users"."id",
    }
}

#[cfg(test)]
mod tests {
    use super::RULES;

    #[test]
    fn every_foreign_key_has_its_rule() {
        let schema = [
            include_str!("../../../migrations/mysql/0001_replication.sql"),
            include_str!("../../../migrations/mysql/0002_automation.sql"),
            include_str!("../../../migrations/mysql/0003_journal.sql"),
            include_str!("../../../migrations/mysql/0004_reports.sql"),
            include_str!("../../../migrations/mysql/0005_points.sql"),
            include_str!("../../../migrations/mysql/0008_accounts.sql"),
            include_str!("../../../migrations/mysql/0011_cleanups.sql"),
        ];
        // The keys of journals and of their extents stand there twice: step 3 made both tables anew.
        let keys = schema.concat().matches("FOREIGN KEY").count() - 2;
        assert_eq!(RULES.len(), keys);
    }
}
