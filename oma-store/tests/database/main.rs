//! What an operator does with a database as a whole, on each engine.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod breaks;
mod check;
mod dump;
mod place;
mod vm;

use std::process::ExitCode;

use oma_core::conformance;

fn main() -> ExitCode {
    conformance::run(check::trials().into_iter().chain(dump::trials()).collect())
}
