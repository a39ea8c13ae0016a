//! Conformance of volumes, devices and sources in files.
#![allow(clippy::unwrap_used, reason = "a subject that cannot be made is a failed test")]

mod backend;
mod block;
mod crash;
mod device;
#[cfg(feature = "discovery")]
mod discovery;
mod identity;
mod journal;
#[cfg(feature = "loopdev")]
mod loopdev;
mod process;
mod qemu;
mod reflink;
mod snapshots;
mod source;
#[cfg(feature = "uring")]
mod uring;

use std::process::ExitCode;

use oma_core::conformance;

fn main() -> ExitCode {
    if let Some(code) = process::child() {
        return code;
    }
    let mut trials = device::trials();
    trials.extend(block::trials());
    trials.extend(backend::trials());
    trials.extend(identity::trials());
    trials.extend(crash::trials());
    trials.extend(process::trials());
    trials.extend(qemu::trials());
    trials.extend(snapshots::trials());
    trials.extend(journal::trials());
    trials.extend(source::trials());
    #[cfg(feature = "discovery")]
    trials.extend(discovery::trials());
    #[cfg(feature = "loopdev")]
    trials.extend(loopdev::trials());
    #[cfg(feature = "uring")]
    trials.extend(uring::trials());
    conformance::run(trials)
}
