//! TLS: who may speak with whom, and what is never said in plain.
#![allow(clippy::unwrap_used, reason = "a test panics when its setup fails")]

mod boundary;
mod fixture;
mod foreign;
mod identity;
mod nbd_server;
#[path = "../client/fixture.rs"]
#[allow(dead_code, reason = "the tests of the client use the rest")]
mod peer;
#[path = "../pki/mod.rs"]
mod pki;
mod talk;
mod trust;

use std::process::ExitCode;

use oma_core::conformance::{self, Trial};

fn main() -> ExitCode {
    let trials = boundary::trials().into_iter().chain(identity::trials()).chain(trust::trials());
    let foreign = foreign::trials().into_iter().chain(nbd_server::trials());
    conformance::run(trials.chain(foreign).collect::<Vec<Trial>>())
}
