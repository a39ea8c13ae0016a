//! Seed 003: what a failed job left is counted, removed and found to be gone.

use oma_core::conformance::Trial;
use oma_core::record::JobEnd;
use oma_core::traits::JobStore;
use oma_store::SqlStore;

use crate::fixture::published;
use crate::session::{NULL, Session, with};
use crate::trial;

const ADD_KEY: &str = "ALTER TABLE failover_jobs 
ADD CONSTRAINT fk_failover_replication 
FOREIGN KEY (replication_job_id) REFERENCES replication_jobs(id) 
ON DELETE SET NULL;";
const STATUS: &str = "SELECT status FROM replication_jobs WHERE id = '$JOB_ID'";
const COUNT_DISKS: &str = "SELECT COUNT(*) FROM vm_disks WHERE job_id = '$JOB_ID'";
const COUNT_EXPORTS: &str = "SELECT COUNT(*) FROM nbd_exports WHERE job_id = '$JOB_ID'";
const VOLUMES: &str = "SELECT DISTINCT dm.volume_uuid FROM vm_disks vd ...";
const DELETE_FAILOVER: &str = "DELETE FROM failover_jobs WHERE job_id = '$FAILOVER_JOB_ID';";
const DELETE_JOB: &str = "DELETE FROM replication_jobs WHERE id = '$REPLICATION_JOB_ID';";
const DELETE_MAPPINGS: &str = "DELETE dm FROM device_mappings dm
LEFT JOIN ossea_volumes ov ON dm.volume_uuid = ov.volume_id
WHERE ov.volume_id IS NULL;";
const COUNT_ORPHANS: &str = "SELECT COUNT(*) FROM vm_disks vd 
LEFT JOIN replication_jobs rj ON vd.job_id = rj.id 
WHERE rj.id IS NULL;";
const COUNT_ALL: &str = "SELECT table_name, COUNT(*) FROM [all_tables] GROUP BY table_name;";

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("seed_003::alter_table_failover_jobs_adds_its_key", |store, session| {
            Box::pin(key(store, session))
        }),
        trial("seed_003::phase_1_finds_status_disks_exports_and_volumes", |store, session| {
            Box::pin(analysis(store, session))
        }),
        trial("seed_003::phases_4_and_5_delete_the_jobs_and_find_nothing_left", |store, session| {
            Box::pin(removal(store, session))
        }),
    ]
}

async fn add_failover(hand: &mut Session, job: &str) {
    hand.write(&format!(
        "INSERT INTO failover_jobs (job_id, vm_context_id, vm_id, replication_job_id, job_type, source_vm_name) \
         SELECT 'failover-20250821-123456', vm_context_id, source_vm_id, id, 'test', source_vm_name \
         FROM replication_jobs WHERE id = '{job}'"
    ))
    .await;
}

/// The key is in the schema already, under a name of its own.
async fn key(store: SqlStore, mut hand: Session) {
    let (_, lease, _) = published(&store, "web").await;
    hand.write(ADD_KEY).await;
    add_failover(&mut hand, lease.job.as_str()).await;
    hand.write(&format!("DELETE FROM replication_jobs WHERE id = '{}'", lease.job)).await;
    assert_eq!(
        hand.rows("SELECT job_id, replication_job_id FROM failover_jobs").await,
        [["failover-20250821-123456", NULL]]
    );
}

async fn analysis(store: SqlStore, mut hand: Session) {
    let (_, lease, volume) = published(&store, "web").await;
    published(&store, "db").await;
    let job = lease.job.as_str();
    for (text, expected) in [(STATUS, "initializing"), (COUNT_DISKS, "1"), (COUNT_EXPORTS, "1")] {
        assert_eq!(hand.value(&with(text, "$JOB_ID", job)).await, expected, "{text}");
        assert_eq!(
            hand.rows(&with(text, "$JOB_ID", "job-none")).await.concat().concat().trim_matches('0'),
            ""
        );
    }
    let rest = format!(
        "JOIN ossea_volumes ov ON vd.ossea_volume_id = ov.id \
         JOIN device_mappings dm ON dm.volume_uuid = ov.volume_id WHERE vd.job_id = '{job}'"
    );
    assert_eq!(hand.rows(&with(VOLUMES, "...", &rest)).await, [[volume.as_str()]]);
}

async fn removal(store: SqlStore, mut hand: Session) {
    let (_, lease, _) = published(&store, "web").await;
    published(&store, "db").await;
    let job = lease.job.as_str();
    add_failover(&mut hand, job).await;
    store.end(&lease, JobEnd::Failed("no answer".to_owned())).await.unwrap();

    // Phase 2 has the volume detached and deleted. Until then its mapping cannot be an orphan: the key forbids it.
    assert_eq!(hand.write(DELETE_MAPPINGS).await, 0);
    hand.write("SET foreign_key_checks = 0").await;
    hand.write(
        "INSERT INTO device_mappings (volume_uuid, device_path, size) VALUES ('vol-gone', '/dev/vdz', 1)",
    )
    .await;
    hand.write("SET foreign_key_checks = 1").await;

    let failover = with(DELETE_FAILOVER, "$FAILOVER_JOB_ID", "failover-20250821-123456");
    assert_eq!((hand.write(&failover).await, hand.write(&failover).await), (1, 0));
    let replication = with(DELETE_JOB, "$REPLICATION_JOB_ID", job);
    assert_eq!((hand.write(&replication).await, hand.write(&replication).await), (1, 0));
    assert_eq!(hand.write(DELETE_MAPPINGS).await, 1);
    assert_eq!(hand.count("device_mappings WHERE volume_uuid = 'vol-gone'").await, "0");

    // The document expects 0 because its disks go with their job. Seed 002 keeps them, without one: this is the VM's disk.
    assert_eq!(hand.value(COUNT_ORPHANS).await, "1");
    assert_eq!(hand.value(&with(COUNT_ORPHANS, ";", " AND vd.job_id IS NOT NULL;")).await, "0");

    // [all_tables] stands for a table that no database has: the rows of all of them under the table's name.
    let tables = ["device_mappings", "failover_jobs", "nbd_exports", "replication_jobs", "vm_disks"];
    let rows = tables.map(|table| format!("SELECT '{table}' AS table_name FROM {table}")).join(" UNION ALL ");
    let mut counted = hand.rows(&with(COUNT_ALL, "[all_tables]", &format!("({rows}) AS all_tables"))).await;
    counted.sort();
    assert_eq!(
        counted,
        [["device_mappings", "2"], ["nbd_exports", "1"], ["replication_jobs", "1"], ["vm_disks", "2"]]
    );
}
