//! The program `oma` as its users run it: the built binary, real files, real servers.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod accounts;
mod bad_input;
mod basics;
mod broken_reads;
mod cleanup;
mod copy;
mod copy_journal;
mod crash;
mod db;
mod demo;
#[path = "../../../oma-nbd/tests/pki/mod.rs"]
mod pki;
mod points;
mod qemu;
mod refused;
mod serve;
mod vms;
mod volume_operations;
mod volumes;
mod world;

use std::process::ExitCode;

use oma_core::conformance;

fn main() -> ExitCode {
    let mut trials = Vec::new();
    trials.extend(basics::trials());
    trials.extend(broken_reads::trials());
    trials.extend(copy::trials());
    trials.extend(copy_journal::trials());
    trials.extend(demo::trials());
    trials.extend(qemu::trials());
    trials.extend(crash::trials());
    trials.extend(bad_input::trials());
    trials.extend(refused::trials());
    trials.extend(serve::trials());
    trials.extend(points::trials());
    trials.extend(vms::trials());
    trials.extend(volume_operations::trials());
    trials.extend(volumes::trials());
    trials.extend(db::trials());
    trials.extend(accounts::trials());
    trials.extend(cleanup::trials());
    conformance::run(trials)
}
