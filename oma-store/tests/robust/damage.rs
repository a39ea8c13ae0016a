//! Rows that somebody changed by hand, past everything that keeps them whole.

use futures_util::TryStreamExt;
use oma_core::conformance::{self, Trial};
use oma_core::record::JobFilter;
use oma_core::state::JobStatus;
use oma_core::traits::{ChangeIdRepo, ExportRegistry, Inventory, JobStore, VolumeRegistry};
use oma_core::{DiskRef, Error, ErrorKind, Result, Retry};

use crate::fixture::{key, published, replicated};
use crate::place::{Kind, Place};

pub(crate) fn trials() -> Vec<Trial> {
    let one = |kind: &Kind| {
        let kind = *kind;
        let name = format!("{kind}::a_row_changed_by_hand_is_corrupt_and_named");
        conformance::trial(&name, &[kind.required()], move || damaged(kind))
    };
    Kind::ALL.iter().map(one).collect()
}

/// Table, column and what it is set to.
const CHANGES: [[&str; 3]; 12] = [
    ["vm_replication_contexts", "current_status", "'sleeping'"],
    ["vm_replication_contexts", "vm_path", "''"],
    ["vm_replication_contexts", "epoch", "-1"],
    ["vm_disks", "sync_status", "''"],
    ["vm_disks", "capacity_bytes", "-4096"],
    ["replication_jobs", "status", "'paused'"],
    ["replication_jobs", "disk_ids", "'[7]'"],
    ["replication_jobs", "replication_type", "'FULL'"],
    ["ossea_volumes", "status", "'lost'"],
    ["ossea_volumes", "generation", "-1"],
    ["nbd_exports", "status", "'Running'"],
    ["cbt_history", "sync_type", "'completed'"],
];

async fn damaged(kind: Kind) {
    let place = Place::migrated(kind).await;
    let store = place.open().await.unwrap();
    let (vm, job, volume) = replicated(&store, "web").await;
    let (other, lease, _) = published(&store, "db").await;
    let disk = DiskRef { context: vm.id.clone(), key: key() };
    let before = store.check().await.unwrap();
    let mut hand = place.hand().await;
    hand.unprotect().await;
    for [table, column, value] in CHANGES {
        // Its row, and how an error names it: a number that the engine gave has no other name.
        let (row, name) = match table {
            "vm_replication_contexts" => (format!("context_id = '{}'", vm.id), vm.id.as_str()),
            "replication_jobs" => (format!("id = '{job}'"), job.as_str()),
            "ossea_volumes" => (format!("volume_id = '{volume}'"), volume.as_str()),
            "vm_disks" => (format!("vm_context_id = '{}'", vm.id), "1"),
            "nbd_exports" => (format!("job_id = '{job}'"), "migration-vm-"),
            _ => (format!("job_id = '{job}'"), "1"),
        };
        // Kept beside, to be put back.
        hand.execute(&format!("CREATE TABLE kept AS SELECT {column} AS it FROM {table} WHERE {row}"))
            .await
            .unwrap();
        hand.execute(&format!("UPDATE {table} SET {column} = {value} WHERE {row}")).await.unwrap();
        let error: Error = match table {
            "vm_replication_contexts" => store.context(&vm.id).await.map(drop),
            "vm_disks" => store.disks(&vm.id).await.map(drop),
            "replication_jobs" => store.get(&job).await.map(drop),
            "ossea_volumes" => store.volume(&volume).await.map(drop),
            "nbd_exports" => store.exports().try_collect::<Vec<_>>().await.map(drop),
            _ => store.history(&disk).try_collect::<Vec<_>>().await.map(drop),
        }
        .expect_err(column);
        assert_eq!((error.kind(), error.retry()), (ErrorKind::Corrupt, Retry::Never), "{}", error.chain());
        let (begin, end) = (format!("{table} row {name}"), format!(", column {column}: "));
        assert!(error.chain().contains(&begin) && error.chain().contains(&end), "{}", error.chain());
        hand.execute(&format!("UPDATE {table} SET {column} = (SELECT it FROM kept) WHERE {row}"))
            .await
            .unwrap();
        hand.execute("DROP TABLE kept").await.unwrap();
    }
    // Nothing was lost, and what stands beside was never in doubt.
    let jobs: Result<Vec<_>> = store.list(JobFilter::default()).try_collect().await;
    assert_eq!(jobs.unwrap().len(), 2);
    assert_eq!(store.get(&job).await.unwrap().unwrap().status, JobStatus::Completed);
    assert_eq!(store.live(&other.id).await.unwrap().unwrap().id, lease.job);
    assert_eq!(store.check().await.unwrap(), before);
}
