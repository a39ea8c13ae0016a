//! What takes a server in a process of its own: `kill -9`, refused system calls, limits, memory.
#![allow(clippy::unwrap_used, reason = "a test panics when its setup fails")]

mod child;
mod durable;
mod limits;
#[path = "../raw/mod.rs"]
mod raw;
mod refused;

use std::process::ExitCode;

fn main() -> ExitCode {
    if let Some(code) = child::child() {
        return code;
    }
    let trials = durable::trials().into_iter().chain(refused::trials()).chain(limits::trials());
    oma_core::conformance::run(trials.collect())
}
