//! The volume daemon: parse, open, wire, run, shut down.

mod args;
mod backend;
mod check;
mod content;
mod daemon;
mod doors;
mod nbd_port;
mod token;

use std::io;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser as _;
use oma_core::{Error, ErrorKind, Result};
use oma_examples::failure::io_error;
use oma_examples::{exit, output};
use tracing_subscriber::EnvFilter;

use crate::args::{Cli, Command};

fn main() -> ExitCode {
    match log().and_then(|()| run(&Cli::parse())) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            output::note(format!("volumed: {}", error.chain()));
            ExitCode::from(exit::code(error.kind()))
        }
    }
}

/// Logs go to standard error: what was asked for and what went wrong, or what `OMA_LOG` says.
fn log() -> Result<()> {
    let filter = EnvFilter::builder()
        .with_env_var("OMA_LOG")
        .with_default_directive(tracing_subscriber::filter::LevelFilter::INFO.into())
        .from_env()
        .map_err(|error| Error::new(ErrorKind::Invalid, "read", "OMA_LOG").with_source(error))?;
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr).with_ansi(false).init();
    Ok(())
}

fn run(cli: &Cli) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| io_error("start", "the runtime", error))?;
    let result = runtime.block_on(async {
        match &cli.command {
            None => daemon::run(cli).await,
            Some(Command::Token(args)) => token::run(cli, args).await,
            Some(Command::Check) => check::run(cli).await,
            Some(Command::Openapi) => daemon::print_document(),
        }
    });
    // A call that hangs on a dead disk must not keep the process.
    runtime.shutdown_timeout(Duration::from_secs(5));
    result
}
