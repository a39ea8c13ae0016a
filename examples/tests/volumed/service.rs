//! The daemons as services of a machine: what a service manager is told and gives, and what its stop leaves.

use std::fs;
use std::net::TcpListener;
use std::time::{Duration, Instant};

use oma_core::conformance::{Requirement, Trial, trial};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::net::UnixDatagram;
use tokio::process::Command;

use crate::appliance::ended;
use crate::world::{LIMIT, World};

const UNITS: [(&str, &str); 3] = [
    ("omad.service", include_str!("../../systemd/omad.service")),
    ("omad.socket", include_str!("../../systemd/omad.socket")),
    ("volumed.service", include_str!("../../systemd/volumed.service")),
];

pub(crate) fn trials() -> Vec<Trial> {
    let (analyze, activate) =
        ([Requirement::Program("systemd-analyze")], [Requirement::Program("systemd-socket-activate")]);
    vec![
        trial("a_service_manager_is_told_that_an_appliance_serves_lives_and_ends", &[], || {
            told(World::of_appliance())
        }),
        trial("a_service_manager_is_told_that_a_volume_daemon_serves_lives_and_ends", &[], || {
            told(World::new())
        }),
        trial("l18_a_stopped_appliance_gives_its_jobs_back_and_says_so_in_their_logs", &[], stopped),
        trial("a_socket_that_was_listened_on_before_is_served", &activate, given),
        trial("units_are_understood_and_keep_the_daemons_in", &analyze, units),
    ]
}

async fn told(world: World) {
    let path = world.path("manager");
    let manager = UnixDatagram::bind(&path).unwrap();
    let world = world
        .with_env("NOTIFY_SOCKET", path.display().to_string())
        .with_env("WATCHDOG_USEC", "600000".to_owned());
    let until = async |wanted: &str| {
        let waited = async {
            let mut buffer = [0; 4096];
            loop {
                let length = manager.recv(&mut buffer).await.unwrap();
                let said = String::from_utf8_lossy(&buffer[..length]).into_owned();
                if said.lines().any(|line| line == wanted) {
                    return said;
                }
            }
        };
        tokio::time::timeout(LIMIT, waited).await.unwrap_or_else(|_| panic!("nobody said {wanted}"))
    };
    let daemon = world.start(&[]).await;
    assert!(until("READY=1").await.contains("STATUS=serving"));
    until("WATCHDOG=1").await;
    until("WATCHDOG=1").await;
    let stopping = tokio::spawn(daemon.stop());
    until("STOPPING=1").await;
    stopping.await.unwrap();
}

/// The next start goes on at once: whoever holds a lease still would keep it waiting for half a minute.
async fn stopped() {
    let world = World::of_appliance();
    let limits = world.text("limits.json");
    fs::write(&limits, r#"{ "link": { "bandwidth": 1048576 } }"#).unwrap();
    world.write(0, 1);
    let slow = ["--source-dir", &world.text("images")];
    let world = world.with_env("OMAD_WORK__LIMITS", limits.clone());
    let daemon = world.start(&slow).await;
    let (status, job) = daemon.ask(Method::POST, "/replications", Some(world.request(0))).await;
    assert_eq!(status, 201, "{job}");
    let id = job["job_id"].as_str().unwrap().to_owned();
    let begun = Instant::now();
    while daemon.get(&format!("/replications/{id}/progress")).await["step"] != json!("copy") {
        assert!(begun.elapsed() < LIMIT);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    daemon.stop().await;
    fs::write(&limits, "{}").unwrap();
    let begun = Instant::now();
    let daemon = world.appliance().await;
    let row = ended(&daemon, &id).await.unwrap();
    assert_eq!((&row["status"], &row["attempts"]), (&json!("completed"), &json!(0)), "{row}");
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
    let steps = daemon.all(&format!("/replications/{id}/steps")).await;
    let broken: Vec<&Value> = steps.iter().filter(|step| step["status"] == json!("failed")).collect();
    assert_eq!(broken.len(), 1, "{steps:?}");
    assert_eq!(broken[0]["name"], json!("copy"));
    assert!(broken[0]["error"].as_str().unwrap().contains("was stopped"), "{broken:?}");
    let lines = daemon.all(&format!("/replications/{id}/logs")).await;
    assert!(lines.iter().any(|line| line["message"] == json!("the run was stopped; the job goes on later")));
    daemon.stop().await;
}

async fn given() {
    let world = World::of_appliance();
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut command = Command::new("systemd-socket-activate");
    command.args(["--listen", &address.to_string(), world.program(), "--data-dir", &world.text("data")]);
    command.args(["--volume-listen", "none", "--nbd-listen", "none"]);
    let mut child = command.kill_on_drop(true).spawn().unwrap();
    let begun = Instant::now();
    // Whoever comes first has the daemon started, and waits for it.
    let health = loop {
        match reqwest::get(format!("http://{address}/health")).await {
            Ok(answer) => break answer.json::<Value>().await.unwrap(),
            Err(error) => assert!(begun.elapsed() < LIMIT, "{error}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    assert_eq!(health["status"], json!("ok"));
    let pid = child.id().unwrap().to_string();
    assert!(Command::new("kill").args(["-TERM", &pid]).status().await.unwrap().success());
    assert_eq!(tokio::time::timeout(LIMIT, child.wait()).await.unwrap().unwrap().code(), Some(0));
}

async fn units() {
    let world = World::of_appliance();
    let mut names = Vec::new();
    for (name, text) in UNITS {
        let program = if name.starts_with("omad") { "omad" } else { "volumed" };
        let text = text.replace(&format!("/usr/local/bin/{program}"), world.program());
        fs::write(world.path(name), text).unwrap();
        names.push(world.text(name));
    }
    let verified =
        Command::new("systemd-analyze").args(["verify", "--man=no"]).args(&names).output().await.unwrap();
    assert!(verified.status.success(), "{}", String::from_utf8_lossy(&verified.stderr));
    for name in names.iter().filter(|name| name.ends_with(".service")) {
        // Less than 3 of 10, where 10 is a service that may do all.
        let args = ["security", "--offline=true", "--threshold=30", "--no-pager", name];
        let secured = Command::new("systemd-analyze").args(args).output().await.unwrap();
        assert!(secured.status.success(), "{}", String::from_utf8_lossy(&secured.stdout));
    }
}
