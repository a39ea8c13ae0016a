use std::pin::pin;
use std::task::Poll;

use oma_core::ErrorKind;
use oma_core::record::ReplicationJob;
use oma_core::state::DiskStatus;
use oma_core::traits::{Inventory, JobStore};
use sqlx::Executor;

use crate::fixture::{Folder, begun, job_of, key, replicated, source_vm};

/// Polls a future so many times, then drops it.
async fn cut_off<T>(future: impl Future<Output = T>, polls: usize) -> Option<T> {
    let mut future = pin!(future);
    for _ in 0..polls {
        let answer = std::future::poll_fn(|context| match future.as_mut().poll(context) {
            Poll::Ready(answer) => Poll::Ready(Some(answer)),
            Poll::Pending => Poll::Ready(None),
        });
        if let Some(answer) = answer.await {
            return Some(answer);
        }
        tokio::task::yield_now().await;
    }
    None
}

fn whole(job: &ReplicationJob) -> bool {
    job.disks == [key()] && job.epoch.0 == 1
}

#[tokio::test]
async fn a_dropped_call_is_done_or_not_done() {
    let folder = Folder::new();
    let store = folder.open().await.unwrap();
    for polls in 0..60 {
        let vm = Inventory::record(&store, &source_vm(&format!("web-{polls}"))).await.unwrap();
        let spec = job_of(&vm);
        let answered = cut_off(store.insert(spec.clone()), polls).await.is_some();
        let job = store.get(&spec.id).await.unwrap();
        assert!(job.as_ref().is_none_or(whole) && (!answered || job.is_some()));
        // Either way the same call again ends well, and the connection was left usable.
        let job = store.insert(spec).await.unwrap();
        assert_eq!(store.live(&vm.id).await.unwrap(), Some(job));
    }
}

#[tokio::test]
async fn a_crash_loses_nothing_that_was_acknowledged() {
    let folder = Folder::new();
    let store = folder.open().await.unwrap();
    let (vm, job, _) = replicated(&store, "web").await;
    let (other, lease) = begun(&store, "db").await;
    let mut half = folder.connect().await;
    half.execute("BEGIN IMMEDIATE; UPDATE vm_disks SET sync_status = 'failed'; DELETE FROM cbt_history;")
        .await
        .unwrap();

    // What a crash leaves: the file and its log as they are now. The shared index is rebuilt from the log.
    let after = Folder::new();
    for suffix in ["", "-wal"] {
        let name = |folder: &Folder| format!("{}{suffix}", folder.file().display());
        std::fs::copy(name(&folder), name(&after)).unwrap();
    }
    let store = after.open().await.unwrap();
    assert_eq!(store.context(&vm.id).await.unwrap().unwrap().epoch.0, 1);
    assert!(store.get(&job).await.unwrap().unwrap().status.is_terminal());
    assert_eq!(store.disks(&vm.id).await.unwrap()[0].status, DiskStatus::Completed);
    assert_eq!(store.live(&other.id).await.unwrap().unwrap().fence, lease.fence);
}

#[tokio::test]
async fn a_closed_store_answers_and_does_not_hang() {
    let folder = Folder::new();
    let store = folder.open().await.unwrap();
    store.close().await;
    let error = Inventory::record(&store, &source_vm("web")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{}", error.chain());
    assert!(!folder.file().with_extension("db-wal").exists(), "the log was folded into the file");
}

#[tokio::test]
async fn a_row_changed_by_hand_is_corrupt_and_named() {
    let folder = Folder::new();
    let store = folder.open().await.unwrap();
    let (_, lease) = begun(&store, "web").await;
    let mut hand = folder.connect().await;
    hand.execute("PRAGMA ignore_check_constraints = ON; UPDATE replication_jobs SET status = 'paused'")
        .await
        .unwrap();
    let error = store.get(&lease.job).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    let row = format!("replication_jobs row {}, column status: \"paused\"", lease.job);
    assert!(error.chain().contains(&row), "{}", error.chain());
}
