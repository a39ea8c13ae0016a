//! The agent of push mode: parse, open, wire, run, shut down.

mod appliances;
mod args;
mod changes;
mod disk;
mod job;
mod push;
mod told;

use std::io::{self, IsTerminal as _};
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser as _;
use oma_core::{Error, ErrorKind, Result};
use oma_examples::failure::io_error;
use oma_examples::{exit, output};
use tracing_subscriber::EnvFilter;

use crate::args::Cli;

fn main() -> ExitCode {
    match run(&Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            output::note(format!("agent: {}", error.chain()));
            ExitCode::from(exit::code(error.kind()))
        }
    }
}

fn run(cli: &Cli) -> Result<()> {
    log()?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| io_error("start", "the runtime", error))?;
    let result = runtime.block_on(push::run(cli));
    // A read that hangs on a dead source must not keep the process.
    runtime.shutdown_timeout(Duration::from_secs(5));
    result
}

/// Logs go to standard error, and nowhere unless `OMA_LOG` asks for them.
fn log() -> Result<()> {
    let filter = match std::env::var("OMA_LOG") {
        Ok(text) => EnvFilter::builder()
            .parse(text)
            .map_err(|error| Error::new(ErrorKind::Invalid, "read", "OMA_LOG").with_source(error))?,
        Err(_) => EnvFilter::new("off"),
    };
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr);
    log.with_ansi(io::stderr().is_terminal()).init();
    Ok(())
}
