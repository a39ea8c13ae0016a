//! `kill -9` at each step that changes something on disk.

use std::ffi::OsStr;
use std::path::Path;
use std::process::{ExitCode, Stdio};
use std::time::Duration;

use futures_util::TryStreamExt;
use oma_core::conformance::{Requirement, Trial, trial};
use oma_core::traits::{Export, ExportServer};
use tokio::process::Command;

use crate::fixture::NBD_SERVER;
use crate::site::{Site, name, server_at, spec};

/// Names the folder of a site to the child that publishes there and withdraws.
pub(crate) const CHILD: &str = "OMA_TEST_NBD_SERVER_CHILD";
/// The calls that change something, or promise that it stays.
const CALLS: [&str; 7] = ["rename", "symlink", "unlink", "mkdir", "fsync", "fchmod", "pidfd_send_signal"];
/// None of them is made more often.
const MANY: u32 = 30;

pub(crate) fn trials() -> Vec<Trial> {
    let needs = [NBD_SERVER, Requirement::Program("strace")];
    vec![trial(
        "l15_killed_at_each_step_it_leaves_the_old_or_the_new_configuration",
        &needs,
        killed_at_each_step,
    )]
}

/// Publishes and withdraws once.
pub(crate) fn child(folder: &OsStr) -> ExitCode {
    // One thread does all that blocks: the steps are counted for each thread.
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.max_blocking_threads(1).enable_all().build().unwrap();
    runtime.block_on(async {
        let server = server_at(Path::new(folder));
        server.publish(spec("a", "d")).await.unwrap();
        server.withdraw(&name("a"), Duration::ZERO).await.unwrap();
    });
    ExitCode::SUCCESS
}

async fn killed_at_each_step() {
    let site = Site::new().await;
    let server = site.server();
    // With the end of the last line that the first export adds.
    server.publish(spec("a", "d")).await.unwrap();
    let with = site.text();
    server.withdraw(&name("a"), Duration::ZERO).await.unwrap();
    let without = site.text();
    let mut killed = 0;
    for call in CALLS {
        for count in 1.. {
            assert!(count < MANY, "it never runs through");
            if runs_through(&site, call, count).await {
                break;
            }
            killed += 1;
            let text = site.text();
            assert!(text == with || text == without, "killed at {call} {count}:\n{text}");
            let listed: Vec<Export> = server.list().try_collect().await.unwrap();
            assert_eq!(!listed.is_empty(), text == with);
            // Whoever comes next goes on from there; or a sweep takes out what nobody claims.
            if count % 2 == 0 {
                server.publish(spec("a", "d")).await.unwrap();
                site.connect("a").await.unwrap().close().await;
            }
            server.withdraw(&name("a"), Duration::ZERO).await.unwrap();
            assert!(site.connect("a").await.is_err());
            assert_eq!(site.text(), without);
        }
    }
    assert!(killed > 10, "only {killed} steps were seen");
}

/// Whether the child came to its end; else it was killed when it made this call so often.
async fn runs_through(site: &Site, call: &str, count: u32) -> bool {
    let inject = format!("inject={call}:signal=SIGKILL:when={count}");
    let mut command = Command::new("strace");
    command.args(["-f", "-qq", "-o", "/dev/null", "-e", &format!("trace={call}"), "-e", &inject]);
    command.arg(std::env::current_exe().unwrap()).env(CHILD, site.peer.path(""));
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
    command.status().await.unwrap().success()
}
