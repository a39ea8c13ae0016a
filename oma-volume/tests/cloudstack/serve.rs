//! The fake as a program, for foreign clients and for use by hand.

use std::collections::BTreeMap;
use std::env;
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Command, ExitCode, Stdio};

use oma_core::conformance::{self, Trial};

use super::caller::Caller;
use super::fake::{Fake, Keys, Options};

/// `serve` for a child that is only a fake.
pub(crate) const ROLE: &str = "OMA_TEST_CHILD";
/// The port that it listens at; any, unless it is set.
const PORT: &str = "OMA_FAKE_PORT";

pub(crate) fn trials() -> Vec<Trial> {
    vec![conformance::trial("serve::a_process_of_its_own_serves_until_its_input_ends", &[], served)]
}

async fn served() {
    let mut command = Command::new(env::current_exe().unwrap());
    command.env(ROLE, "serve").env_remove(PORT).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut told = BTreeMap::new();
    let mut lines = BufReader::new(child.stdout.as_mut().unwrap()).lines();
    while !told.contains_key("OMA_FAKE_DEVICES") {
        let line = lines.next().unwrap().unwrap();
        let (name, value) = line.strip_prefix("export ").unwrap().split_once('=').unwrap();
        told.insert(name.to_owned(), value.to_owned());
    }
    let keys = Keys { key: told["CLOUDSTACK_KEY"].clone(), secret: told["CLOUDSTACK_SECRET"].clone() };
    let zones = Caller::at(&told["CLOUDSTACK_ENDPOINT"], &keys).done("listZones", &[]).await;
    assert_eq!(zones["zone"][0]["id"], told["OMA_CLOUD_ZONE"]);
    drop(child.stdin.take());
    assert!(child.wait().unwrap().success());
    assert!(!std::path::Path::new(&told["OMA_FAKE_DEVICES"]).exists(), "it left nothing");
}

/// Runs as a child, when it is one.
pub(crate) fn child() -> Option<ExitCode> {
    (env::var(ROLE).ok()? == "serve").then(serve)
}

/// Until standard input ends. What a client needs to know is printed as lines that a shell takes.
fn serve() -> ExitCode {
    let port = env::var(PORT).ok().map_or(0, |port| port.parse().expect("a port"));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let fake = runtime.block_on(Fake::start(Options { port, running_clock: true, ..Options::default() }));
    let mut text = String::new();
    for (name, value) in environment(&fake) {
        text.push_str(&format!("export {name}={value}\n"));
    }
    let mut out = std::io::stdout();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).unwrap();
    while std::io::stdin().read(&mut [0; 64]).is_ok_and(|count| count > 0) {}
    runtime.block_on(async { drop(fake) });
    ExitCode::SUCCESS
}

/// The names that `cs` knows, and what it cannot know.
pub(crate) fn environment(fake: &Fake) -> Vec<(&'static str, String)> {
    vec![
        ("CLOUDSTACK_ENDPOINT", fake.url.clone()),
        ("CLOUDSTACK_KEY", fake.user.key.clone()),
        ("CLOUDSTACK_SECRET", fake.user.secret.clone()),
        ("OMA_CLOUD_ADMIN_KEY", fake.admin.key.clone()),
        ("OMA_CLOUD_ADMIN_SECRET", fake.admin.secret.clone()),
        ("OMA_CLOUD_ZONE", fake.zone.to_string()),
        ("OMA_CLOUD_OFFERING", fake.offering.to_string()),
        ("OMA_CLOUD_APPLIANCE", fake.appliance.to_string()),
        // Its jobs are done when they are asked about.
        ("OMA_CLOUD_POLL_INTERVAL", "0.01".to_owned()),
        ("OMA_FAKE_DEVICES", fake.devices.display().to_string()),
    ]
}
