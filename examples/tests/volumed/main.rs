//! The program `volumed` as its users run it: the built binary, real files, real requests.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod crash;
mod doors;
mod life;
mod schema;
mod world;

use std::process::ExitCode;

use oma_core::conformance;

fn main() -> ExitCode {
    // The client takes the process's.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut trials = Vec::new();
    trials.extend(life::trials());
    trials.extend(doors::trials());
    trials.extend(crash::trials());
    trials.extend(schema::trials());
    conformance::run(trials)
}
