//! Clients that nobody here wrote, against the fake: what they need of a server and what a server refuses them.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use oma_core::conformance::{self, Requirement, Trial};

use super::fake::{Fake, Options};
use super::serve::environment;

/// Where Debian has the sources of Go's libraries.
const GO_SOURCES: &str = "/usr/share/gocode";

pub(crate) fn trials() -> Vec<Trial> {
    let python = [Requirement::Program("python3"), Requirement::Feature("cs (PyPI)", has_cs())];
    let library = Path::new(GO_SOURCES).join("src/github.com/xanzy/go-cloudstack/cloudstack").is_dir();
    let go = [Requirement::Program("go"), Requirement::Feature("go-cloudstack", library)];
    let cs = |name: &str, method: &'static str, enforced| {
        conformance::trial(name, &python, move || cs(method, enforced))
    };
    vec![
        cs("foreign::cs_finds_a_cloud_by_get", "get", false),
        cs("foreign::cs_finds_a_cloud_by_post", "post", false),
        cs("foreign::cs_changes_nothing_by_get_where_post_is_enforced", "get", true),
        cs("foreign::cs_changes_by_post_where_it_is_enforced", "post", true),
        conformance::trial("foreign::go_cloudstack_finds_a_cloud", &go, go_cloudstack),
    ]
}

/// The one of PyPI: Debian's is too old to tell errors of the API apart.
fn has_cs() -> bool {
    let asked = Command::new("python3").args(["-c", "from cs import CloudStackApiException"]).output();
    asked.is_ok_and(|done| done.status.success())
}

fn source(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cloudstack/foreign").join(name)
}

/// Runs a client to its end, beside the server.
async fn run(mut command: Command, fake: &Fake) {
    command.envs(environment(fake));
    let done = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    expect_success(&done);
    assert!(fake.data_volumes().is_empty(), "it removed what it made: {:?}", fake.data_volumes());
}

fn expect_success(done: &Output) {
    let (out, err) = (String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
    assert!(done.status.success(), "{}\n{out}{err}", done.status);
}

async fn cs(method: &str, enforced: bool) {
    let fake = Fake::start(Options { post_and_timestamps: enforced, ..Options::default() }).await;
    let mut command = Command::new("python3");
    command.arg(source("client.py")).arg(method);
    if enforced {
        command.env("OMA_CLOUD_ENFORCED", "1");
    }
    run(command, &fake).await;
    assert!(fake.calls("listZones") > 0);
}

async fn go_cloudstack() {
    let program = tokio::task::spawn_blocking(build).await.unwrap();
    let fake = Fake::start(Options::default()).await;
    run(Command::new(program), &fake).await;
    assert!(fake.calls("createVolume") > 4);
}

/// Built by Debian's Go from Debian's sources. What Go compiled before is kept with this crate's own: ten seconds once.
fn build() -> PathBuf {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let folder = target.join("go-cloudstack");
    fs::create_dir_all(folder.join("src")).unwrap();
    let program = folder.join("client");
    let mut path = OsString::from(folder.as_os_str());
    path.push(":");
    path.push(GO_SOURCES);
    let mut command = Command::new("go");
    command.args(["build", "-o"]).arg(&program).arg(source("client.go"));
    command.env("GO111MODULE", "off").env("GOPATH", path).env("GOCACHE", folder.join("cache"));
    command.env("GOFLAGS", "").env("CGO_ENABLED", "0");
    expect_success(&command.output().unwrap());
    program
}
