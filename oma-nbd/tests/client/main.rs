//! The client and the source against foreign servers, and the promises of a device through both.
#![allow(clippy::unwrap_used, reason = "a test panics when its setup fails")]

mod devices;
mod extended;
mod filters;
mod fixture;
mod peers;
mod sources;

use std::process::ExitCode;

fn main() -> ExitCode {
    oma_core::conformance::run(
        [devices::trials(), extended::trials(), filters::trials(), peers::trials(), sources::trials()]
            .into_iter()
            .flatten()
            .collect(),
    )
}
