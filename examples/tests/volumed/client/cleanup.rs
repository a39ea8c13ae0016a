//! `oma cleanup` as a client.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Output, Stdio};

use futures_util::TryStreamExt as _;
use oma_core::record::{CleanupFilter, CleanupSpec};
use oma_core::traits::Cleanups as _;
use oma_core::{CleanupId, WorkerId};
use oma_store::{SqlStore, StoreConfig};
use serde_json::{Value, json};

use super::refused;
use crate::appliance::cancelled;
use crate::world::World;

fn text(done: &Output) -> String {
    assert!(done.status.success(), "{done:?}");
    String::from_utf8(done.stdout.clone()).unwrap()
}

/// What a plan tells, without the ids and times of the plan itself.
fn plan(mut row: Value) -> Value {
    for name in ["cleanup_id", "worker", "created_at", "updated_at"] {
        row[name].take();
    }
    for step in row["steps"].as_array_mut().unwrap() {
        step["updated_at"].take();
    }
    row
}

pub(super) async fn asks() {
    let world = World::of_appliance();
    let jobs = cancelled(&world).await;
    let (job, other) = (jobs[0].as_str(), jobs[1].as_str());
    let alone = world.told_well(&["cleanup", job]).await;
    let shown = text(&world.told(&["cleanup", job]).await);
    let daemon = world.serves().await;
    let served = world.told_well(&["cleanup", job]).await;
    assert_ne!(alone["cleanup_id"], served["cleanup_id"]);
    assert_eq!(daemon.get(&format!("/cleanups/{}", served["cleanup_id"].as_str().unwrap())).await, served);
    assert_eq!(plan(alone.clone()), plan(served.clone()), "it is one world");
    let asked = text(&world.told(&["cleanup", job]).await);
    assert_eq!(asked.lines().count(), shown.lines().count());
    let all_but_last = |text: &str| text.trim_end().rsplit_once('\n').unwrap().0.to_owned();
    assert_eq!(all_but_last(&asked), all_but_last(&shown), "it is told alike");
    assert!(asked.contains("nothing was changed"), "{asked}");

    let id = served["cleanup_id"].as_str().unwrap();
    refused(&world.told(&["cleanup", other, "--execute", "--plan", id]).await, 2, job);
    refused(&world.told(&["cleanup", job, "--execute", "--plan", "cleanup-none"]).await, 7, "no such plan");
    refused(&world.told(&["cleanup", "job-none"]).await, 7, "job-none");
    refused(&world.told(&["cleanup", job, "failover-none"]).await, 7, "failover-none");
    refused(&world.told(&["cleanup", job, "--embedded"]).await, 4, "works in it");
    let done = world.told_well(&["cleanup", job, "--execute", "--plan", id]).await;
    assert_eq!((&done["cleanup_id"], &done["status"]), (&json!(id), &json!("completed")), "{done}");
    let again = text(&world.told(&["cleanup", job, "--execute"]).await);
    assert!(again.contains("there is nothing to do"), "{again}");
    let done = text(&world.told(&["cleanup", other, "--execute"]).await);
    assert!(done.contains(&format!("{other} is cleaned up; left is nothing")), "{done}");
    // The world is not as this one saw it.
    let stale = alone["cleanup_id"].as_str().unwrap();
    refused(&world.told(&["cleanup", job, "--execute", "--plan", stale]).await, 4, "");
    let left = daemon.all("/replications").await;
    assert!(left.iter().all(|row| row["job_id"] != json!(job) && row["job_id"] != json!(other)), "{left:?}");
    daemon.stop().await;
}

pub(super) async fn follows() {
    let world = World::of_appliance();
    let jobs = cancelled(&world).await;
    let daemon = world.serves().await;
    let data = world.text("data");
    let line = ["cleanup", &jobs[0], "--execute", "--json", "--data-dir", &data];
    let followed = world.oma(&line).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    while !daemon.all("/cleanups").await.iter().any(|cleanup| cleanup["status"] != json!("planned")) {
        tokio::task::yield_now().await;
    }
    daemon.kill().await;
    let daemon = world.serves().await;
    let ended = followed.wait_with_output().await.unwrap();
    let row: Value = serde_json::from_str(&text(&ended)).unwrap();
    assert_eq!(row["status"], json!("completed"), "{row}");
    assert_eq!(daemon.all("/cleanups").await.len(), 1, "nothing was planned twice");
    daemon.stop().await;
}

/// Another appliance of the same database began a cleanup and is no more.
pub(super) async fn elsewhere() {
    let world = World::of_appliance();
    let jobs = cancelled(&world).await;
    let job = jobs[0].as_str();
    world.told_well(&["cleanup", job]).await;
    let url = format!("sqlite://{}/oma.db", world.text("data"));
    let store = SqlStore::open(&StoreConfig { url, ..StoreConfig::default() }).await.unwrap();
    let planned: Vec<_> = store.cleanups(CleanupFilter::default()).try_collect().await.unwrap();
    let (id, worker) = (CleanupId::mint(), WorkerId::parse("omad-that-died").unwrap());
    let spec = CleanupSpec { id: id.clone(), worker, ..planned[0].spec.clone() };
    store.insert_cleanup(&spec).await.unwrap();
    store.begin_cleanup(&id).await.unwrap();
    store.close().await;
    let daemon = world.serves().await;
    let done = world.told_well(&["cleanup", job, "--execute"]).await;
    assert_eq!(done["status"], json!("completed"), "{done}");
    let left = daemon.get(&format!("/cleanups/{id}")).await;
    assert_eq!(left["status"], json!("refused"), "{left}");
    daemon.stop().await;
}

pub(super) async fn roles() {
    let world = World::of_appliance();
    let jobs = cancelled(&world).await;
    let job = jobs[0].as_str();
    let mut files = Vec::new();
    for role in ["viewer", "operator", "admin"] {
        let file = world.text(role);
        fs::write(&file, world.token(role, role).await).unwrap();
        fs::set_permissions(&file, Permissions::from_mode(0o600)).unwrap();
        files.push(file);
    }
    let daemon = world.serves().await;
    let api = daemon.addresses[1].clone();
    let asked = async |args: &[&str], file: &str| {
        let place = ["--api", &api, "--token-file", file, "--data-dir", "/nowhere"];
        world.oma(args).args(place).output().await.unwrap()
    };
    let [viewer, operator, admin] = [0, 1, 2].map(|at: usize| files[at].as_str());
    refused(&asked(&["cleanup", job], viewer).await, 1, "operator");
    assert!(text(&asked(&["cleanup", job], operator).await).contains("nothing was changed"));
    refused(&asked(&["cleanup", job, "--execute"], operator).await, 1, "admin");
    assert!(text(&asked(&["cleanup", job, "--execute"], admin).await).contains("is cleaned up"));
    daemon.stop().await;
}
