//! Two appliances with one database and one volume daemon share a queue, and either goes on when the other one is gone.

use std::collections::BTreeSet;
use std::fs;
use std::process::Stdio;
use std::time::{Duration, Instant};

use oma_core::conformance::{Trial, trial, trial_within};
use oma_store::servers::{Database, Server, ServerEngine};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::process::Command;

use crate::world::{Daemon, MIB, World};

const JOBS: usize = 50;
const SIZE: u64 = 4 * MIB;
/// Leases of jobs and of sessions end after half a minute each; what waits for both is attempted again after that.
const PATIENCE: Duration = Duration::from_secs(300);

pub(crate) fn trials() -> Vec<Trial> {
    let mut trials = Vec::new();
    for (name, engine) in [("mariadb", ServerEngine::MariaDb), ("postgres", ServerEngine::Postgres)] {
        for (what, death) in [
            ("what_a_killed_appliance_drove_another_one_ends", Death::Killed),
            ("a_write_of_an_appliance_that_comes_back_is_refused", Death::Stopped),
        ] {
            let case = move || shared(engine, death);
            let name = format!("l16_{what}::{name}");
            trials.push(trial_within(PATIENCE, &name, &[engine.required()], case));
        }
    }
    let agent = [ServerEngine::MariaDb.required()];
    trials.push(trial("an_agent_finds_the_appliance_that_drives_its_job", &agent, found));
    trials
}

/// How the first one goes.
#[derive(Clone, Copy, Debug)]
enum Death {
    Killed,
    /// As a machine does that is paused: it comes back, and goes on where it was.
    Stopped,
}

/// Two appliances and what they share.
struct Pair {
    volumes: World,
    first: World,
    second: World,
    database: Database,
}

impl Pair {
    async fn new(engine: ServerEngine) -> Self {
        let database = Server::shared(engine).await.unwrap().create_database().await.unwrap();
        let this = Self {
            volumes: World::new(),
            first: World::of_appliance(),
            second: World::of_appliance(),
            database,
        };
        for job in 0..JOBS {
            fs::write(this.image(job), sample(job)).unwrap();
        }
        this
    }

    fn image(&self, job: usize) -> String {
        self.first.text(&format!("images/vm-{job}.raw"))
    }

    /// One whose sources are read so fast.
    async fn start(&self, world: &World, bandwidth: u64) -> Daemon {
        self.start_with(world, bandwidth, 4).await
    }

    /// As [`Pair::start`], driving so many jobs at a time.
    async fn start_with(&self, world: &World, bandwidth: u64, jobs: u32) -> Daemon {
        let remote = json!({ "address": format!("unix:{}", self.volumes.text("data/volumed.sock")) });
        fs::write(world.path("remote.json"), remote.to_string()).unwrap();
        let limits = json!({ "link": { "bandwidth": bandwidth } });
        fs::write(world.path("limits.json"), limits.to_string()).unwrap();
        let settings = format!(
            "[volumes]\nbackend = \"remote\"\nremote = {:?}\n[work]\njobs = {jobs}\nlimits = {:?}\n[sources]\ndirectories = [{:?}]\n",
            world.path("remote.json"),
            world.path("limits.json"),
            self.first.path("images"),
        );
        fs::write(world.path("omad.toml"), settings).unwrap();
        world.start(&["--config", &world.text("omad.toml"), "--database", &self.database.url()]).await
    }

    async fn submit(&self, daemon: &Daemon, job: usize) {
        let body = json!({
            "vm_path": format!("/DC/vm/vm-{job}"),
            "source": { "disks": [{ "key": "disk-2000", "source": self.image(job) }] },
        });
        let (status, row) = daemon.ask(Method::POST, "/replications", Some(body)).await;
        assert_eq!(status, 201, "{row}");
    }

    /// Each volume holds exactly what its source does.
    async fn assert_replicated(&self, daemon: &Daemon) {
        for job in daemon.all("/replications").await {
            assert_eq!(job["status"], json!("completed"), "{job}");
            let path = job["vm_path"].as_str().unwrap();
            let number: usize = path.rsplit('-').next().unwrap().parse().unwrap();
            let disks = daemon.get(&format!("/replications/{}/disks", job["job_id"].as_str().unwrap())).await;
            let place = disks[0]["volume_path"].as_str().unwrap();
            let (_, place) = place.rsplit_once(':').expect("the daemon's address stands before it");
            assert!(
                fs::read(place).unwrap() == fs::read(self.image(number)).unwrap(),
                "{path} differs from its source"
            );
        }
    }

    /// From now on the disk of a job's VM holds something else in every place.
    async fn rewrite(&self, daemon: &Daemon, job: &str) {
        let row = daemon.get(&format!("/replications/{job}")).await;
        let number = row["vm_path"].as_str().unwrap().rsplit('-').next().unwrap().parse().unwrap();
        let other: Vec<u8> = sample(number).iter().map(|byte| !byte).collect();
        fs::write(self.image(number), other).unwrap();
    }
}

/// What the disk of a VM holds: no two hold the same.
fn sample(job: usize) -> Vec<u8> {
    let seed = u8::try_from(job).unwrap() | 0x80;
    (0..SIZE).map(|at| seed.wrapping_add(u8::try_from(at >> 12 & 0xff).unwrap()) | 1).collect()
}

/// Until so many jobs stand so; answers all jobs.
async fn until(daemon: &Daemon, what: &str, enough: impl Fn(&[Value]) -> bool) -> Vec<Value> {
    let begun = Instant::now();
    loop {
        let jobs = daemon.all("/replications").await;
        if enough(&jobs) {
            return jobs;
        }
        assert!(begun.elapsed() < PATIENCE, "{what}: {jobs:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

fn completed(jobs: &[Value]) -> usize {
    jobs.iter().filter(|job| job["status"] == json!("completed")).count()
}

/// The jobs that are being written by a worker.
fn written_by<'a>(jobs: &'a [Value], worker: &str) -> BTreeSet<&'a str> {
    let is_written = |job: &&Value| job["worker"] == json!(worker) && job["status"] == json!("replicating");
    jobs.iter().filter(is_written).map(|job| job["job_id"].as_str().unwrap()).collect()
}

async fn shared(engine: ServerEngine, death: Death) {
    let pair = Pair::new(engine).await;
    let volumes = pair.volumes.start(&[]).await;
    // So slow that it is in the middle of something whenever it goes.
    let first = pair.start(&pair.first, MIB / 2).await;
    for job in 0..JOBS / 2 {
        pair.submit(&first, job).await;
    }
    let jobs = until(&first, "the first one writes", |jobs| {
        jobs.iter().filter(|job| job["status"] == json!("replicating")).count() >= 2
    })
    .await;
    let worker = jobs.iter().find_map(|job| job["worker"].as_str()).unwrap().to_owned();
    let second = pair.start(&pair.second, 64 * MIB).await;
    for job in JOBS / 2..JOBS {
        pair.submit(&second, job).await;
    }
    let jobs = until(&second, "both drive", |jobs| completed(jobs) >= 5).await;
    assert!(!written_by(&jobs, &worker).is_empty(), "{jobs:?}");
    let first = match death {
        Death::Killed => {
            first.kill().await;
            // Nobody takes the files of its data directory for its volumes, nor the database there for its records.
            for (args, told) in [(&["volumes", "recover"][..], "`remote`"), (&["disks"], "the records in")] {
                let refused = pair.first.oma_here(args).await;
                assert!(refused.code == Some(4) && refused.err.contains(told), "{refused:?}");
            }
            None
        }
        Death::Stopped => {
            first.signal("STOP").await;
            Some(first)
        }
    };
    let left = second.all("/replications").await;
    let left = written_by(&left, &worker);
    assert!(!left.is_empty(), "it was in the middle of something");
    if first.is_some() {
        // What it was about to write is wrong from now on: wherever a write of it lands, the volume shows it.
        for job in &left {
            pair.rewrite(&second, job).await;
        }
    }
    let jobs = until(&second, "the other one ends all", |jobs| completed(jobs) == JOBS).await;
    assert_eq!(jobs.len(), JOBS);
    for job in jobs.iter().filter(|job| left.contains(job["job_id"].as_str().unwrap())) {
        assert_ne!(job["worker"], json!(worker), "{job}");
    }
    pair.assert_replicated(&second).await;
    if let Some(first) = first {
        first.signal("CONT").await;
        let ended = first.stop().await;
        assert!(ended.err.contains("left to its next owner"), "{}", ended.err);
        pair.assert_replicated(&second).await;
    }
    let operations = second.all("/operations").await;
    assert!(operations.iter().all(|one| one["status"] != json!("executing")), "{operations:?}");
    assert_eq!(second.all("/volumes").await.len(), JOBS, "one volume for each disk");
    second.stop().await;
    volumes.stop().await;
}

/// A push job at one appliance, which drives no second one; that of the agent is driven by the other.
async fn found() {
    let pair = Pair::new(ServerEngine::MariaDb).await;
    let volumes = pair.volumes.start(&[]).await;
    let first = pair.start_with(&pair.first, 64 * MIB, 1).await;
    let second = pair.start_with(&pair.second, 64 * MIB, 1).await;
    let disk = json!({ "key": "disk-2000", "capacity_bytes": SIZE, "change_id": "b@1" });
    let body = json!({ "vm_path": "/DC/vm/busy", "push": { "disks": [disk] } });
    let (status, row) = second.ask(Method::POST, "/replications", Some(body)).await;
    assert_eq!(status, 201, "{row}");
    let busy = format!("/replications/{}/push", row["job_id"].as_str().unwrap());
    let begun = Instant::now();
    let worlds = loop {
        if second.get(&busy).await["ready"] == json!(true) {
            break [&pair.second, &pair.first];
        }
        if first.get(&busy).await["ready"] == json!(true) {
            break [&pair.first, &pair.second];
        }
        assert!(begun.elapsed() < PATIENCE, "nobody drives it");
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    let [busy, free] = worlds.map(|world| format!("unix:{}", world.text("data/omad.sock")));
    let image = pair.image(7);
    let agent = async |apis: &[&str]| {
        let mut agent = Command::new(env!("CARGO_BIN_EXE_agent"));
        for api in apis {
            agent.args(["--api", api]);
        }
        agent.args(["--vm-path", "/DC/vm/vm-7", "--source", &image, "--patience", "5s"]);
        agent.env_remove("OMA_API").env_remove("OMA_LOG").kill_on_drop(true);
        let ended = agent.stdin(Stdio::null()).output().await.unwrap();
        (ended.status.code(), String::from_utf8(ended.stderr).unwrap())
    };
    let (code, told) = agent(&[&busy]).await;
    assert_eq!(code, Some(5), "{told}");
    assert!(told.contains("name each with --api"), "{told}");
    let (code, told) = agent(&[&busy, &free]).await;
    assert_eq!(code, Some(0), "{told}");
    // One that is gone is passed by.
    let gone = format!("unix:{}", pair.first.text("nobody.sock"));
    let (code, told) = agent(&[&gone, &busy, &free]).await;
    assert_eq!(code, Some(0), "{told}");
    let jobs = first.all("/replications").await;
    assert_eq!((completed(&jobs), jobs.len()), (2, 3), "{jobs:?}");
    let done = jobs.iter().find(|job| job["status"] == json!("completed")).unwrap();
    let disks = first.get(&format!("/replications/{}/disks", done["job_id"].as_str().unwrap())).await;
    let (_, place) = disks[0]["volume_path"].as_str().unwrap().rsplit_once(':').unwrap();
    assert!(fs::read(place).unwrap() == sample(7), "{done} differs from its source");
    first.stop().await;
    second.stop().await;
    volumes.stop().await;
}
