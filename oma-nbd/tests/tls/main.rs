//! TLS: who may speak with whom, and what is never said in plain.
#![allow(clippy::unwrap_used, reason = "a test panics when its setup fails")]

mod boundary;
mod fixture;
mod foreign;
mod identity;
#[path = "../pki/mod.rs"]
mod pki;
mod talk;
mod trust;

use std::process::ExitCode;

use oma_core::conformance::{self, Trial};

fn main() -> ExitCode {
    let trials = boundary::trials().into_iter().chain(identity::trials()).chain(trust::trials());
    conformance::run(trials.chain(foreign::trials()).collect::<Vec<Trial>>())
}
