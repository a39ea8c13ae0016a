//! The programs `volumed` and `omad` as their users run them: the built binary, real files, real requests.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod appliance;
mod client;
mod crash;
mod document;
mod doors;
mod killed;
mod life;
mod own;
mod pair;
#[path = "../remote/pki.rs"]
#[expect(dead_code, reason = "others make certificates that were good once")]
mod pki;
mod ports;
mod push;
mod readme;
mod schema;
mod service;
mod traces;
mod trust;
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
    trials.extend(appliance::trials());
    trials.extend(client::trials());
    trials.extend(document::trials());
    trials.extend(killed::trials());
    trials.extend(own::trials());
    trials.extend(pair::trials());
    trials.extend(ports::trials());
    trials.extend(push::trials());
    trials.extend(readme::trials());
    trials.extend(service::trials());
    trials.extend(traces::trials());
    trials.extend(trust::trials());
    conformance::run(trials)
}
