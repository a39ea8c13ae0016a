//! Every statement is prepared against the real schema of each server, and none walks through a table that grows.
#![allow(clippy::unwrap_used, reason = "a test panics when its setup fails")]

use std::process::ExitCode;

use oma_core::conformance::{self, Trial};
use oma_store::servers::{Database, Server, ServerEngine, statements};
use oma_store::{SqlStore, StoreConfig};
use sqlx::{AssertSqlSafe, Connection, Executor, MySqlConnection, PgConnection, Row, SqlSafeStr};

fn main() -> ExitCode {
    conformance::run(ServerEngine::ALL.iter().flat_map(|engine| trials(*engine)).collect())
}

fn trials(engine: ServerEngine) -> Vec<Trial> {
    let trial = |name: &str, run: fn(Database) -> futures_util::future::BoxFuture<'static, ()>| {
        conformance::trial(&format!("{engine}::{name}"), &[engine.required()], move || async move {
            let database = Server::shared(engine).await.unwrap().create_database().await.unwrap();
            let config = StoreConfig { url: database.url(), ..StoreConfig::default() };
            SqlStore::open(&config).await.unwrap().close().await;
            run(database).await;
        })
    };
    match engine {
        ServerEngine::MariaDb => vec![
            trial("every_statement_is_taken", |database| Box::pin(mariadb_prepares(database))),
            trial("no_statement_walks_through_a_table", |database| Box::pin(mariadb_explains(database))),
        ],
        ServerEngine::Postgres => vec![
            trial("every_statement_is_taken", |database| Box::pin(postgres_prepares(database))),
            trial("no_statement_walks_through_a_table", |database| Box::pin(postgres_explains(database))),
        ],
    }
}

/// The steps of the schema are few, and read from first to last.
fn walked(engine: ServerEngine) -> impl Iterator<Item = (&'static str, &'static str)> {
    let all = statements(engine);
    assert!(all.len() > 80, "{} statements", all.len());
    all.into_iter().filter(|(name, _)| *name != "MIGRATIONS")
}

async fn mariadb_prepares(database: Database) {
    let mut connection = MySqlConnection::connect(&database.url()).await.unwrap();
    for (name, text) in statements(ServerEngine::MariaDb) {
        let prepared = (&mut connection).prepare(text.into_sql_str()).await;
        assert!(prepared.is_ok(), "{name}: {}", prepared.err().unwrap());
    }
}

async fn postgres_prepares(database: Database) {
    let mut connection = PgConnection::connect(&database.url()).await.unwrap();
    for (name, text) in statements(ServerEngine::Postgres) {
        let prepared = (&mut connection).prepare(text.into_sql_str()).await;
        assert!(prepared.is_ok(), "{name}: {}", prepared.err().unwrap());
    }
}

/// A table without rows is walked through, whatever indexes it has.
const FILL: &str = "\
    INSERT INTO vm_replication_contexts (context_id, vmware_vm_id, vcenter_host, vm_name, vm_path) \
    WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 300) \
    SELECT CONCAT('ctx-', i), CONCAT('vm-', i), 'vcenter', 'vm', CONCAT('/DC/vm/', i) FROM n; \
    INSERT INTO replication_jobs (id, vm_context_id, source_vm_id, source_vm_name, source_vm_path, vcenter_host, \
    replication_type, epoch, disk_ids, due_at) \
    SELECT CONCAT('job-', context_id), context_id, vmware_vm_id, vm_name, vm_path, vcenter_host, 'initial', 1, '[]', \
    CURRENT_TIMESTAMP(3) FROM vm_replication_contexts; \
    INSERT INTO replication_jobs (id, vm_context_id, source_vm_id, source_vm_name, source_vm_path, vcenter_host, \
    replication_type, epoch, disk_ids, status, completed_at) \
    WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 10) \
    SELECT CONCAT('ended-', n.i, '-', c.context_id), c.context_id, c.vmware_vm_id, c.vm_name, c.vm_path, \
    c.vcenter_host, 'initial', 1, '[]', 'failed', CURRENT_TIMESTAMP(3) FROM vm_replication_contexts c, n; \
    INSERT INTO vm_disks (vm_context_id, job_id, disk_id, vm_dk_path, capacity_bytes) \
    SELECT vm_context_id, id, 'disk-2000', 'web.vmdk', 1 FROM replication_jobs WHERE live = 1; \
    SET SESSION foreign_key_checks = 0; \
    INSERT INTO nbd_exports (job_id, vm_disk_id, device_mapping_uuid, export_name) \
    SELECT job_id, id, CONCAT('volume-', id), CONCAT('export-', id) FROM vm_disks; \
    SET SESSION foreign_key_checks = 1; \
    INSERT INTO ossea_volumes (volume_id, volume_name, vm_context_id, disk_id, capacity_bytes, generation, content, status) \
    SELECT CONCAT('volume-', id), 'volume', vm_context_id, disk_id, 1, 1, 'blank', 'attached' FROM vm_disks; \
    INSERT INTO volume_operations (id, type, status, vm_context_id, disk_id, job_id, ossea_volume_id, completed_at) \
    WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 10) \
    SELECT CONCAT('op-', n.i, '-', v.id), 'attach', 'completed', v.vm_context_id, v.disk_id, 'job', v.id, \
    CURRENT_TIMESTAMP(3) FROM ossea_volumes v, n; \
    INSERT INTO cleanups (id, job_id, vm_context_id, worker, plan, status) \
    SELECT CONCAT('cleanup-', vm_context_id), id, vm_context_id, 'worker', '{}', 'planned' FROM replication_jobs WHERE live = 1; \
    ANALYZE TABLE vm_replication_contexts, replication_jobs, vm_disks, nbd_exports, ossea_volumes, volume_operations, \
    cleanups";

/// With plans for small tables out of the way: MariaDB is told that a lookup by a key is cheap.
async fn mariadb_explains(database: Database) {
    let mut connection = MySqlConnection::connect(&database.url()).await.unwrap();
    connection.execute("SET SESSION max_seeks_for_key = 1").await.unwrap();
    sqlx::raw_sql(FILL).execute(&mut connection).await.unwrap();
    let mut wrong = Vec::new();
    for (name, text) in walked(ServerEngine::MariaDb) {
        let mut query = sqlx::query(AssertSqlSafe(format!("EXPLAIN {text}")));
        for before in text.split('?').take(text.matches('?').count()) {
            let count = ["LIMIT", "OFFSET"].iter().any(|word| before.trim_end().ends_with(word));
            query = if count { query.bind(1) } else { query.bind("2026-01-01 00:00:00") };
        }
        for row in query.fetch_all(&mut connection).await.unwrap() {
            let (table, walk): (Option<String>, Option<String>) = (row.get("table"), row.get("type"));
            let (key, extra): (Option<String>, Option<String>) = (row.get("key"), row.get("Extra"));
            // What is inserted into is told as if it were walked through.
            let select: String = row.get("select_type");
            let walks = walk.as_deref() == Some("ALL") && select != "INSERT";
            let sorts = extra.as_deref().is_some_and(|extra| extra.contains("filesort"));
            if walks || sorts {
                wrong.push(format!("{name}: {table:?} {walk:?} {key:?} {extra:?}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// With plans for empty tables out of the way: PostgreSQL walks and sorts only where it cannot do otherwise.
async fn postgres_explains(database: Database) {
    let mut connection = PgConnection::connect(&database.url()).await.unwrap();
    for setting in ["enable_seqscan = off", "enable_sort = off", "plan_cache_mode = force_generic_plan"] {
        connection.execute(AssertSqlSafe(format!("SET {setting}"))).await.unwrap();
    }
    for (name, text) in walked(ServerEngine::Postgres) {
        connection.execute(AssertSqlSafe(format!("PREPARE explained AS {text}"))).await.unwrap();
        let values = vec!["NULL"; text.matches('$').count()].join(", ");
        let call = if values.is_empty() { String::new() } else { format!("({values})") };
        let explain = AssertSqlSafe(format!("EXPLAIN EXECUTE explained{call}"));
        let plan: Vec<String> = sqlx::raw_sql(explain)
            .fetch_all(&mut connection)
            .await
            .unwrap()
            .iter()
            .map(|row| row.get(0))
            .collect();
        let walks = plan.iter().any(|line| line.contains("Seq Scan") || line.contains("Sort  ("));
        assert!(!walks, "{name}: {}", plan.join("\n"));
        connection.execute("DEALLOCATE explained").await.unwrap();
    }
}
