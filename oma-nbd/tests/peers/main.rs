//! Foreign programs against the server.
#![allow(clippy::unwrap_used, reason = "a test panics when its setup fails")]

mod fixture;
mod reading;
mod writing;

use std::process::ExitCode;

fn main() -> ExitCode {
    oma_core::conformance::run(reading::trials().into_iter().chain(writing::trials()).collect())
}
