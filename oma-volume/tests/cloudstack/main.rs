//! A strict fake CloudStack, what it does by itself, and foreign clients that find it real enough.
#![allow(clippy::unwrap_used, reason = "a subject that cannot be made is a failed test")]

mod backend;
mod caller;
mod devices;
mod fake;
mod faults;
mod foreign;
mod jobs;
mod protocol;
mod serve;
mod signature;
mod snapshots;
mod tags;
mod told;
mod volumes;

use std::process::ExitCode;

use oma_core::conformance;

fn main() -> ExitCode {
    if let Some(code) = serve::child() {
        return code;
    }
    let mut trials = signature::trials();
    trials.extend(protocol::trials());
    trials.extend(volumes::trials());
    trials.extend(tags::trials());
    trials.extend(snapshots::trials());
    trials.extend(jobs::trials());
    trials.extend(devices::trials());
    trials.extend(faults::trials());
    trials.extend(backend::trials());
    trials.extend(serve::trials());
    trials.extend(foreign::trials());
    conformance::run(trials)
}
