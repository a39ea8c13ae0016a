//! The statements that the original system's documents show, to the letter, and the foreign keys that they promise.

use oma_core::record::{CommittedChange, JobEnd};
use oma_core::state::JobStatus;
use oma_core::traits::{ChangeIdRepo, ExportRegistry, Inventory, JobStore, VolumeRegistry};
use oma_core::{DiskRef, ExportName, Generation};
use sqlx::{Executor, Row, SqliteConnection};

use crate::fixture::{CHANGE, Folder, begun, key, published, replicated};

/// `AND` and `ORDER BY` as in the lookup of a VM's previous change ids.
const LOOKUP: &str = "SELECT vm_disks.* FROM vm_disks 
JOIN replication_jobs ON vm_disks.job_id = replication_jobs.id 
WHERE replication_jobs.source_vm_path = ? 
AND vm_disks.disk_change_id IS NOT NULL 
AND vm_disks.disk_change_id != ''
ORDER BY vm_disks.updated_at DESC
";

const VOLUMES_OF_JOB: &str = "SELECT ov.volume_id as volume_uuid 
FROM vm_disks vd 
JOIN ossea_volumes ov ON vd.ossea_volume_id = ov.id 
WHERE vd.job_id = 'job-id'";

const RUNNING_JOB: &str = "SELECT ov.volume_id, ov.volume_name, ov.status, ov.device_path 
FROM vm_disks vd 
JOIN ossea_volumes ov ON vd.ossea_volume_id = ov.id 
WHERE vd.job_id = 'job-20250821-103724';";

const DELETE_JOB: &str = "DELETE FROM replication_jobs WHERE id = ?";

async fn count(connection: &mut SqliteConnection, table: &str) -> i64 {
    let text = sqlx::AssertSqlSafe(format!("SELECT COUNT(*) FROM {table}"));
    sqlx::query(text).fetch_one(connection).await.unwrap().get(0)
}

/// The documents show a job's id as a literal.
async fn rows(
    connection: &mut SqliteConnection,
    text: &str,
    literal: &str,
    job: &str,
) -> Vec<sqlx::sqlite::SqliteRow> {
    assert!(text.contains(literal));
    let text = sqlx::AssertSqlSafe(text.replace(literal, job));
    sqlx::query(text).fetch_all(connection).await.unwrap()
}

#[tokio::test]
async fn the_lookup_of_change_ids_finds_the_disks_of_the_path_only() {
    let folder = Folder::new();
    let store = folder.open().await.unwrap();
    let (vm, ..) = replicated(&store, "web").await;
    replicated(&store, "db").await;
    begun(&store, "new").await;
    let mut reader = folder.connect().await;
    let found = sqlx::query(LOOKUP).bind(vm.path.as_str()).fetch_all(&mut reader).await.unwrap();
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].get::<String, _>("disk_change_id"), CHANGE);
    assert_eq!(found[0].get::<String, _>("vm_context_id"), vm.id.as_str());
    assert_eq!(found[0].get::<i64, _>("size_gb"), 40);
    assert_eq!(count(&mut reader, "vm_disks WHERE sync_progress_percent = 100.0").await, 2);
    assert_eq!(count(&mut reader, "replication_jobs WHERE progress_percent = 100.0").await, 2);
    let none = sqlx::query(LOOKUP).bind("/DatabanxDC/vm/new").fetch_all(&mut reader).await.unwrap();
    assert!(none.is_empty(), "a job that was not committed has no change id");
}

#[tokio::test]
async fn the_discovery_of_volumes_finds_the_jobs_own_and_no_other() {
    let folder = Folder::new();
    let store = folder.open().await.unwrap();
    let (_, lease, volume) = published(&store, "pgtest2").await;
    published(&store, "PGWINTESTBIOS").await;
    let mut reader = folder.connect().await;
    let found = rows(&mut reader, VOLUMES_OF_JOB, "job-id", lease.job.as_str()).await;
    assert_eq!(found.iter().map(|row| row.get(0)).collect::<Vec<String>>(), [volume.as_str()]);
    let found = rows(&mut reader, RUNNING_JOB, "job-20250821-103724", lease.job.as_str()).await;
    let texts: Vec<String> = (0..4).map(|at| found[0].get(at)).collect();
    assert_eq!(texts, ["vol-pgtest2", "migration-pgtest2-pgtest2-disk-0", "attached", "/dev/vol-pgtest2"]);
}

#[tokio::test]
async fn deleting_a_job_takes_its_exports_and_leaves_the_disk_its_change_id_and_its_volume() {
    let folder = Folder::new();
    let store = folder.open().await.unwrap();
    let (vm, job, volume) = replicated(&store, "web").await;
    let mut hand = folder.connect().await;
    hand.execute(sqlx::AssertSqlSafe(format!(
        "INSERT INTO failover_jobs (job_id, vm_context_id, vm_id, replication_job_id, job_type, source_vm_name, \
         created_at, updated_at) VALUES ('failover-1', '{}', 'vm', '{job}', 'test', 'web', 0, 0)",
        vm.id
    )))
    .await
    .unwrap();
    assert_eq!(
        count(&mut hand, "vm_export_mappings WHERE status = 'active' AND device_path = '/dev/vol-web'").await,
        1
    );
    assert_eq!(
        sqlx::query(DELETE_JOB).bind(job.as_str()).execute(&mut hand).await.unwrap().rows_affected(),
        1
    );

    for table in ["nbd_exports", "vm_export_mappings", "cbt_history"] {
        assert_eq!(count(&mut hand, table).await, 0, "{table}");
    }
    assert_eq!(count(&mut hand, "failover_jobs WHERE replication_job_id IS NULL").await, 1);
    let disk = DiskRef { context: vm.id.clone(), key: key() };
    let record = Inventory::disk(&store, &disk).await.unwrap().unwrap();
    assert_eq!((record.job, record.volume), (None, Some(volume.clone())));
    let current = store.current(&disk, Generation::FIRST, &vm.identity.endpoint).await.unwrap();
    assert!(matches!(current, Some(CommittedChange { epoch, .. }) if epoch.0 == 1));
    assert!(store.volume(&volume).await.unwrap().unwrap().device_path.is_some());
    assert_eq!(store.context(&vm.id).await.unwrap().unwrap().current_job, None);
}

#[tokio::test]
async fn what_exists_in_the_cloud_cannot_be_deleted_from_the_records() {
    let folder = Folder::new();
    let store = folder.open().await.unwrap();
    let (vm, lease, _) = published(&store, "web").await;
    let mut hand = folder.connect().await;
    for (text, what) in [
        ("DELETE FROM ossea_volumes", "a volume with a device"),
        ("DELETE FROM vm_replication_contexts", "a VM with a volume"),
        ("DELETE FROM vm_disks", "a disk with a volume"),
    ] {
        let refused = hand.execute(text).await.expect_err(what);
        assert!(refused.to_string().contains("FOREIGN KEY"), "{what}: {refused}");
    }
    let export = ExportName::for_disk(&vm.identity.instance_uuid, &key()).unwrap();
    assert!(store.export(&export).await.unwrap().is_some());
    hand.execute("DELETE FROM device_mappings").await.unwrap();
    assert_eq!(store.export(&export).await.unwrap(), None);
    let ended = store.end(&lease, JobEnd::Cancelled("by hand".to_owned())).await.unwrap();
    assert_eq!(ended.status, JobStatus::Cancelled);
}

#[tokio::test]
async fn l01_no_other_column_holds_a_volumes_uuid() {
    let folder = Folder::new();
    let store = folder.open().await.unwrap();
    let (_, _, volume) = replicated(&store, "web").await;
    let mut hand = folder.connect().await;
    let tables =
        sqlx::query("SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%'");
    let mut holders = Vec::new();
    for table in tables.fetch_all(&mut hand).await.unwrap() {
        let table: String = table.get(0);
        let columns = sqlx::query("SELECT name FROM pragma_table_xinfo(?)").bind(&table);
        for column in columns.fetch_all(&mut hand).await.unwrap() {
            let column: String = column.get(0);
            let text = format!(
                "{table} WHERE CAST({column} AS TEXT) LIKE '%{volume}%' AND {column} NOT LIKE '/dev/%'"
            );
            if count(&mut hand, &text).await > 0 {
                holders.push(format!("{table}.{column}"));
            }
        }
    }
    assert_eq!(
        holders,
        ["ossea_volumes.volume_id", "device_mappings.volume_uuid", "nbd_exports.device_mapping_uuid"]
    );
}
