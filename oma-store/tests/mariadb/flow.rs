//! Seeds 000, 001 and 002: from the discovery of a VM to its export, and the lookups.

use oma_core::conformance::Trial;
use oma_core::state::VolumeStatus;
use oma_core::traits::{ExportRegistry, Inventory, JobStore, VolumeRegistry};
use oma_core::{ExportName, JobId, VolumeId};
use oma_store::SqlStore;
use sqlx::Row;

use crate::fixture::{CHANGE, begun, published, replicated, source_vm};
use crate::session::{Session, completed, with};
use crate::trial;

const INSERT_JOB: &str = "INSERT INTO replication_jobs (id, source_vm_name, ...)";
const INSERT_DISK: &str = "INSERT INTO vm_disks (job_id, disk_id, vm_dk_path, ...)";
const INSERT_MAPPING: &str =
    "INSERT INTO device_mappings (volume_uuid, volume_id_numeric, vm_id, device_path, ...)";
const LINK_DISK: &str = "UPDATE vm_disks SET cloudstack_volume_uuid = ? WHERE job_id = ? AND disk_id = ?";
const INSERT_EXPORT: &str = "INSERT INTO nbd_exports (
    job_id,                    -- FK to replication_jobs
    vm_disk_id,               -- FK to vm_disks  
    device_mapping_uuid,      -- FK to device_mappings
    export_name,
    device_path               -- Synced from device_mappings
)";
const INSERT_ORPHAN: &str = "INSERT INTO nbd_exports (job_id, vm_disk_id, device_mapping_uuid, ...)";
const DELETE_JOB: &str = "DELETE FROM replication_jobs WHERE id = ?";
const DELETE_FAILED: &str = "DELETE FROM replication_jobs WHERE id = 'job-123'";

const VOLUMES_BEFORE: &str = "SELECT volume_uuid FROM vm_disks WHERE cloudstack_volume_uuid IS NOT NULL";
const VOLUMES: &str = "SELECT ov.volume_id as volume_uuid 
FROM vm_disks vd 
JOIN ossea_volumes ov ON vd.ossea_volume_id = ov.id 
WHERE vd.job_id = 'job-id'";
const CLEANUP_BEFORE: &str = "
SELECT cloudstack_volume_uuid FROM vm_disks
UNION
SELECT volume_id FROM ossea_volumes
UNION  
SELECT volume_uuid FROM device_mappings
";
const CLEANUP: &str = "
SELECT ov.volume_id 
FROM vm_disks vd
JOIN ossea_volumes ov ON vd.ossea_volume_id = ov.id
WHERE vd.job_id = '$JOB_ID'
";
const RUNNING_JOB: &str = "SELECT ov.volume_id, ov.volume_name, ov.status, ov.device_path 
FROM vm_disks vd 
JOIN ossea_volumes ov ON vd.ossea_volume_id = ov.id 
WHERE vd.job_id = 'job-20250821-103724';";

const LOOKUP: &str = "SELECT vm_disks.* FROM vm_disks 
JOIN replication_jobs ON vm_disks.job_id = replication_jobs.id 
WHERE replication_jobs.source_vm_path = ? 
AND vm_disks.disk_change_id IS NOT NULL 
AND vm_disks.disk_change_id != ''
ORDER BY vm_disks.updated_at DESC
";

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial(
            "seed_000::phases_1_to_5_insert_job_disk_mapping_and_export_then_delete_job",
            |store, session| Box::pin(phases(store, session)),
        ),
        trial("seed_000::insert_into_nbd_exports_of_what_is_not_there_fails", |store, session| {
            Box::pin(orphans(store, session))
        }),
        trial("seed_000::delete_job_123_takes_its_exports_only", |store, session| {
            Box::pin(deleted(store, session))
        }),
        trial("seed_000::its_keys_are_there_as_seed_001_corrects_them", |_, session| Box::pin(keys(session))),
        trial("seed_001::volume_discovery_finds_the_jobs_own_and_no_other", |store, session| {
            Box::pin(discovery(store, session))
        }),
        trial("seed_001::cleanup_finds_the_jobs_own_and_no_other", |store, session| {
            Box::pin(cleanup(store, session))
        }),
        trial("seed_001::running_job_shows_volume_name_status_and_device", |store, session| {
            Box::pin(running(store, session))
        }),
        trial("seed_001::what_it_calls_old_is_gone", |_, session| Box::pin(gone(session))),
        trial("seed_002::lookup_finds_the_change_ids_of_the_path", |store, session| {
            Box::pin(lookup(store, session))
        }),
    ]
}

/// The whole flow by hand, as the documents tell it, read back by the store.
async fn phases(store: SqlStore, mut hand: Session) {
    const JOB: &str = "job-20250821-103724";
    const VOLUME: &str = "2aff4799-1907-4565-a746-4e1092877931";
    let vm = Inventory::record(&store, &source_vm("pgtest2")).await.unwrap();
    let job: JobId = JOB.parse().unwrap();
    let (context, path, source) = (&vm.id, vm.path.as_str(), vm.identity.instance_uuid.as_str());

    let columns = "vm_context_id, source_vm_id, source_vm_path, vcenter_host, replication_type, epoch, disk_ids, due_at";
    let values = format!(
        "'{JOB}', 'pgtest2', '{context}', '{source}', '{path}', 'vcenter.example', 'initial', 1, '[\"disk-2001\"]', NOW(3)"
    );
    assert_eq!(hand.write(&completed(INSERT_JOB, columns, &values)).await, 1);
    assert_eq!(store.get(&job).await.unwrap().unwrap().context, vm.id);

    let values = format!("'{JOB}', 'disk-2001', '[ds1] pgtest2/b.vmdk', '{context}', 42949672960");
    assert_eq!(hand.write(&completed(INSERT_DISK, "vm_context_id, capacity_bytes", &values)).await, 1);

    // Seed 001 keeps the volume in a table of its own, which the disk is linked to.
    hand.write(&format!(
        "INSERT INTO ossea_volumes (volume_id, volume_name, vm_context_id, disk_id, capacity_bytes, generation, content, \
         status, device_path) VALUES ('{VOLUME}', 'migration-pgtest2-pgtest2-disk-0', '{context}', 'disk-2001', \
         42949672960, 1, 'blank', 'attached', '/dev/vdb')"
    ))
    .await;
    let values = format!("'{VOLUME}', 4711, '', '/dev/vdb', 42949672960");
    assert_eq!(hand.write(&completed(INSERT_MAPPING, "size", &values)).await, 1);
    let linked = with(LINK_DISK, "cloudstack_volume_uuid", "ossea_volume_id");
    let number = hand.value(&format!("SELECT id FROM ossea_volumes WHERE volume_id = '{VOLUME}'")).await;
    hand.bound(&linked, &[&number, JOB, "disk-2001"]).await;
    let volume: VolumeId = VOLUME.parse().unwrap();
    let known = store.volume(&volume).await.unwrap().unwrap();
    assert_eq!((known.status, known.device_path.as_deref()), (VolumeStatus::Attached, Some("/dev/vdb")));

    let disk = hand.value(&format!("SELECT id FROM vm_disks WHERE ossea_volume_id = {number}")).await;
    let values = format!(" VALUES ('{JOB}', {disk}, '{VOLUME}', 'migration-vm-pgtest2-disk0', '/dev/vdb')");
    assert_eq!(hand.write(&(INSERT_EXPORT.to_owned() + &values)).await, 1);
    let export: ExportName = "migration-vm-pgtest2-disk0".parse().unwrap();
    assert_eq!(store.export(&export).await.unwrap().unwrap().volume, volume);

    hand.bound(DELETE_JOB, &[JOB]).await;
    assert_eq!(store.get(&job).await.unwrap(), None);
    assert_eq!(store.export(&export).await.unwrap(), None);
    assert_eq!(hand.count("device_mappings").await, "1");
    // Seed 002: a disk is its VM's, whatever becomes of the job.
    assert_eq!(hand.count("vm_disks WHERE disk_id = 'disk-2001' AND job_id IS NULL").await, "1");
}

async fn orphans(store: SqlStore, mut hand: Session) {
    let (_, lease, volume) = published(&store, "web").await;
    let (job, disk) = (lease.job.as_str(), hand.value("SELECT id FROM vm_disks").await);
    let mut insert = async |job: &str, disk: &str, volume: &str, name: &str| {
        let values = format!("'{job}', {disk}, '{volume}', '{name}'");
        hand.try_write(&completed(INSERT_ORPHAN, "export_name", &values)).await
    };
    for (job, disk, volume) in
        [("job-none", &*disk, volume.as_str()), (job, "4711", volume.as_str()), (job, &disk, "vol-none")]
    {
        let refused = insert(job, disk, volume, "second").await.unwrap_err();
        assert!(refused.contains("foreign key constraint fails"), "{refused}");
    }
    assert_eq!(insert(job, &disk, volume.as_str(), "second").await, Ok(1));
    let refused = insert(job, &disk, volume.as_str(), "second").await.unwrap_err();
    assert!(refused.contains("Duplicate entry 'second'"), "{refused}");
}

async fn deleted(store: SqlStore, mut hand: Session) {
    let (_, lease, _) = published(&store, "web").await;
    published(&store, "db").await;
    let text = with(DELETE_FAILED, "job-123", lease.job.as_str());
    assert_eq!((hand.write(&text).await, hand.write(&text).await), (1, 0));
    assert_eq!(
        (hand.count("nbd_exports").await.as_str(), hand.count("device_mappings").await.as_str()),
        ("1", "2")
    );
    assert_eq!(hand.count("vm_disks WHERE job_id IS NULL AND ossea_volume_id IS NOT NULL").await, "1");
}

/// Seed 000 lists constraints, not statements. Seed 001 takes out `cloudstack_volume_uuid` with its key; seed 002 keeps a disk
/// when its job goes.
async fn keys(mut hand: Session) {
    let rows = hand
        .rows(
            "SELECT k.table_name, k.column_name, k.referenced_table_name, k.referenced_column_name, r.delete_rule \
             FROM information_schema.key_column_usage k JOIN information_schema.referential_constraints r \
             ON r.constraint_schema = k.constraint_schema AND r.constraint_name = k.constraint_name \
             WHERE k.table_schema = DATABASE() AND k.table_name IN ('vm_disks', 'nbd_exports')",
        )
        .await;
    for key in [
        ["vm_disks", "job_id", "replication_jobs", "id", "SET NULL"],
        ["vm_disks", "ossea_volume_id", "ossea_volumes", "id", "SET NULL"],
        ["nbd_exports", "job_id", "replication_jobs", "id", "CASCADE"],
        ["nbd_exports", "vm_disk_id", "vm_disks", "id", "CASCADE"],
        ["nbd_exports", "device_mapping_uuid", "device_mappings", "volume_uuid", "CASCADE"],
    ] {
        assert!(rows.iter().any(|row| row == &key), "{key:?} in {rows:?}");
    }
    let rows = hand
        .rows(
            "SELECT table_name, GROUP_CONCAT(column_name ORDER BY seq_in_index) FROM information_schema.statistics \
             WHERE table_schema = DATABASE() AND non_unique = 0 GROUP BY table_name, index_name",
        )
        .await;
    for key in [
        // A path belongs to the worker that sees the device.
        ["device_mappings", "vm_id,device_path"],
        ["device_mappings", "volume_uuid"],
        ["nbd_exports", "export_name"],
        ["vm_disks", "job_id,disk_id"],
    ] {
        assert!(rows.iter().any(|row| row == &key), "{key:?} in {rows:?}");
    }
}

async fn discovery(store: SqlStore, mut hand: Session) {
    let (_, lease, volume) = published(&store, "pgtest2").await;
    published(&store, "PGWINTESTBIOS").await;
    assert_eq!(hand.rows(&with(VOLUMES, "job-id", lease.job.as_str())).await, [[volume.as_str()]]);
    assert!(hand.rows(VOLUMES).await.is_empty());
}

async fn cleanup(store: SqlStore, mut hand: Session) {
    let (_, lease, volume) = published(&store, "pgtest2").await;
    published(&store, "PGWINTESTBIOS").await;
    assert_eq!(hand.rows(&with(CLEANUP, "$JOB_ID", lease.job.as_str())).await, [[volume.as_str()]]);
}

async fn running(store: SqlStore, mut hand: Session) {
    let (_, lease, _) = published(&store, "pgtest2").await;
    published(&store, "PGWINTESTBIOS").await;
    let rows = hand.rows(&with(RUNNING_JOB, "job-20250821-103724", lease.job.as_str())).await;
    assert_eq!(rows, [["vol-pgtest2", "migration-pgtest2-pgtest2-disk-0", "attached", "/dev/vol-pgtest2"]]);
}

async fn gone(mut hand: Session) {
    for text in [VOLUMES_BEFORE, CLEANUP_BEFORE, LINK_DISK.split('?').next().unwrap()] {
        // The statement of phase 3 ends where its first value stands.
        let text = if text.starts_with("UPDATE") { format!("{text}''") } else { text.to_owned() };
        let refused = hand.try_write(&text).await.unwrap_err();
        assert!(refused.contains("Unknown column"), "{refused}");
    }
}

async fn lookup(store: SqlStore, mut hand: Session) {
    let (vm, ..) = replicated(&store, "web").await;
    replicated(&store, "db").await;
    let (new, _) = begun(&store, "new").await;
    let found = hand.bound(LOOKUP, &[vm.path.as_str()]).await;
    assert_eq!(found.len(), 1);
    let text = |column| found[0].get::<String, _>(column);
    assert_eq!([text("disk_change_id"), text("vm_context_id")], [CHANGE, vm.id.as_str()]);
    assert_eq!(found[0].get::<i64, _>("size_gb"), 40);
    assert_eq!(found[0].get::<Option<i64>, _>("unit_number"), Some(0));
    let none = hand.bound(LOOKUP, &[new.path.as_str()]).await;
    assert!(none.is_empty(), "a job that was not committed has no change id");
}
