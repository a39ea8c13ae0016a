//! The routes do what their document says, as a tester finds that nobody here wrote.

use std::fs;
use std::time::Duration;

use oma_core::conformance::{Requirement, Trial, trial_within};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::process::Command;

use crate::world::{Daemon, World};

/// It asks a thousand things, on a machine that does others.
const LONG: Duration = Duration::from_mins(6);

pub(crate) fn trials() -> Vec<Trial> {
    let tester = [Requirement::Program("schemathesis")];
    vec![
        trial_within(LONG, "schemathesis_finds_no_fault_as_operator", &tester, || volumes("operator")),
        trial_within(LONG, "schemathesis_finds_no_fault_as_viewer", &tester, || volumes("viewer")),
        trial_within(LONG, "schemathesis_finds_no_fault_in_the_appliance_as_agent", &tester, || {
            appliance("agent")
        }),
        trial_within(LONG, "schemathesis_finds_no_fault_in_the_appliance_as_viewer", &tester, || {
            appliance("viewer")
        }),
        trial_within(LONG, "schemathesis_finds_no_fault_in_the_appliance_as_operator", &tester, || {
            appliance("operator")
        }),
        trial_within(LONG, "schemathesis_finds_no_fault_in_the_appliance_as_admin", &tester, || {
            appliance("admin")
        }),
    ]
}

async fn volumes(role: &'static str) {
    let world = World::new();
    let token = world.token("tester", role).await;
    let daemon = world.start(&["--listen", "127.0.0.1:0"]).await;
    // Something to find.
    daemon.volume("web01").await;
    tested(&world, daemon, &token).await;
}

/// By a token of an account, but as an admin, who might remove its own.
async fn appliance(role: &'static str) {
    let world = World::of_appliance();
    let image = world.text("images/vm.raw");
    fs::write(&image, vec![7; 1 << 20]).unwrap();
    let daemon = world.start(&["--source-dir", &world.text("images")]).await;
    let token = match role {
        "admin" => world.token("tester", role).await,
        _ => account(&daemon, role).await,
    };
    // Something to find.
    let source = json!({ "disks": [{ "key": "disk-2000", "source": image }] });
    for vm in ["web01", "web02"] {
        let body = json!({ "vm_path": format!("/DC/vm/{vm}"), "source": source, "verify": "full", "keep_points": 2 });
        let (status, job) = daemon.ask(Method::POST, "/replications", Some(body)).await;
        assert_eq!(status, 201, "{job}");
    }
    tested(&world, daemon, &token).await;
}

/// A token of a new user of this role.
async fn account(daemon: &Daemon, role: &str) -> String {
    let user = json!({ "email": "tester@example.com", "role": role, "password": "correct horse battery" });
    let (status, made) = daemon.ask(Method::POST, "/users", Some(user.clone())).await;
    assert_eq!(status, 201, "{made}");
    let login = json!({ "email": user["email"], "password": user["password"] });
    let (status, session) = daemon.ask(Method::POST, "/auth/login", Some(login)).await;
    assert_eq!(status, 200, "{session}");
    let asked = reqwest::Client::new().post(format!("{}/tokens", daemon.url()));
    let asked = asked.bearer_auth(session["secret"].as_str().expect("a secret"));
    let made = asked.json(&json!({ "name": "tester", "role": role, "days": 1 })).send().await.unwrap();
    assert_eq!(made.status(), 201);
    let made: Value = made.json().await.unwrap();
    made["secret"].as_str().expect("a secret").to_owned()
}

async fn tested(world: &World, daemon: Daemon, token: &str) {
    let mut tester = Command::new("schemathesis");
    // Without sequences that it infers: those of the document are none that it can follow.
    tester.args([
        "run",
        "--phases",
        "examples,coverage,fuzzing",
        "--header",
        &format!("Authorization: Bearer {token}"),
    ]);
    tester.args([
        "--max-examples",
        "20",
        "--seed",
        "1",
        "--workers",
        "1",
        "--no-color",
        "--request-timeout",
        "30",
    ]);
    tester.arg("--checks=status_code_conformance,content_type_conformance,response_schema_conformance");
    // From the program itself: an agent is shown no routes but its own.
    let document = world.run(&["openapi"]).await;
    assert_eq!(document.code, Some(0), "{document:?}");
    fs::write(world.path("openapi.json"), document.out).unwrap();
    tester.arg(world.path("openapi.json"));
    tester.args(["--url", &daemon.addresses[1]]);
    let ran = tester.current_dir(world.path("data")).output().await.unwrap();
    let said = String::from_utf8_lossy(&ran.stdout);
    assert!(ran.status.success(), "{said}\n{}", String::from_utf8_lossy(&ran.stderr));
    daemon.get("/vms").await;
    // What is not possible here (501) and no room (507) are answers; a defect of the daemon (500) is none.
    let said = daemon.stop().await;
    assert!(!said.err.contains("status=500") && !said.err.contains("panicked"), "{}", said.err);
}
