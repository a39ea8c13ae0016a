//! Single volumes as an operator changes them.

use std::fs;
use std::time::{Duration, Instant};

use oma_core::conformance::{Trial, trial};
use oma_core::record::{JobSpec, OperationSpec};
use oma_core::state::OperationKind;
use oma_core::traits::{JobStore, VolumeRegistry};
use oma_core::{Clock, JobId, OperationId, SystemClock, VolumeId, WorkerId};
use oma_store::{SqlStore, StoreConfig};
use serde_json::Value;

use crate::world::{MIB, World};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("volumes_are_listed_detached_and_attached", &[], listed_detached_and_attached),
        trial("a_volume_that_held_an_epoch_is_condemned_pardoned_and_deleted", &[], condemned),
        trial("l21_a_delete_is_not_done_where_the_volumes_are_not_mounted", &[], unmounted),
        trial("l15_an_operation_that_was_killed_is_finished_by_the_next_command", &[], killed),
        trial("what_cannot_be_done_with_a_volume_is_refused", &[], refused),
        trial("an_operation_in_doubt_for_ever_is_abandoned", &[], abandoned),
        trial("records_and_volumes_that_differ_are_told_and_repaired_by_a_plan", &[], reconciled),
    ]
}

/// A replicated VM and the id of its volume.
async fn replicated() -> (World, String) {
    let world = World::new();
    world.raw("disk.raw", 4 * MIB, 1);
    let source = world.text("disk.raw");
    world.replicate(&["--source", source.as_str()]).await.ok();
    let id = volumes(&world).await[0]["volume_id"].as_str().unwrap().to_owned();
    (world, id)
}

async fn volumes(world: &World) -> Vec<Value> {
    world.run(&["--json", "volumes", "list"]).await.ok().json().as_array().unwrap().clone()
}

async fn operations(world: &World, id: &str) -> Vec<Value> {
    let ran = world.run(&["--json", "volumes", "operations", "--volume", id]).await.ok();
    ran.json().as_array().unwrap().clone()
}

fn kinds(operations: &[Value]) -> Vec<&str> {
    operations.iter().map(|operation| operation["kind"].as_str().unwrap()).collect()
}

async fn listed_detached_and_attached() {
    let (world, id) = replicated().await;
    let row = &volumes(&world).await[0];
    assert_eq!((&row["status"], &row["epoch"]), (&Value::from("attached"), &Value::from(1)));
    assert_eq!((&row["capacity_bytes"], &row["held_epoch"]), (&Value::from(4 * MIB), &Value::from(true)));
    world.run(&["volumes", "detach", &id, "--id", "op-mine"]).await.ok();
    assert_eq!(volumes(&world).await[0]["status"], "detached");
    let again = world.run(&["--json", "volumes", "detach", &id, "--id", "op-mine"]).await.ok().json();
    assert_eq!(
        (&again["operation_id"], &again["status"]),
        (&Value::from("op-mine"), &Value::from("completed"))
    );
    world.run(&["volumes", "attach", &id, "--id", "op-mine"]).await.refused(4, &["op-mine"]);
    assert_eq!(kinds(&operations(&world, &id).await), ["detach", "attach", "create"], "newest first");
    world.run(&["volumes", "attach", &id]).await.ok();
    world.run(&["volumes", "resize", &id, "6MiB"]).await.ok();
    assert_eq!(volumes(&world).await[0]["capacity_bytes"], 6 * MIB);
    let table = world.run(&["volumes", "list"]).await.ok().out;
    assert!(table.contains(&id) && table.contains("attached"), "{table}");
    world.run(&["db", "check"]).await.ok();
    let source = world.text("disk.raw");
    world.replicate(&["--source", source.as_str()]).await.ok();
}

async fn condemned() {
    let (world, id) = replicated().await;
    let image = world.path(&format!("data/volumes/{id}.raw"));
    world.run(&["volumes", "delete", &id]).await.refused(4, &["is attached; detach it first"]);
    let jobs = world.run(&["--json", "jobs"]).await.ok().json();
    assert_eq!(jobs.as_array().unwrap().len(), 1, "nothing was begun: {jobs}");
    world.run(&["volumes", "detach", &id]).await.ok();
    let pending = world.run(&["--json", "volumes", "delete", &id]).await.ok().json();
    assert_eq!((&pending["kind"], &pending["status"]), (&Value::from("delete"), &Value::from("pending")));
    assert!(pending["due_at"].is_string(), "{pending}");
    let source = world.text("disk.raw");
    let operation = pending["operation_id"].as_str().unwrap();
    world.replicate(&["--source", source.as_str()]).await.refused(4, &["condemned", operation]);
    world.run(&["volumes", "attach", &id]).await.refused(4, &[operation]);
    world.run(&["volumes", "recover"]).await.ok();
    assert!(image.exists(), "it is not due");
    world.run(&["volumes", "pardon", &id]).await.ok();
    world.run(&["volumes", "pardon", &id]).await.refused(4, &["not condemned"]);
    world
        .run(&["volumes", "delete", &id, "--id", operation])
        .await
        .refused(4, &["called off by an operator"]);
    let report = world.replicate(&["--source", source.as_str()]).await.ok().json();
    assert_eq!(report["epoch"], 2);
    world.run(&["volumes", "detach", &id]).await.ok();
    world.run(&["volumes", "delete", &id, "--grace", "1s"]).await.ok();
    world.run(&["db", "check"]).await.ok();
    let began = Instant::now();
    while image.exists() {
        assert!(began.elapsed().as_secs() < 60, "a second has long passed");
        world.run(&["volumes", "recover"]).await.ok();
    }
    assert_eq!(volumes(&world).await, Vec::<Value>::new());
    world.run(&["db", "check"]).await.ok();
    world.run(&["volumes", "delete", &id]).await.refused(7, &["no such volume"]);
}

/// Due while the folder of the volumes is an empty mount point.
async fn unmounted() {
    let (world, id) = replicated().await;
    let (volumes_path, elsewhere) = (world.path("data/volumes"), world.path("elsewhere"));
    world.run(&["volumes", "detach", &id]).await.ok();
    world.run(&["volumes", "delete", &id, "--grace", "1s"]).await.ok();
    fs::rename(&volumes_path, &elsewhere).unwrap();
    fs::create_dir(&volumes_path).unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    for line in ["recover", "compare"] {
        world.run(&["volumes", line]).await.refused(5, &["mount its file system", "volumes.id"]);
    }
    fs::remove_dir(&volumes_path).unwrap();
    fs::rename(&elsewhere, &volumes_path).unwrap();
    assert_eq!(volumes(&world).await.len(), 1, "nothing was recorded");
    let image = world.path(&format!("data/volumes/{id}.raw"));
    assert!(image.exists());
    world.run(&["volumes", "recover"]).await.ok();
    assert_eq!((volumes(&world).await, image.exists()), (Vec::<Value>::new(), false));
}

async fn killed() {
    let (world, id) = replicated().await;
    let began = Instant::now();
    world.run(&["volumes", "detach", &id]).await.ok();
    let life = began.elapsed();
    for round in 0..16 {
        let (what, then) = if round % 2 == 0 { ("attach", "attached") } else { ("detach", "detached") };
        let mut child = world.oma(&["volumes", what, &id]).spawn().unwrap();
        // Whether it was done by then is looked at below.
        drop(tokio::time::timeout(life * round / 16, child.wait()).await);
        child.kill().await.unwrap();
        world.run(&["volumes", "recover"]).await.ok();
        world.run(&["db", "check"]).await.ok();
        for operation in operations(&world, &id).await {
            assert_ne!(operation["status"], "executing", "{operation}");
        }
        if volumes(&world).await[0]["status"] != then {
            world.run(&["volumes", what, &id]).await.ok();
        }
        assert_eq!(volumes(&world).await[0]["status"], then);
    }
    let source = world.text("disk.raw");
    world.replicate(&["--source", source.as_str()]).await.ok();
}

/// Leaves an operation of this volume in doubt, as a process does whose backend went away.
async fn doubted(world: &World, id: &str) -> OperationId {
    let url = format!("sqlite://{}", world.path("data/oma.db").display());
    let store = SqlStore::open(&StoreConfig { url, ..StoreConfig::default() }).await.unwrap();
    let volume = store.volume(&VolumeId::parse(id).unwrap()).await.unwrap().unwrap();
    let job = JobId::mint(SystemClock.now());
    store.insert(JobSpec::operate(job.clone(), volume.disk.clone())).await.unwrap();
    let worker = WorkerId::parse("killed").unwrap();
    let lease = store.claim(&job, &worker, Duration::from_millis(1)).await.unwrap();
    let spec = OperationSpec::new(OperationId::mint(), OperationKind::Detach, volume.disk, job);
    let spec = OperationSpec { volume: Some(volume.id), ..spec };
    store.begin(&lease, &spec).await.unwrap();
    store.doubt(&lease, &spec.id, "no answer within 900 s").await.unwrap();
    store.release(&lease).await.unwrap();
    store.close().await;
    spec.id
}

async fn abandoned() {
    let (world, id) = replicated().await;
    let operation = doubted(&world, &id).await;
    let abandon = ["volumes", "abandon", operation.as_str(), "--reason", "the array burnt down"];
    world.run(&abandon).await.refused(4, &["the backend answers"]);
    // The backend does not tell of it any more.
    let path = world.path(&format!("data/volumes/{id}.json"));
    let record = fs::read(&path).unwrap();
    fs::write(&path, b"{").unwrap();
    let ran = world.run(&abandon).await.ok();
    assert!(ran.out.contains("failed: abandoned: the array burnt down; its volume may be"), "{ran:#?}");
    fs::write(&path, record).unwrap();
    world.run(&["volumes", "abandon", "op-none", "--reason", "why"]).await.refused(7, &["op-none"]);
    world.run(&["db", "check"]).await.ok();
    world.run(&["volumes", "detach", &id]).await.ok();
    let done = &operations(&world, &id).await[0];
    world
        .run(&["volumes", "abandon", done["operation_id"].as_str().unwrap(), "--reason", "why"])
        .await
        .refused(4, &["it is completed"]);
    let source = world.text("disk.raw");
    world.replicate(&["--source", source.as_str()]).await.ok();
}

async fn refused() {
    let (world, id) = replicated().await;
    world.run(&["volumes", "detach", "vol-none"]).await.refused(7, &["no such volume", "oma volumes list"]);
    for (wrong, word) in [
        (&["volumes", "resize", &id, "6XB"][..], "6XB"),
        (&["volumes", "delete", &id, "--grace", "soon"], "no age"),
    ] {
        let ran = world.run(wrong).await;
        assert!(ran.code == 2 && ran.err.contains(word), "{ran:#?}");
    }
    world.run(&["volumes", "list", "--vm-path", "/DC/vm/none"]).await.refused(7, &["no such VM"]);
    let path = world.path(&format!("data/volumes/{id}.json"));
    let mut record: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    record["tag"]["instance"] = Value::from("another-deployment");
    let foreign = record.to_string();
    fs::write(&path, &foreign).unwrap();
    world.run(&["volumes", "detach", &id]).await.refused(4, &["another-deployment"]);
    assert_eq!(fs::read_to_string(&path).unwrap(), foreign);
    assert_eq!(operations(&world, &id).await[0]["status"], "failed");
}

async fn reconciled() {
    let (world, id) = replicated().await;
    let plan = world.text("plan.json");
    let whole = world.run(&["--json", "volumes", "compare"]).await.ok().json();
    assert_eq!(
        (&whole["in_order"], &whole["findings"]),
        (&Value::from(1), &Value::from(Vec::<Value>::new()))
    );
    // Somebody detached it by hand.
    let path = world.path(&format!("data/volumes/{id}.json"));
    let before = fs::read_to_string(&path).unwrap();
    fs::write(&path, before.replace("\"attached\"", "\"detached\"")).unwrap();
    let ran = world.run(&["volumes", "compare", "--plan", plan.as_str()]).await;
    assert!(ran.code == 3 && ran.out.contains("not_attached") && ran.out.contains(&id), "{ran:#?}");
    assert_eq!(volumes(&world).await[0]["status"], "attached", "nothing is changed by looking");
    world.run(&["volumes", "repair", plan.as_str()]).await.ok();
    assert_eq!(volumes(&world).await[0]["status"], "detached");
    world.run(&["db", "check"]).await.ok();
    // A second time it is found done; a volume of somebody else is nobody's to repair.
    world.run(&["volumes", "repair", plan.as_str()]).await.ok();
    let mut record: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    record["tag"]["instance"] = Value::from("another-deployment");
    fs::write(&path, record.to_string()).unwrap();
    let ran = world.run(&["volumes", "compare", "--plan", plan.as_str()]).await;
    assert!(ran.code == 3 && ran.out.contains("other_instance"), "{ran:#?}");
    assert_eq!(world.run(&["volumes", "repair", plan.as_str()]).await.code, 3);
    assert_eq!(fs::read_to_string(&path).unwrap(), record.to_string());
    world.run(&["volumes", "repair", "none.json"]).await.refused(7, &["plan"]);
    fs::write(world.path("plan.json"), "[]").unwrap();
    world.run(&["volumes", "repair", plan.as_str()]).await.refused(2, &["compare --plan"]);
}
