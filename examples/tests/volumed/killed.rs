//! `kill -9` of an appliance while it drives many jobs, pulled and pushed: all of them end well, and nothing is left over.

use std::fs::{self, File};
use std::time::Duration;

use oma_core::conformance::{Trial, trial_within};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::process::{Child, Command};

use crate::appliance::{DISKS, ended};
use crate::world::{Daemon, World};

/// In each one every VM is replicated: in full in the first one, then what changed.
const ROUNDS: usize = 2;
/// VMs that the appliance reads.
const VMS: usize = 10;
/// The VM behind the others, which an agent pushes.
const PUSHED: usize = VMS;
/// What was driven at the last kill of a round waits for the end of its lease.
const LONG: Duration = Duration::from_secs(300);
/// In each round; then it is left alone.
const KILLS: u64 = 10;

pub(crate) fn trials() -> Vec<Trial> {
    vec![trial_within(LONG, "l15_a_killed_appliance_ends_what_it_was_asked_for", &[], killed)]
}

/// What is wanted in a round, and not done yet.
struct Round {
    number: usize,
    pulled: Vec<usize>,
    agent: Option<Child>,
}

impl World {
    fn round(&self, number: usize) -> Round {
        for vm in 0..=PUSHED {
            self.write(vm, u8::try_from(number * (VMS + 1) + vm + 1).unwrap());
        }
        Round { number, pulled: (0..VMS).collect(), agent: Some(self.agent_of_pushed()) }
    }

    fn agent_of_pushed(&self) -> Child {
        let mut agent = Command::new(env!("CARGO_BIN_EXE_agent"));
        agent.args(["--api", &format!("unix:{}", self.text("data/omad.sock"))]);
        agent.args(["--vm-path", &format!("/DC/vm/vm-{PUSHED}")]);
        for disk in 0..DISKS {
            agent.arg("--disk").arg(format!("disk-{}={}", 2000 + disk, self.image(PUSHED, disk)));
        }
        agent.env_remove("OMA_API").env_remove("OMA_LOG").kill_on_drop(true);
        agent.stderr(File::create(self.path("agent.log")).unwrap()).spawn().unwrap()
    }

    /// Each request is repeated with its key until it is answered; `None` when nobody answers any more.
    async fn through(&self, daemon: &Daemon, round: &mut Round) -> Option<()> {
        let mut jobs = Vec::new();
        // All at once, so that several are under way.
        for vm in &round.pulled {
            let key = format!("round-{}-{vm}", round.number);
            let (status, job) =
                daemon.try_ask(Method::POST, "/replications", Some(&key), Some(&self.request(*vm))).await?;
            assert_eq!(status, 201, "{job}");
            jobs.push((*vm, job["job_id"].as_str()?.to_owned()));
        }
        for (vm, job) in jobs {
            let row = ended(daemon, &job).await?;
            assert_eq!(row["status"], json!("completed"), "{row}");
            self.assert_replicated(daemon, &job, vm).await;
            round.pulled.retain(|waiting| *waiting != vm);
        }
        if let Some(agent) = &mut round.agent {
            let status = agent.wait().await.unwrap();
            assert!(status.success(), "{}", fs::read_to_string(self.path("agent.log")).unwrap());
            round.agent = None;
        }
        let (path, jobs) = (json!(format!("/DC/vm/vm-{PUSHED}")), daemon.all("/replications").await);
        let last = jobs.iter().find(|job| job["vm_path"] == path).unwrap();
        assert_eq!(last["status"], json!("completed"), "{last}");
        self.assert_replicated(daemon, last["job_id"].as_str().unwrap(), PUSHED).await;
        Some(())
    }
}

/// At moments that fall anywhere in what is done.
async fn killed() {
    let world = World::of_appliance();
    let mut daemon = world.appliance().await;
    let mut kills = 0;
    for (number, enough) in (0..ROUNDS).map(|number| (number, KILLS * (u64::try_from(number).unwrap() + 1))) {
        let mut round = world.round(number);
        loop {
            let patience = Duration::from_millis(40 + 97 * kills % 700);
            let through = world.through(&daemon, &mut round);
            let through = match kills < enough {
                true => tokio::time::timeout(patience, through).await.ok().flatten(),
                false => through.await,
            };
            if through.is_some() {
                break;
            }
            kills += 1;
            daemon.kill().await;
            daemon = world.appliance().await;
        }
    }
    assert!(kills >= 10, "{kills} kills");
    nothing_is_left(&world, daemon).await;
}

async fn nothing_is_left(world: &World, daemon: Daemon) {
    let jobs = daemon.all("/replications").await;
    assert!(jobs.iter().all(|job| !job["completed_at"].is_null()), "{jobs:?}");
    let completed = jobs.iter().filter(|job| job["status"] == json!("completed")).count();
    assert!(completed >= ROUNDS * (VMS + 1), "{jobs:?}");
    let (done, others): (Vec<_>, Vec<_>) = daemon
        .all("/operations")
        .await
        .into_iter()
        .partition(|operation| operation["status"] == json!("completed"));
    let volumes = (VMS + 1) * DISKS;
    assert_eq!(done.len(), volumes * 2, "each volume is created and attached once: {done:?}");
    // One that a kill met before its backend did anything is asked for again under another id.
    let is_interrupted = |operation: &Value| {
        operation["error"].as_str().is_some_and(|error| error.contains("asked for again"))
    };
    assert!(others.iter().all(is_interrupted), "{others:?}");
    assert_eq!(daemon.all("/volumes").await.len(), volumes);
    let figures = daemon.text("/metrics").await;
    let served = |line: &&str| line.starts_with("oma_exports{") && !line.ends_with(" 0");
    assert_eq!(figures.lines().find(served), None, "no export is left");
    daemon.stop().await;
    let checked = world.oma_here(&["db", "check"]).await;
    assert_eq!(checked.code, Some(0), "{checked:?}");
    let files = fs::read_dir(world.path("data/volumes")).unwrap();
    let images =
        files.filter(|file| file.as_ref().unwrap().path().extension().is_some_and(|end| end == "raw"));
    assert_eq!(images.count(), volumes);
}
