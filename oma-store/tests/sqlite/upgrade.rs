//! A database of an earlier version is taken over with all that is in it.

use futures_util::TryStreamExt;
use oma_core::state::ExportStatus;
use oma_core::traits::{ExportRegistry, Inventory, JobStore, VolumeRegistry};
use oma_core::{ExportName, JobId, VmPath, VolumeId};
use oma_store::{Schema, SqlStore};
use sqlx::{Connection, Row, SqliteConnection};

use crate::fixture::{Folder, worker};

const VERSION_1: &str = include_str!("../../migrations/sqlite/0001_replication.sql");

/// What the program of version 1 wrote around its schema, and a job in its middle.
const ROWS: &str = "
    PRAGMA application_id = 1330463025;
    CREATE TABLE oma_migrations (version INTEGER NOT NULL PRIMARY KEY, name TEXT NOT NULL, checksum TEXT NOT NULL,
        applied_at INTEGER NOT NULL) STRICT;
    INSERT INTO oma_migrations VALUES (1, 'replication', '9cc335dcf8951daf', 1755770000000);
    INSERT INTO oma_meta VALUES ('instance_id', 'instance-1');
    INSERT INTO vm_replication_contexts (context_id, vmware_vm_id, vcenter_host, vm_name, vm_path, current_status,
        created_at, updated_at, last_status_change) VALUES ('ctx-1', 'uuid-1', 'vcenter', 'web', '/DC/vm/web', 'replicating', 1, 2, 2);
    INSERT INTO replication_jobs (id, vm_context_id, source_vm_id, source_vm_name, source_vm_path, vcenter_host,
        replication_type, status, epoch, disk_ids, owner, fence, due_at, created_at, updated_at)
        VALUES ('job-1', 'ctx-1', 'uuid-1', 'web', '/DC/vm/web', 'vcenter', 'initial', 'replicating', 1, '[\"disk-2000\"]',
        'appliance-1', 3, 5, 2, 2);
    UPDATE vm_replication_contexts SET current_job_id = 'job-1';
    INSERT INTO vm_disks (vm_context_id, job_id, disk_id, vm_dk_path, capacity_bytes, generation, created_at, updated_at)
        VALUES ('ctx-1', 'job-1', 'disk-2000', 'web.vmdk', 1048576, 1, 1, 2);
    INSERT INTO ossea_volumes (volume_id, volume_name, vm_context_id, disk_id, capacity_bytes, generation, content, status,
        device_path, created_at, updated_at)
        VALUES ('vol-1', 'web', 'ctx-1', 'disk-2000', 1048576, 1, 'inconsistent', 'attached', '/dev/vdb', 2, 2);
    UPDATE vm_disks SET ossea_volume_id = (SELECT id FROM ossea_volumes);
    INSERT INTO device_mappings (volume_uuid, device_path, size, created_at, updated_at) VALUES ('vol-1', '/dev/vdb', 1048576, 2, 2);
    INSERT INTO nbd_exports (job_id, vm_disk_id, device_mapping_uuid, export_name, status, created_at, updated_at)
        VALUES ('job-1', (SELECT id FROM vm_disks), 'vol-1', 'web-0', 'running', 2, 2);";

async fn version_1(folder: &Folder) {
    let mut connection = folder.connect().await;
    sqlx::raw_sql(VERSION_1).execute(&mut connection).await.unwrap();
    sqlx::raw_sql(ROWS).execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();
}

/// The names and definitions of everything in a database; a table that was altered reads differently from a new one.
async fn objects(connection: &mut SqliteConnection) -> Vec<(String, String)> {
    let rows = sqlx::query("SELECT type, name FROM sqlite_schema ORDER BY type, name");
    let rows = rows.fetch_all(connection).await.unwrap();
    rows.iter().map(|row| (row.get(0), row.get(1))).collect()
}

#[tokio::test]
async fn version_1_is_brought_forward_with_all_that_is_in_it() {
    let folder = Folder::new();
    version_1(&folder).await;
    assert_eq!(SqlStore::schema(&folder.config()).await.unwrap(), Schema { found: Some(1), needed: 12 });
    let store = folder.open().await.unwrap();
    assert_eq!(SqlStore::schema(&folder.config()).await.unwrap(), Schema { found: Some(12), needed: 12 });

    let vm = store.by_path(&VmPath::parse("/DC/vm/web").unwrap()).await.unwrap().unwrap();
    assert_eq!(vm.current_job, Some(JobId::parse("job-1").unwrap()));
    let job = store.live(&vm.id).await.unwrap().unwrap();
    assert_eq!((job.owner, job.fence.0), (Some(worker()), 3));
    let volume = store.volume(&VolumeId::parse("vol-1").unwrap()).await.unwrap().unwrap();
    assert_eq!((volume.device_path.as_deref(), volume.attached_to), (Some("/dev/vdb"), None));
    let exports: Vec<_> = store.exports().try_collect().await.unwrap();
    let [export] = &exports[..] else { panic!("{exports:?}") };
    assert_eq!((export.name.as_str(), export.status), ("web-0", ExportStatus::Running));
    assert_eq!(export.name, ExportName::parse("web-0").unwrap());
    store.close().await;
}

#[tokio::test]
async fn an_old_database_brought_forward_has_what_a_new_one_has() {
    let (old, new) = (Folder::new(), Folder::new());
    version_1(&old).await;
    for folder in [&old, &new] {
        folder.open().await.unwrap().close().await;
    }
    let (mut old, mut new) = (old.connect().await, new.connect().await);
    assert_eq!(objects(&mut old).await, objects(&mut new).await);
    let broken = sqlx::query("PRAGMA foreign_key_check").fetch_all(&mut old).await.unwrap();
    assert!(broken.is_empty(), "{} rows refer to nothing", broken.len());
    // Still tied to each other by their final names.
    sqlx::query("DELETE FROM device_mappings").execute(&mut old).await.unwrap();
    let left: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM nbd_exports").fetch_one(&mut old).await.unwrap();
    assert_eq!(left, 0);
}
