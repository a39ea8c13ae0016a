//! The disks of running machines as sources: the promises of sources, chains of bitmaps, crashes, and bad company.
#![allow(clippy::unwrap_used, reason = "a test panics when its setup fails")]

/// Tests by the names of their functions, with what they need.
macro_rules! trials {
    ($needs:expr; $($name:ident),+ $(,)?) => { vec![$(trial(stringify!($name), $needs, $name)),+] };
}

mod agent;
mod chain;
mod company;
mod crash;
mod machine;
mod monitor;
mod promises;
mod proxy;

use std::process::ExitCode;

use oma_core::conformance;

fn main() -> ExitCode {
    let trials = promises::trials().into_iter().chain(chain::trials()).chain(crash::trials());
    conformance::run(
        trials.chain(company::trials()).chain(agent::trials()).chain(monitor::trials()).collect(),
    )
}
