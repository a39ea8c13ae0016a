//! What jobs left is removed, by a plan.

use std::time::Duration;

use oma_core::conformance::{Trial, trial};
use oma_core::record::{JobEnd, JobSpec};
use oma_core::state::ReplicationType;
use oma_core::traits::{Inventory, JobStore, VolumeRegistry};
use oma_core::{Clock, JobId, SystemClock, VmPath, WorkerId};
use oma_store::{SqlStore, StoreConfig};
use serde_json::Value;

use crate::world::{MIB, VM, World};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("l26_a_failed_job_is_planned_and_then_removed", &[], planned_and_removed),
        trial("a_volume_that_held_an_epoch_is_condemned_only_when_that_is_wished_for", &[], condemned),
        trial("what_cannot_be_cleaned_up_is_told", &[], refused),
    ]
}

/// A replicated VM with a second job, which has failed unless it is to live.
async fn failed(fails: bool) -> (World, String) {
    let world = World::new();
    world.raw("disk.raw", 4 * MIB, 1);
    world.replicate(&["--source", &world.text("disk.raw")]).await.ok();
    let url = format!("sqlite://{}", world.path("data").join("oma.db").display());
    let store = SqlStore::open(&StoreConfig { url, ..StoreConfig::default() }).await.unwrap();
    let vm = store.by_path(&VmPath::parse(VM).unwrap()).await.unwrap().unwrap();
    let disks = store.disks(&vm.id).await.unwrap().into_iter().map(|disk| disk.disk.key).collect();
    let id = JobId::mint(SystemClock.now());
    store.insert(JobSpec::new(id.clone(), vm.id, ReplicationType::Incremental, disks)).await.unwrap();
    if fails {
        let worker = WorkerId::parse(format!("oma-{}", store.instance().await.unwrap())).unwrap();
        let lease = store.claim(&id, &worker, Duration::from_secs(30)).await.unwrap();
        store.end(&lease, JobEnd::Failed("it went away".to_owned())).await.unwrap();
    }
    store.close().await;
    (world, id.to_string())
}

async fn jobs(world: &World) -> Vec<String> {
    let rows = world.run(&["--json", "jobs"]).await.ok().json();
    let ids = rows.as_array().unwrap().iter().map(|row| row["job_id"].as_str().unwrap().to_owned());
    ids.collect()
}

async fn planned_and_removed() {
    let (world, job) = failed(true).await;
    let plan = world.run(&["--json", "cleanup", &job]).await.ok().json();
    assert_eq!((&plan["status"], &plan["first"]), (&Value::from("planned"), &Value::Array(vec![])));
    let volume = plan["items"].as_array().unwrap().iter().find(|item| item["kind"] == "volume").unwrap();
    assert!(volume["protected"].as_str().unwrap().contains("epoch"), "{plan}");
    let told = world.run(&["cleanup", &job]).await.ok();
    assert!(told.out.contains("nothing was changed") && told.out.contains("delete job"), "{}", told.out);
    assert!(jobs(&world).await.contains(&job));
    let id = plan["cleanup_id"].as_str().unwrap();
    let done = world.run(&["--json", "cleanup", &job, "--execute", "--plan", id]).await.ok().json();
    assert_eq!((&done["cleanup_id"], &done["status"]), (&Value::from(id), &Value::from("completed")));
    assert!(done["left"].as_object().unwrap().values().all(|count| count.as_u64() == Some(0)), "{done}");
    assert!(!jobs(&world).await.contains(&job));
    let again = world.run(&["cleanup", &job, "--execute"]).await.ok();
    assert!(again.out.contains("there is nothing to do"), "{}", again.out);
    world.replicate(&["--source", &world.text("disk.raw"), "--verify", "full"]).await.ok();
}

async fn condemned() {
    let (world, job) = failed(true).await;
    let done = world.run(&["--json", "cleanup", &job, "--volumes", "--execute"]).await.ok().json();
    assert_eq!(done["status"], "completed", "{done}");
    let rows = world.run(&["--json", "volumes", "list"]).await.ok().json();
    assert_eq!(rows[0]["status"], "condemned");
    world.run(&["volumes", "pardon", rows[0]["volume_id"].as_str().unwrap()]).await.ok();
    world.replicate(&["--source", &world.text("disk.raw"), "--verify", "full"]).await.ok();
}

async fn refused() {
    let (world, job) = failed(false).await;
    let plan = world.run(&["--json", "cleanup", &job]).await.ok().json();
    assert!(plan["first"][0].as_str().unwrap().contains("cancel it"), "{plan}");
    world.run(&["cleanup", &job, "--execute"]).await.refused(4, &["cancel it"]);
    world.run(&["cleanup", "job-unknown"]).await.refused(7, &["job-unknown"]);
    world.run(&["cleanup", &job, "failover-unknown"]).await.refused(7, &["failover-unknown"]);
    world.run(&["cancel", &job]).await.ok();
    let id = plan["cleanup_id"].as_str().unwrap();
    world.run(&["cleanup", &job, "--execute", "--plan", id]).await.refused(4, &["cancel it"]);
    world.run(&["cleanup", &job, "--execute"]).await.ok();
    assert!(!jobs(&world).await.contains(&job));
}
