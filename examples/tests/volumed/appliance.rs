//! The appliance: replications are recorded, driven, and survive whoever dies.

use std::fs;
use std::time::{Duration, Instant};

use oma_core::conformance::{Requirement, Trial, trial};
use reqwest::Method;
use serde_json::{Value, json};

use crate::world::{Daemon, LIMIT, MIB, World};

const VMS: usize = 5;
pub(crate) const DISKS: usize = 2;
const SIZE: u64 = 8 * MIB;

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("the_appliance_brings_a_vm_from_epoch_to_epoch", &[], epochs),
        trial("l26_a_killed_appliance_goes_on_with_its_cleanups", &[], cleaned_up),
        trial("l29_the_appliance_reads_no_file_outside_its_directories", &[], outside),
        trial("the_appliance_says_whether_it_is_ready_and_how_it_stands", &[], standing),
        trial("a_checker_finds_no_fault_in_the_figures", &[Requirement::Program("promtool")], figures),
        trial("settings_that_are_wrong_are_named_and_nothing_begins", &[], settings),
    ]
}

impl World {
    pub(crate) async fn appliance(&self) -> Daemon {
        self.start(&["--source-dir", &self.text("images")]).await
    }

    pub(crate) fn image(&self, vm: usize, disk: usize) -> String {
        self.text(&format!("images/vm-{vm}-{disk}.raw"))
    }

    /// Writes other data to a part of each disk of a VM.
    pub(crate) fn write(&self, vm: usize, seed: u8) {
        for disk in 0..DISKS {
            let path = self.image(vm, disk);
            let mut content = fs::read(&path).unwrap_or_else(|_| vec![0; usize::try_from(SIZE).unwrap()]);
            let from = usize::from(seed) * 300_000 % content.len();
            let to = content.len().min(from + 2_000_000);
            content[from..to].fill(seed | 1);
            fs::write(path, content).unwrap();
        }
    }

    pub(crate) fn request(&self, vm: usize) -> Value {
        let disk = |disk| json!({ "key": format!("disk-{}", 2000 + disk), "source": self.image(vm, disk) });
        let disks: Vec<_> = (0..DISKS).map(disk).collect();
        json!({ "vm_path": format!("/DC/vm/vm-{vm}"), "source": { "disks": disks } })
    }

    /// Each volume of the job holds exactly what its source does.
    pub(crate) async fn assert_replicated(&self, daemon: &Daemon, job: &str, vm: usize) {
        let disks = daemon.get(&format!("/replications/{job}/disks")).await;
        assert_eq!(disks.as_array().unwrap().len(), DISKS, "{disks}");
        for (disk, row) in disks.as_array().unwrap().iter().enumerate() {
            assert_eq!(row["consistent"], json!(true), "{row}");
            let volume = fs::read(row["volume_path"].as_str().unwrap()).unwrap();
            assert!(volume == fs::read(self.image(vm, disk)).unwrap(), "{row} differs from its source");
        }
    }
}

impl Daemon {
    /// Waits until the last line of a job's log is this one.
    pub(crate) async fn told(&self, job: &str, message: &str) {
        let begun = Instant::now();
        loop {
            let lines = self.all(&format!("/replications/{job}/logs")).await;
            if lines.last().is_some_and(|line| line["message"] == json!(message)) {
                return;
            }
            assert!(begun.elapsed() < LIMIT, "{lines:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// Waits until a job has ended; `None` when nobody answers any more.
pub(crate) async fn ended(daemon: &Daemon, job: &str) -> Option<Value> {
    let begun = Instant::now();
    loop {
        let (_, row) = daemon.try_ask(Method::GET, &format!("/replications/{job}"), None, None).await?;
        if !row["completed_at"].is_null() {
            return Some(row);
        }
        assert!(begun.elapsed() < LIMIT * 4, "{row}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn epochs() {
    let world = World::of_appliance();
    world.write(0, 1);
    let mut daemon = world.appliance().await;
    for epoch in 1..=3_u8 {
        let (status, job) = daemon.ask(Method::POST, "/replications", Some(world.request(0))).await;
        assert_eq!(status, 201, "{job}");
        let id = job["job_id"].as_str().unwrap();
        let row = ended(&daemon, id).await.unwrap();
        assert_eq!((&row["status"], &row["epoch"]), (&json!("completed"), &json!(epoch)), "{row}");
        world.assert_replicated(&daemon, id, 0).await;
        let progress = daemon.get(&format!("/replications/{id}/progress")).await;
        assert_eq!(progress["durable_bytes"], progress["total_bytes"], "{progress}");
        daemon.told(id, &format!("epoch {epoch} is committed")).await;
        let steps = daemon.all(&format!("/replications/{id}/steps")).await;
        assert!(steps.iter().all(|step| step["status"] == json!("completed")), "{steps:?}");
        assert_eq!(steps.last().unwrap()["name"], json!("commit"));
        world.write(0, epoch + 1);
        if epoch == 2 {
            daemon.stop().await;
            daemon = world.appliance().await;
        }
    }
    let jobs = daemon.all("/replications").await;
    assert_eq!(jobs.len(), 3, "{jobs:?}");
    daemon.stop().await;
}

/// A cancelled job of each VM, whose volumes hold a part of an epoch.
pub(crate) async fn cancelled(world: &World) -> Vec<String> {
    // A copy takes minutes.
    let (limits, config) = (world.text("limits.json"), world.text("omad.toml"));
    fs::write(&limits, r#"{"link": {"bandwidth": 65536}}"#).unwrap();
    fs::write(&config, format!("[work]\njobs = {VMS}\nlimits = {limits:?}\n")).unwrap();
    let daemon = world.start(&["--source-dir", &world.text("images"), "--config", &config]).await;
    let mut jobs = Vec::new();
    for vm in 0..VMS {
        world.write(vm, 1);
        let (status, job) = daemon.ask(Method::POST, "/replications", Some(world.request(vm))).await;
        assert_eq!(status, 201, "{job}");
        jobs.push(job["job_id"].as_str().unwrap().to_owned());
    }
    for job in &jobs {
        let begun = Instant::now();
        while daemon.get(&format!("/replications/{job}")).await["status"] != json!("replicating") {
            assert!(begun.elapsed() < LIMIT);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let (status, row) = daemon.ask(Method::POST, &format!("/replications/{job}/cancel"), None).await;
        assert_eq!(status, 202, "{row}");
    }
    for job in &jobs {
        assert_eq!(ended(&daemon, job).await.unwrap()["status"], json!("cancelled"));
    }
    daemon.stop().await;
    jobs
}

/// Waits until every cleanup has ended; `None` when nobody answers any more.
async fn cleaned(daemon: &Daemon, cleanups: &[String]) -> Option<()> {
    let begun = Instant::now();
    for cleanup in cleanups {
        loop {
            let (_, row) = daemon.try_ask(Method::GET, &format!("/cleanups/{cleanup}"), None, None).await?;
            if row["status"] == json!("completed") {
                assert!(
                    row["left"].as_object().unwrap().values().all(|count| count.as_u64() == Some(0)),
                    "{row}"
                );
                break;
            }
            assert!(row["status"] == json!("executing") && begun.elapsed() < LIMIT * 4, "{row}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
    Some(())
}

async fn cleaned_up() {
    let world = World::of_appliance();
    let jobs = cancelled(&world).await;
    let mut daemon = world.appliance().await;
    let mut cleanups = Vec::new();
    for job in &jobs {
        let (status, plan) = daemon.ask(Method::POST, "/cleanups", Some(json!({ "job_id": job }))).await;
        assert_eq!((status, &plan["first"]), (201, &json!([])), "{plan}");
        cleanups.push(plan["cleanup_id"].as_str().unwrap().to_owned());
    }
    for cleanup in &cleanups {
        let (status, row) = daemon.ask(Method::POST, &format!("/cleanups/{cleanup}/execute"), None).await;
        assert!(status == 202 || status == 200, "{row}");
    }
    let mut kills = 0;
    for patience in [1, 4, 9, 16, 25, 36] {
        let within = Duration::from_millis(patience);
        if tokio::time::timeout(within, cleaned(&daemon, &cleanups)).await.is_err() {
            kills += 1;
            daemon.kill().await;
            daemon = world.appliance().await;
        }
    }
    assert!(kills > 0);
    cleaned(&daemon, &cleanups).await.unwrap();
    assert_eq!(daemon.all("/volumes").await, Vec::<Value>::new());
    let left = daemon.all("/replications").await;
    assert!(left.iter().all(|job| !jobs.iter().any(|id| job["job_id"] == json!(id))), "{left:?}");
    let images = fs::read_dir(world.path("data/volumes"))
        .unwrap()
        .filter(|file| file.as_ref().unwrap().path().extension().is_some_and(|end| end == "raw"));
    assert_eq!(images.count(), 0);
    // A fresh start.
    let (_, job) = daemon.ask(Method::POST, "/replications", Some(world.request(0))).await;
    let job = job["job_id"].as_str().unwrap();
    assert_eq!(ended(&daemon, job).await.unwrap()["status"], json!("completed"));
    world.assert_replicated(&daemon, job, 0).await;
    daemon.stop().await;
}

async fn outside() {
    let world = World::of_appliance();
    let secret = world.text("secret.raw");
    fs::write(&secret, vec![1; 512]).unwrap();
    let daemon = world.appliance().await;
    let request =
        json!({ "vm_path": "/DC/vm/x", "source": { "disks": [{ "key": "disk-2000", "source": secret }] } });
    let (status, refused) = daemon.ask(Method::POST, "/replications", Some(request)).await;
    assert_eq!(status, 403, "{refused}");
    assert!(daemon.all("/replications").await.is_empty() && daemon.all("/vms").await.is_empty());
    daemon.stop().await;
}

async fn settings() {
    let world = World::of_appliance();
    let file = world.text("omad.toml");
    for (text, named) in
        [("[work]\njob = 3\n", "job"), ("[work]\njobs = 0\n", "work.jobs"), ("= 3", "omad.toml")]
    {
        fs::write(&file, text).unwrap();
        let ran = world.run(&["check-config", "--config", &file]).await;
        assert_eq!(ran.code, Some(2), "{ran:?}");
        assert!(ran.err.contains(named), "{ran:?}");
    }
    fs::write(&file, "[work]\njobs = 2\n[sources]\ndirectories = [\"/srv\"]\n").unwrap();
    let ran = world.run(&["check-config", "--config", &file]).await;
    assert_eq!(ran.code, Some(0), "{ran:?}");
    assert!(ran.out.contains("jobs = 2\n") && ran.out.contains("grace = \"7d\"\n"), "{ran:?}");
    // It is a file of settings itself.
    fs::write(&file, &ran.out).unwrap();
    assert_eq!(world.run(&["check-config", "--config", &file]).await.out, ran.out);
    let (keys, zone) = (world.text("keys"), world.text("zone.json"));
    fs::write(&zone, "{}").unwrap();
    let text = format!(
        "[volumes]\nbackend = \"cloudstack\"\ncloudstack = \"{zone}\"\ncloudstack_keys = \"{keys}\"\n"
    );
    for (text, named) in [
        (text.as_str(), "zone.json"),
        ("[api]\ntls_certificate = \"/nowhere/c\"\ntls_key = \"/nowhere/k\"\n", "/nowhere/c"),
        ("[nbd]\ntls_certificates = \"/nowhere\"\n", "/nowhere/"),
        ("[work]\nlimits = \"/nowhere/l\"\n", "/nowhere/l"),
    ] {
        fs::write(&file, text).unwrap();
        let ran = world.run(&["check-config", "--config", &file]).await;
        assert!(ran.code != Some(0) && ran.err.contains(named), "{ran:?}");
    }
    assert!(!world.path("data").exists());
    let open = world.run(&["--no-auth", "--listen", "0.0.0.0:0"]).await;
    assert!(open.err.contains("--no-auth is for an address of this machine"), "{open:?}");
    assert!(!world.path("data/tls").exists());
}

impl World {
    /// A daemon that has driven a job, and its figures.
    async fn figured(&self) -> (Daemon, String) {
        self.write(0, 1);
        let daemon = self.appliance().await;
        let (_, job) = daemon.ask(Method::POST, "/replications", Some(self.request(0))).await;
        ended(&daemon, job["job_id"].as_str().unwrap()).await.unwrap();
        let figures = daemon.text("/metrics").await;
        (daemon, figures)
    }
}

async fn standing() {
    let world = World::of_appliance();
    let (daemon, figures) = world.figured().await;
    // Anybody may ask, and learns no more than that.
    let url = daemon.url().replace("/api/v1", "/ready");
    let ready: Value = reqwest::get(url).await.unwrap().json().await.unwrap();
    assert_eq!(
        ready,
        json!({ "status": "ready", "parts": ["database", "backend", "exports", "disk space", "worker"] })
    );
    for line in [
        "oma_jobs_ended_last_day{status=\"completed\"} 1",
        "oma_jobs_waiting 0",
        "oma_worker_running 1",
        "oma_database_up 1",
        "oma_backend_calls_total{call=\"create\",outcome=\"ok\"} 2",
        "oma_api_requests_total{method=\"POST\",route=\"/api/v1/replications\",status=\"201\"} 1",
    ] {
        assert!(figures.lines().any(|told| told == line), "{line} is not in {figures}");
    }
    // What a client cannot be let in by is not there.
    fs::remove_file(world.path("data/nbd.sock")).unwrap();
    let begun = Instant::now();
    let problem = loop {
        let (status, problem) = daemon.ask(Method::GET, "/ready", None).await;
        if status == 503 {
            break problem;
        }
        assert!(begun.elapsed() < LIMIT, "{problem}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    assert!(problem["detail"].as_str().unwrap().contains("not there: exports;"), "{problem}");
    daemon.stop().await;
}

async fn figures() {
    let world = World::of_appliance();
    let (daemon, figures) = world.figured().await;
    daemon.stop().await;
    let file = world.path("figures");
    fs::write(&file, &figures).unwrap();
    let mut checker = tokio::process::Command::new("promtool");
    checker.args(["check", "metrics"]).stdin(fs::File::open(&file).unwrap());
    let said = checker.output().await.unwrap();
    let told = String::from_utf8_lossy(&said.stderr).into_owned() + &String::from_utf8_lossy(&said.stdout);
    assert!(said.status.success(), "{told}\n{figures}");
}
