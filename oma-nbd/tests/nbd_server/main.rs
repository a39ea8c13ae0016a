//! Exports in the configuration of a real nbd-server.
#![allow(clippy::unwrap_used, reason = "a test panics when its setup fails")]

mod faults;
#[path = "../client/fixture.rs"]
#[allow(dead_code, reason = "the tests of the client use the rest")]
mod fixture;
mod killed;
mod laws;
mod promises;
mod site;

use std::process::ExitCode;

fn main() -> ExitCode {
    if let Some(step) = std::env::var_os(killed::CHILD) {
        return killed::child(&step);
    }
    let trials = [promises::trials(), laws::trials(), faults::trials(), killed::trials()];
    oma_core::conformance::run(trials.into_iter().flatten().collect())
}
