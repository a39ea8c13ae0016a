//! Every statement is prepared against the real schema, and none walks through a table that grows.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use oma_core::state::{
    ContextStatus, DiskStatus, ExportStatus, JobKind, JobStatus, LineStream, LogLevel, OperationKind,
    OperationStatus, PointStatus, ReplicationType, Role, StepStatus, TokenKind, VolumeStatus, Wanted,
};
use sqlx::{Connection, Executor, Row, SqlSafeStr, SqliteConnection};

use super::{all, operations, vms, volumes};
use crate::db::Sql;
use crate::dialect::Dialect;
use crate::{SqlStore, StoreConfig};

/// The texts that hold the labels, one for each engine.
const SCHEMAS: [(&str, &str); 3] = [
    ("sqlite", include_str!("../../migrations/sqlite/0001_replication.sql")),
    ("mysql", include_str!("../../migrations/mysql/0001_replication.sql")),
    ("postgres", include_str!("../../migrations/postgres/0001_replication.sql")),
];

async fn migrated() -> (tempfile::TempDir, SqliteConnection) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("oma.db");
    let config = StoreConfig { url: format!("sqlite://{}", path.display()), ..StoreConfig::default() };
    SqlStore::open(&config).await.unwrap().close().await;
    let connection = SqliteConnection::connect(&config.url).await.unwrap();
    (folder, connection)
}

#[tokio::test]
async fn every_statement_is_taken_by_the_database() {
    let (_folder, mut connection) = migrated().await;
    for (name, sql) in all() {
        let text = sql.text(Dialect::Sqlite);
        let prepared = (&mut connection).prepare(text.into_sql_str()).await;
        assert!(prepared.is_ok(), "{name}: {}", prepared.err().unwrap());
    }
}

#[tokio::test]
async fn no_statement_walks_through_a_table_that_grows() {
    let (_folder, mut connection) = migrated().await;
    assert_none_walks(&mut connection).await;
}

/// What ANALYZE found in 100,000 jobs of 1,000 VMs, every other one of which has one that is live.
#[tokio::test]
async fn no_statement_walks_whatever_statistics_say() {
    const FOUND: [&str; 15] = [
        "replication_jobs ix_jobs_ended 100000 1 1 1",
        "replication_jobs ix_jobs_owner 100000 50000 204",
        "replication_jobs ix_jobs_queue 100000 50000 16667 1 1",
        "replication_jobs ix_jobs_path 100000 100",
        "replication_jobs ix_jobs_due 500 1 1",
        "replication_jobs ix_jobs_context 100000 100 1",
        "replication_jobs ux_jobs_live 100000 100 67",
        "replication_jobs sqlite_autoindex_replication_jobs_1 100000 1",
        "log_events ix_log_level 1000000 333334 1",
        "log_events ix_log_ts 1000000 1 1",
        "log_events ix_log_job 1000000 10 1",
        "job_logs ix_job_logs_ts 1000000 1 1",
        "job_logs ux_job_logs_line 1000000 10 1",
        "cbt_history ix_history_disk 200000 200 100 1",
        "cbt_history sqlite_autoindex_cbt_history_1 200000 2 1",
    ];
    let (folder, mut connection) = migrated().await;
    connection.execute("ANALYZE").await.unwrap();
    for found in FOUND {
        let mut words = found.splitn(3, ' ');
        let mut insert = sqlx::query("INSERT INTO sqlite_stat1 (tbl, idx, stat) VALUES (?, ?, ?)");
        for _ in 0..3 {
            insert = insert.bind(words.next());
        }
        insert.execute(&mut connection).await.unwrap();
    }
    connection.close().await.unwrap();
    // They are read when a connection is made.
    let path = folder.path().join("oma.db");
    let mut connection = SqliteConnection::connect(&format!("sqlite://{}", path.display())).await.unwrap();
    assert_none_walks(&mut connection).await;
}

async fn assert_none_walks(connection: &mut SqliteConnection) {
    for (name, sql) in all() {
        // The steps of the schema are few.
        if name == "MIGRATIONS" {
            continue;
        }
        let explain = sqlx::AssertSqlSafe(format!("EXPLAIN QUERY PLAN {}", sql.text(Dialect::Sqlite)));
        for row in sqlx::query(explain).fetch_all(&mut *connection).await.unwrap() {
            let detail: String = row.get("detail");
            let is_given = detail.contains("CONSTANT ROW") || detail.ends_with("VALUES CLAUSE");
            let walks = detail.starts_with("SCAN") && !is_given;
            assert!(!walks && !detail.contains("TEMP B-TREE"), "{name}: {detail}");
        }
    }
}

/// 40,000 VMs, volumes and operations, each numbered.
const MANY: &str = "PRAGMA foreign_keys = OFF; \
    CREATE TEMP TABLE n AS WITH RECURSIVE n (i) AS (SELECT 10000 UNION ALL SELECT i + 1 FROM n WHERE i < 49999) SELECT i FROM n; \
    INSERT INTO vm_replication_contexts (context_id, vmware_vm_id, vcenter_host, vm_name, vm_path, created_at, updated_at, \
    last_status_change) SELECT i, i, 'vc', 'web', '/web', 0, 0, 0 FROM n; \
    INSERT INTO ossea_volumes (volume_id, volume_name, vm_context_id, disk_id, capacity_bytes, generation, content, status, \
    created_at, updated_at) SELECT i, 'web', i, 'disk-0', 1, 1, 'blank', 'attached', 0, 0 FROM n; \
    INSERT INTO device_mappings (volume_uuid, vm_id, device_path, size, created_at, updated_at) \
    SELECT i, 'appliance-' || (i % 100), '/dev/' || i, 1, 0, 0 FROM n; \
    INSERT INTO volume_operations (id, type, status, vm_context_id, disk_id, job_id, made_volume_id, created_at, updated_at, \
    completed_at) SELECT i, 'create', 'completed', i, 'disk-0', i, (SELECT v.id FROM ossea_volumes v WHERE v.volume_id = i), \
    i / 10, 0, 0 FROM n; \
    ANALYZE";

/// How many instructions SQLite carries out for a statement, and how many rows that answers.
async fn cost(connection: &mut SqliteConnection, sql: Sql, values: &[&str]) -> (usize, usize) {
    let steps = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&steps);
    connection.lock_handle().await.unwrap().set_progress_handler(1, move || {
        counted.fetch_add(1, Ordering::Relaxed);
        true
    });
    let mut query = sqlx::query(sql.text(Dialect::Sqlite).into_sql_str());
    for value in values {
        query = match value.parse::<i64>() {
            Ok(number) => query.bind(number),
            Err(_) => query.bind(value.trim_matches('\'')),
        };
    }
    let rows = query.fetch_all(&mut *connection).await.unwrap().len();
    connection.lock_handle().await.unwrap().remove_progress_handler();
    (steps.load(Ordering::Relaxed), rows)
}

#[tokio::test]
async fn a_page_costs_the_same_wherever_in_40000_rows_it_begins() {
    let (_folder, mut connection) = migrated().await;
    sqlx::raw_sql(MANY).execute(&mut connection).await.unwrap();
    let connection = &mut connection;
    let mut costs = Vec::new();
    for at in ["'10299'", "'29999'", "'49799'"] {
        for (name, sql) in [("vms", vms::PAGE), ("volumes", volumes::PAGE)] {
            costs.push((name, cost(connection, sql, &[at, "200"]).await));
        }
        let moment = &at[1..5];
        costs.push(("operations", cost(connection, operations::NEWEST, &[moment, moment, at, "200"]).await));
    }
    for list in ["vms", "volumes", "operations"] {
        let of_list = || costs.iter().filter(|(name, _)| *name == list).map(|(_, cost)| *cost);
        assert!(of_list().all(|(_, rows)| rows == 200), "{costs:?}");
        let (least, most) = (of_list().min().unwrap().0, of_list().max().unwrap().0);
        assert!(most <= least + least / 10 && most < 200 * 100, "{costs:?}");
    }
    let (steps, rows) = cost(connection, volumes::AT_DEVICE, &["'appliance-77'", "'/dev/41077'"]).await;
    assert!(rows == 1 && steps < 200, "{steps} steps, {rows} rows");
}

#[tokio::test]
async fn every_foreign_key_has_an_index_on_its_own_side() {
    let (_folder, mut connection) = migrated().await;
    let keys = "SELECT m.name AS child, f.id AS number, group_concat(f.\"from\" || ' = ?', ' AND ') AS columns \
                FROM sqlite_schema m, pragma_foreign_key_list(m.name) f WHERE m.type = 'table' GROUP BY m.name, f.id";
    let keys = sqlx::query(keys).fetch_all(&mut connection).await.unwrap();
    assert!(keys.len() > 20, "{} foreign keys", keys.len());
    for key in keys {
        let (child, columns): (String, String) = (key.get("child"), key.get("columns"));
        let explain =
            sqlx::AssertSqlSafe(format!("EXPLAIN QUERY PLAN SELECT 1 FROM {child} WHERE {columns}"));
        let plan: String = sqlx::query(explain).fetch_one(&mut connection).await.unwrap().get("detail");
        assert!(plan.starts_with("SEARCH"), "{child} ({columns}): {plan}");
    }
}

#[test]
fn checks_of_the_schema_know_every_label() {
    fn list<T: std::fmt::Display>(values: &[T]) -> String {
        values.iter().map(|value| format!("'{value}'")).collect::<Vec<_>>().join(", ")
    }
    for (column, labels) in [
        ("current_status", list(ContextStatus::ALL)),
        ("replication_type", list(ReplicationType::ALL)),
        ("sync_type", list(ReplicationType::ALL)),
        ("sync_status", list(DiskStatus::ALL)),
        ("status", list(JobStatus::ALL)),
        ("status", list(VolumeStatus::ALL)),
        ("status", list(OperationStatus::ALL)),
        ("status", list(ExportStatus::ALL)),
        ("level", list(LogLevel::ALL)),
        ("status", list(StepStatus::ALL)),
    ] {
        let check = format!("CHECK ({column} IN ({labels}))");
        for (engine, schema) in SCHEMAS {
            assert!(schema.contains(&check), "{engine}: {check}");
        }
    }
    let streams = format!("CHECK (stream IN ({}))", list(LineStream::ALL));
    for automation in [
        include_str!("../../migrations/sqlite/0002_automation.sql"),
        include_str!("../../migrations/mysql/0002_automation.sql"),
        include_str!("../../migrations/postgres/0002_automation.sql"),
    ] {
        assert!(automation.contains(&streams), "{streams}");
    }
    let points = format!("CHECK (status IN ({}))", list(PointStatus::ALL));
    for added in [
        include_str!("../../migrations/sqlite/0005_points.sql"),
        include_str!("../../migrations/mysql/0005_points.sql"),
        include_str!("../../migrations/postgres/0005_points.sql"),
    ] {
        assert!(added.contains(&points), "{points}");
    }
    let kinds = format!("CHECK (kind IN ({}))", list(JobKind::ALL));
    for added in [
        include_str!("../../migrations/sqlite/0006_reverts.sql"),
        include_str!("../../migrations/mysql/0006_reverts.sql"),
        include_str!("../../migrations/postgres/0006_reverts.sql"),
    ] {
        // MySQL's column is added by a statement that is a string, where quotes are doubled.
        assert!(added.replace("''", "'").contains(&kinds), "{kinds}");
    }
    let operations = format!("CHECK (type IN ({}))", list(OperationKind::ALL));
    for added in [
        include_str!("../../migrations/sqlite/0007_operations.sql"),
        include_str!("../../migrations/mysql/0007_operations.sql"),
        include_str!("../../migrations/postgres/0007_operations.sql"),
    ] {
        assert!(added.replace("''", "'").contains(&operations), "{operations}");
    }
    let (roles, kinds) = (
        format!("CHECK (role IN ({}))", list(Role::ALL)),
        format!("CHECK (kind IN ({}))", list(TokenKind::ALL)),
    );
    for added in [
        include_str!("../../migrations/sqlite/0008_accounts.sql"),
        include_str!("../../migrations/mysql/0008_accounts.sql"),
        include_str!("../../migrations/postgres/0008_accounts.sql"),
    ] {
        assert!(added.contains(&roles) && added.contains(&kinds), "{roles} {kinds}");
    }
    let wanted = format!("CHECK (wanted IN ({}))", list(Wanted::ALL));
    for added in [
        include_str!("../../migrations/sqlite/0009_work.sql"),
        include_str!("../../migrations/mysql/0009_work.sql"),
        include_str!("../../migrations/postgres/0009_work.sql"),
    ] {
        assert!(added.replace("''", "'").contains(&wanted), "{wanted}");
    }
    let ended: Vec<_> = JobStatus::ALL.iter().filter(|status| status.is_terminal()).collect();
    let not_ended = format!("status NOT IN ({})", list(&ended));
    let live = format!("CASE WHEN {not_ended} THEN 1 END");
    let added = include_str!("../../migrations/sqlite/0002_automation.sql");
    for (engine, schema) in [("sqlite", added), SCHEMAS[1], SCHEMAS[2]] {
        assert!(schema.contains(&live), "{engine}: {live}");
    }
    assert!(SCHEMAS[0].1.contains(&format!("WHERE {not_ended};")));
}
