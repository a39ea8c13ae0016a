use std::time::Duration;

use oma_core::{ErrorKind, Retry};

use crate::StoreConfig;
use crate::db::{Db, sql, vals};
use crate::dialect::{Mode, open};
use crate::error::StoreError;

async fn opened() -> (tempfile::TempDir, Db) {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("sqlite://{}", folder.path().join("oma.db").display());
    let db = open(&StoreConfig { url, ..StoreConfig::default() }, Mode::Write).await.unwrap();
    (folder, db)
}

async fn pragma(db: &Db, sql: crate::db::Sql, column: &'static str) -> i64 {
    let mut tx = db.begin().await.unwrap();
    let rows = tx.all(sql, vals![], |row| Ok(row.clone())).await.unwrap();
    rows[0].fields("pragma", column).int(column).unwrap()
}

#[tokio::test]
async fn the_writer_is_durable_and_keeps_foreign_keys() {
    let (_folder, db) = opened().await;
    assert_eq!(pragma(&db, sql!("PRAGMA synchronous"), "synchronous").await, 2, "FULL");
    assert_eq!(pragma(&db, sql!("PRAGMA foreign_keys"), "foreign_keys").await, 1);
    assert_eq!(
        pragma(
            &db,
            sql!("SELECT COUNT(*) AS wal FROM pragma_journal_mode WHERE journal_mode = 'wal'"),
            "wal"
        )
        .await,
        1
    );
    let timeout = StoreConfig::default().busy_timeout;
    let millis = pragma(&db, sql!("PRAGMA busy_timeout"), "timeout").await;
    assert_eq!(Duration::from_millis(millis.unsigned_abs()), timeout);
}

#[tokio::test]
async fn a_full_disk_is_no_space_and_nothing_was_written() {
    let (_folder, db) = opened().await;
    let grow = sql!("INSERT INTO oma_meta (name, value) VALUES (?, ?)");
    let mut tx = db.begin().await.unwrap();
    // The engine's own limit fails as a full disk does.
    tx.all(sql!("PRAGMA max_page_count = 1"), vals![], |_| Ok(())).await.unwrap();
    tx.execute(grow, vals!["small", "x"]).await.unwrap();
    let error = tx.execute(grow, vals!["large", "x".repeat(1 << 20)]).await.unwrap_err();
    let error = error.at("write", "here");
    assert_eq!((error.kind(), error.retry()), (ErrorKind::NoSpace, Retry::Never), "{}", error.chain());
    drop(tx);
    let found =
        db.all(sql!("SELECT name FROM oma_meta WHERE name <> ?"), vals!["instance_id"], |_| Ok(())).await;
    assert!(found.unwrap().is_empty());

    // Once there is room again, the store goes on.
    let mut tx = db.begin().await.unwrap();
    tx.all(sql!("PRAGMA max_page_count = 1000000"), vals![], |_| Ok(())).await.unwrap();
    tx.execute(grow, vals!["large", "x".repeat(1 << 20)]).await.unwrap();
    tx.commit().await.unwrap();
}

#[tokio::test]
async fn a_transaction_that_is_dropped_leaves_no_trace_and_no_lock() {
    let (_folder, db) = opened().await;
    let mut tx = db.begin().await.unwrap();
    tx.execute(sql!("DELETE FROM oma_meta"), vals![]).await.unwrap();
    drop(tx);
    let mut tx = db.begin().await.unwrap();
    let found = tx.all(sql!("SELECT name FROM oma_meta"), vals![], |_| Ok(())).await.unwrap();
    assert_eq!(found.len(), 1);
}

#[tokio::test]
async fn readers_cannot_write() {
    let (_folder, db) = opened().await;
    let mut tx = db.snapshot().await.unwrap();
    let error = tx.execute(sql!("DELETE FROM oma_meta"), vals![]).await.unwrap_err();
    assert!(matches!(error, StoreError::Database { fault: crate::dialect::Fault::ReadOnly, .. }), "{error}");
}
