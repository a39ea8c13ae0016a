//! Pools that an embedder made, with settings of its own.
#![allow(clippy::unwrap_used, reason = "a test panics when its setup fails")]

use std::process::ExitCode;

use futures_util::TryStreamExt;
use oma_core::conformance;
use oma_core::record::{SourceDisk, SourceIdentity, SourceVm};
use oma_core::traits::Inventory;
use oma_core::{ByteSize, Clock, DiskKey, Endpoint, ErrorKind, InstanceUuid, Retry, SystemClock, VmPath};
use oma_store::SqlStore;
use oma_store::servers::{Server, ServerEngine};
use sqlx::Executor;
use sqlx::mysql::MySqlPoolOptions;
use sqlx::postgres::PgPoolOptions;
use sqlx::sqlite::SqlitePoolOptions;

fn main() -> ExitCode {
    let mariadb = [ServerEngine::MariaDb.required()];
    let postgres = [ServerEngine::Postgres.required()];
    let trials = vec![
        conformance::trial("sqlite::an_embedders_pool_is_used", &[], sqlite),
        conformance::trial("mariadb::an_embedders_pool_is_used_whatever_its_sessions_say", &mariadb, || {
            mysql()
        }),
        conformance::trial("postgres::an_embedders_pool_is_used_whatever_its_sessions_say", &postgres, pg),
    ];
    conformance::run(trials)
}

fn vm(name: &str, label: &str) -> SourceVm {
    let path = VmPath::parse(format!("/DC/vm/{name}")).unwrap();
    let disk = SourceDisk {
        key: DiskKey::parse("disk-2000").unwrap(),
        label: label.to_owned(),
        location: String::new(),
        capacity: ByteSize::mib(1),
        unit_number: None,
    };
    let identity = SourceIdentity {
        instance_uuid: InstanceUuid::from_path(&path),
        endpoint: Endpoint::parse("vcenter").unwrap(),
    };
    SourceVm { identity, name: name.to_owned(), path, disks: vec![disk] }
}

/// What is recorded is there, whole, and what cannot be is refused without a trace.
async fn used(store: SqlStore) {
    let label = "🖴".repeat(20_000);
    let recorded = store.record(&vm("web", &label)).await.unwrap();
    // Both clocks are this machine's; a time zone between them would be an hour at least.
    let apart = SystemClock.now().as_millis() - recorded.created_at.as_millis();
    assert!((-60_000..60_000).contains(&apart), "{apart} ms");
    assert_eq!(store.disks(&recorded.id).await.unwrap()[0].label, label);
    let twice = [vm("db", "a").disks, vm("db", "b").disks].concat();
    let refused = store.record(&SourceVm { disks: twice, ..vm("db", "") }).await.unwrap_err();
    assert_eq!((refused.kind(), refused.retry()), (ErrorKind::Invalid, Retry::Never));
    let all: Vec<_> = store.contexts(None).try_collect().await.unwrap();
    assert_eq!(all, [recorded]);
    let many = (0..8).map(|n| {
        let store = store.clone();
        // The same VM: all but one find it there.
        tokio::spawn(async move { store.record(&vm("mail", &n.to_string())).await.unwrap().id })
    });
    let mut ids: Vec<_> = futures_util::future::try_join_all(many).await.unwrap();
    ids.dedup();
    assert_eq!(ids.len(), 1);
    store.close().await;
    assert_eq!(store.record(&vm("late", "")).await.unwrap_err().kind(), ErrorKind::Unavailable);
}

async fn sqlite() {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("sqlite://{}?mode=rwc", folder.path().join("oma.db").display());
    let pool = SqlitePoolOptions::new().max_connections(3).connect(&url).await.unwrap();
    used(SqlStore::with_sqlite_pool(pool).await.unwrap()).await;
}

async fn mysql() {
    let database = Server::shared(ServerEngine::MariaDb).await.unwrap().create_database().await.unwrap();
    let pool = MySqlPoolOptions::new().max_connections(3).after_connect(|connection, _| {
        Box::pin(async move {
            connection
                .execute("SET SESSION sql_mode = 'PIPES_AS_CONCAT', tx_isolation = 'SERIALIZABLE', time_zone = '+09:00'")
                .await?;
            Ok(())
        })
    });
    let pool = pool.connect(&database.url()).await.unwrap();
    used(SqlStore::with_mysql_pool(pool).await.unwrap()).await;
}

async fn pg() {
    let database = Server::shared(ServerEngine::Postgres).await.unwrap().create_database().await.unwrap();
    let pool = PgPoolOptions::new().max_connections(3).after_connect(|connection, _| {
        Box::pin(async move {
            connection.execute("SET default_transaction_isolation = 'serializable'").await?;
            connection.execute("SET timezone = 'Asia/Tokyo'").await?;
            Ok(())
        })
    });
    let pool = pool.connect(&database.url()).await.unwrap();
    used(SqlStore::with_postgres_pool(pool).await.unwrap()).await;
}
