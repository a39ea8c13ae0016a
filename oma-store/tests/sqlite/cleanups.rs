//! What a cleanup asks of records that nothing of ours writes yet, or that somebody broke by hand.

use oma_core::record::{JobEnd, Orphans};
use oma_core::state::{FailoverKind, FailoverStatus};
use oma_core::traits::{Cleanups, JobStore};
use oma_core::{ErrorKind, FailoverJobId};
use sqlx::{AssertSqlSafe, Executor};

use crate::fixture::{Folder, published};

fn id(text: &str) -> FailoverJobId {
    FailoverJobId::parse(text).unwrap()
}

#[tokio::test]
async fn l07_failover_jobs_are_read_by_their_vm_and_go_only_when_they_are_over_and_left_no_vm() {
    let folder = Folder::new();
    let store = folder.open().await.unwrap();
    let (vm, lease, _) = published(&store, "web").await;
    let (other, ..) = published(&store, "db").await;
    let mut hand = folder.connect().await;
    for (name, of, kind, status, made) in [
        ("f-1", &vm.id, "live", "completed", "'vm-7'"),
        ("f-2", &vm.id, "test", "failed", "NULL"),
        ("f-3", &vm.id, "test", "reverted", "'vm-8'"),
        ("f-4", &other.id, "test", "failed", "NULL"),
    ] {
        let text = format!(
            "INSERT INTO failover_jobs (job_id, vm_context_id, vm_id, replication_job_id, job_type, status, source_vm_name, \
             destination_vm_id, created_at, updated_at) VALUES ('{name}', '{of}', 'u', '{}', '{kind}', '{status}', 'web', {made}, 0, 0)",
            lease.job
        );
        hand.execute(AssertSqlSafe(text)).await.unwrap();
    }
    let found = store.failovers(&vm.id).await.unwrap();
    let ids: Vec<_> = found.iter().map(|failover| failover.id.as_str()).collect();
    assert_eq!(ids, ["f-1", "f-2", "f-3"]);
    assert_eq!((found[0].kind, found[0].status), (FailoverKind::Live, FailoverStatus::Completed));
    assert_eq!(found[0].destination_vm.as_deref(), Some("vm-7"));
    assert_eq!(found[0].replication_job.as_ref(), Some(&lease.job));
    for name in ["f-1", "f-3"] {
        let refused = store.forget_failover(&id(name)).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Conflict, "{name}");
    }
    for _ in 0..2 {
        store.forget_failover(&id("f-2")).await.unwrap();
    }
    assert_eq!(store.failovers(&vm.id).await.unwrap().len(), 2);
    assert_eq!(store.failovers(&other.id).await.unwrap().len(), 1);
}

#[tokio::test]
async fn rows_that_name_a_job_which_somebody_removed_with_the_keys_off_are_counted() {
    let folder = Folder::new();
    let store = folder.open().await.unwrap();
    let (vm, lease, volume) = published(&store, "web").await;
    published(&store, "db").await;
    store.end(&lease, JobEnd::Failed("why".to_owned())).await.unwrap();
    let mut hand = folder.connect().await;
    let text = format!(
        "PRAGMA foreign_keys = OFF; \
         INSERT INTO failover_jobs (job_id, vm_context_id, vm_id, replication_job_id, job_type, source_vm_name, created_at, updated_at) \
         VALUES ('f-1', '{}', 'u', '{}', 'test', 'web', 0, 0); \
         UPDATE ossea_volumes SET status = 'deleted' WHERE volume_id = '{volume}'; \
         DELETE FROM replication_jobs WHERE id = '{}'",
        vm.id, lease.job, lease.job
    );
    hand.execute(AssertSqlSafe(text)).await.unwrap();
    let left = store.orphans(&lease.job, &vm.id).await.unwrap();
    let expected = Orphans {
        disks: 1,
        exports: 1,
        export_mappings: 1,
        device_mappings: 1,
        failovers: 1,
        ..Orphans::default()
    };
    assert_eq!(left, expected);
    assert_eq!(left.to_string(), "1 disks, 1 exports, 1 export_mappings, 1 device_mappings, 1 failovers");
    assert!(!left.is_clean());
    // The stale device of a volume is none of a job's that had nothing to do with it.
    let none = store.orphans(&oma_core::JobId::parse("job-of-nobody").unwrap(), &vm.id).await.unwrap();
    assert_eq!(none, Orphans::default());
}
