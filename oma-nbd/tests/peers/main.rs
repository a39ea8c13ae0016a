//! Foreign programs against the server.
#![allow(clippy::unwrap_used, reason = "a test panics when its setup fails")]

mod fixture;
mod reading;
mod scripts;
mod tester;
mod writing;

use std::process::ExitCode;

fn main() -> ExitCode {
    let trials = [reading::trials(), writing::trials(), scripts::trials(), tester::trials()];
    oma_core::conformance::run(trials.into_iter().flatten().collect())
}
