//! Every statement is prepared against the real schema, and none walks through a table that grows.

use oma_core::state::{
    ContextStatus, DiskStatus, ExportStatus, JobStatus, LineStream, LogLevel, OperationKind, OperationStatus,
    ReplicationType, VolumeStatus,
};
use sqlx::{Connection, Executor, Row, SqlSafeStr, SqliteConnection};

use super::all;
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
    for (name, sql) in all() {
        // The steps of the schema are few.
        if name == "MIGRATIONS" {
            continue;
        }
        let explain = sqlx::AssertSqlSafe(format!("EXPLAIN QUERY PLAN {}", sql.text(Dialect::Sqlite)));
        for row in sqlx::query(explain).fetch_all(&mut connection).await.unwrap() {
            let detail: String = row.get("detail");
            let is_given = detail.contains("CONSTANT ROW") || detail.ends_with("VALUES CLAUSE");
            let walks = detail.starts_with("SCAN") && !is_given;
            assert!(!walks && !detail.contains("TEMP B-TREE"), "{name}: {detail}");
        }
    }
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
        ("type", list(OperationKind::ALL)),
        ("level", list(LogLevel::ALL)),
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
    let ended: Vec<_> = JobStatus::ALL.iter().filter(|status| status.is_terminal()).collect();
    let not_ended = format!("status NOT IN ({})", list(&ended));
    let live = format!("CASE WHEN {not_ended} THEN 1 END");
    let added = include_str!("../../migrations/sqlite/0002_automation.sql");
    for (engine, schema) in [("sqlite", added), SCHEMAS[1], SCHEMAS[2]] {
        assert!(schema.contains(&live), "{engine}: {live}");
    }
    assert!(SCHEMAS[0].1.contains(&format!("WHERE {not_ended};")));
}
