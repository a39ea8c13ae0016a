//! `oma points`, `oma report` and `oma forecast` as clients.

use std::fs;
use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};

use super::{REPLICATE, refused, sample};
use crate::world::{Daemon, World};

const KEEP: [&str; 2] = ["--keep-points", "5"];

impl World {
    fn write_web01(&self, seed: u8) {
        fs::write(self.path("images/web01.raw"), sample(seed)).unwrap();
    }

    /// A replication of this content with a recovery point; its job.
    async fn replicated(&self, seed: u8, more: &[&str]) -> String {
        self.write_web01(seed);
        let job = self.told_well(&[&REPLICATE[..], &KEEP, more].concat()).await;
        assert_eq!(job["status"], json!("completed"), "{job}");
        job["job_id"].as_str().unwrap().to_owned()
    }

    /// The ids of the points, newest first.
    async fn points(&self) -> Vec<String> {
        let rows = self.told_well(&["points", "list", "--vm-path", "/DC/vm/web01"]).await;
        let id = |row: &Value| row["point_id"].as_str().unwrap().to_owned();
        rows.as_array().unwrap().iter().map(id).collect()
    }
}

async fn held(daemon: &Daemon) -> Vec<u8> {
    let jobs = daemon.all("/replications").await;
    let disks = daemon.get(&format!("/replications/{}/disks", jobs[0]["job_id"].as_str().unwrap())).await;
    fs::read(disks[0]["volume_path"].as_str().unwrap()).unwrap()
}

pub(super) async fn goes_back() {
    let world = World::of_appliance();
    let daemon = world.serves().await;
    for seed in [1, 2] {
        world.replicated(seed, &[]).await;
    }
    let points = world.points().await;
    let alone = world.told(&["points", "list", "--embedded"]).await;
    let served = world.told(&["points", "list"]).await;
    assert!(served.status.success() && alone.stdout == served.stdout, "it is told alike: {served:?}");
    for (args, code, words) in [
        (&["points", "revert", "point-none"][..], 7, "points list"),
        (&["points", "delete", "point-none"], 7, "points list"),
        (&["points", "list", "--vm-path", "/DC/vm/other"], 7, "oma disks"),
        (&["points", "revert", &points[0], "--embedded"], 4, "works in it"),
    ] {
        refused(&world.told(args).await, code, words);
    }
    let back = world.told(&["points", "revert", &points[1]]).await;
    let said = String::from_utf8_lossy(&back.stdout);
    assert!(back.status.success() && said.contains("the volumes hold epoch 1 again"), "{back:?}");
    assert!(held(&daemon).await == sample(1));
    let job = daemon.all("/replications").await[0].clone();
    assert_eq!((&job["kind"], &job["status"]), (&json!("revert"), &json!("cancelled")), "{job}");
    let log = world.told(&["logs", job["job_id"].as_str().unwrap()]).await;
    assert!(String::from_utf8_lossy(&log.stdout).contains("went back to epoch 1"), "{log:?}");

    world.replicated(3, &["--verify", "full"]).await;
    assert!(held(&daemon).await == sample(3));
    let row = world.told_well(&["points", "delete", &points[1]]).await;
    assert_eq!(row["point_id"], json!(points[1]));
    assert_eq!(world.points().await.len(), 2);
    refused(&world.told(&["points", "delete", &points[1]]).await, 7, "no such point");
    daemon.stop().await;
}

/// Killed at whatever moment of a revert: begun anew, the appliance ends it, and nobody has to ask.
pub(super) async fn survives() {
    let world = World::of_appliance();
    let mut daemon = world.serves().await;
    for seed in [1, 2] {
        world.replicated(seed, &[]).await;
    }
    let points = world.points().await;
    let (mut hits, mut round) = (0, 0_u64);
    while hits < 3 || round < 6 {
        assert!(round < 60, "too few kills hit a revert");
        let (to, seed) = if round % 2 == 0 { (1, 1) } else { (0, 2) };
        let key = format!("round-{round}");
        let path = format!("/points/{}/revert", points[to]);
        let begun = daemon.try_ask(Method::POST, &path, Some(&key), None).await.unwrap();
        assert!(matches!(begun.0, 200 | 202), "{begun:?}");
        tokio::time::sleep(Duration::from_millis(round % 6)).await;
        daemon.kill().await;
        daemon = world.serves().await;
        let waited = format!("{path}?wait=1m");
        let (status, ended) = daemon.try_ask(Method::POST, &waited, Some(&key), None).await.unwrap();
        assert_eq!((status, &ended["job_id"]), (200, &json!(format!("job-{key}"))), "{ended}");
        assert!(ended["error"].as_str().unwrap().starts_with("went back to epoch"), "{ended}");
        assert!(held(&daemon).await == sample(seed), "round {round}");
        let lines = daemon.all(&format!("/replications/job-{key}/logs")).await;
        let begins = |line: &&Value| line["message"].as_str().unwrap().starts_with("the volumes go back");
        hits += usize::from(lines.iter().filter(begins).count() > 1);
        round += 1;
    }
    world.replicated(4, &["--verify", "full"]).await;
    assert!(held(&daemon).await == sample(4));
    daemon.stop().await;
    let check = world.told(&["db", "check"]).await;
    assert!(check.status.success(), "{check:?}");
}

pub(super) async fn tells() {
    let world = World::of_appliance();
    let daemon = world.serves().await;
    let first = world.replicated(1, &["--verify", "full"]).await;
    let without = world.replicated(2, &[]).await;
    for args in [&["report", first.as_str()][..], &["report", &first, "--json"]] {
        let alone = world.told(&[args, &["--embedded"]].concat()).await;
        let served = world.told(args).await;
        assert!(served.status.success() && alone.stdout == served.stdout, "it is told alike: {served:?}");
    }
    let saved = world.text("report.json");
    world.told_well(&["report", &first, "--save", &saved]).await;
    assert!(fs::read_to_string(&saved).unwrap().contains(&first));
    refused(&world.told(&["report", &without]).await, 7, "--verify none");
    refused(&world.told(&["report", "job-none"]).await, 7, "oma jobs");
    let forecast = ["forecast", "--vm-path", "/DC/vm/web01"];
    refused(&world.told(&forecast).await, 7, "replicate it twice more");
    refused(&world.told(&["forecast", "--vm-path", "/DC/vm/other"]).await, 7, "oma disks");

    let verify = ["verify", "--vm-path", "/DC/vm/web01", "--source", "web01.raw"];
    let compared = world.told_well(&verify).await;
    assert_eq!(compared["status"], json!("identical"), "also while an appliance serves: {compared}");
    let api = daemon.addresses[1].clone();
    let elsewhere = world.told(&[&verify[..], &["--api", &api]].concat()).await;
    refused(&elsewhere, 2, "oma replicate --verify");
    daemon.stop().await;
}
