use std::time::Duration;

use futures_util::future::join_all;
use oma_core::traits::{Inventory, JobStore};
use oma_core::{ErrorKind, Retry, WorkerId};
use oma_store::{SqlStore, StoreConfig};
use sqlx::Executor;

use crate::fixture::{Folder, begun, job_of, source_vm};

#[tokio::test(flavor = "multi_thread")]
async fn two_processes_write_in_turns() {
    let folder = Folder::new();
    let stores = [folder.open().await.unwrap(), folder.open().await.unwrap()];
    let writes = (0..100).map(|at| {
        let store = &stores[at % 2];
        async move { Inventory::record(store, &source_vm(&format!("web-{at}"))).await.unwrap().id }
    });
    let mut contexts = join_all(writes).await;
    contexts.sort();
    let mut disks = 0;
    for context in &contexts {
        disks += stores[0].disks(context).await.unwrap().len();
    }
    contexts.dedup();
    assert_eq!((contexts.len(), disks), (100, 100));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_vm_gets_one_live_job_however_many_ask() {
    let folder = Folder::new();
    let stores = [folder.open().await.unwrap(), folder.open().await.unwrap()];
    let vm = Inventory::record(&stores[0], &source_vm("web")).await.unwrap();
    let answers = join_all((0..10).map(|at| stores[at % 2].insert(job_of(&vm)))).await;
    let live = stores[1].live(&vm.id).await.unwrap().unwrap();
    for answer in &answers {
        match answer {
            Ok(job) => assert_eq!(*job, live),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Conflict);
                assert!(error.chain().contains(live.id.as_str()), "{}", error.chain());
            }
        }
    }
    assert_eq!(answers.iter().filter(|answer| answer.is_ok()).count(), 1);
}

#[tokio::test]
async fn the_database_itself_refuses_a_second_live_job() {
    let folder = Folder::new();
    let store = folder.open().await.unwrap();
    let (_, lease) = begun(&store, "web").await;
    let columns = "vm_context_id, source_vm_id, source_vm_name, source_vm_path, vcenter_host, replication_type, epoch, \
                   disk_ids, due_at, created_at, updated_at";
    let second = format!(
        "INSERT INTO replication_jobs (id, {columns}) SELECT 'second', {columns} FROM replication_jobs WHERE id = '{}'",
        lease.job
    );
    let refused = folder.connect().await.execute(sqlx::AssertSqlSafe(second)).await.unwrap_err();
    assert!(refused.as_database_error().unwrap().is_unique_violation(), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_worker_of_many_claims_a_job() {
    let folder = Folder::new();
    let stores = [folder.open().await.unwrap(), folder.open().await.unwrap()];
    let vm = Inventory::record(&stores[0], &source_vm("web")).await.unwrap();
    let job = stores[0].insert(job_of(&vm)).await.unwrap().id;
    let claims = (0..10).map(|at| {
        let (store, job) = (&stores[at % 2], &job);
        let worker = WorkerId::parse(format!("appliance-{at}")).unwrap();
        async move { store.claim(job, &worker, Duration::from_secs(60)).await }
    });
    let answers = join_all(claims).await;
    assert_eq!(answers.iter().filter(|answer| answer.is_ok()).count(), 1);
    let refused = answers.into_iter().filter_map(Result::err).map(|error| (error.kind(), error.retry()));
    assert!(refused.into_iter().all(|refused| refused == (ErrorKind::Busy, Retry::Later)));
}

#[tokio::test]
async fn a_writer_that_holds_the_file_for_too_long_makes_others_busy() {
    let folder = Folder::new();
    let config = StoreConfig { busy_timeout: Duration::from_millis(50), ..folder.config() };
    let store = SqlStore::open(&config).await.unwrap();
    let mut other = folder.connect().await;
    other.execute("BEGIN IMMEDIATE").await.unwrap();
    let error = Inventory::record(&store, &source_vm("web")).await.unwrap_err();
    assert_eq!((error.kind(), error.retry()), (ErrorKind::Busy, Retry::Later), "{}", error.chain());
    // Reading goes on.
    assert_eq!(store.by_path(&source_vm("web").path).await.unwrap(), None);
    other.execute("ROLLBACK").await.unwrap();
    Inventory::record(&store, &source_vm("web")).await.unwrap();
}
