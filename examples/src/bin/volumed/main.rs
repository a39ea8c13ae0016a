//! The volume daemon: parse, open, wire, run, shut down.

mod args;
mod check;
mod daemon;

use std::process::ExitCode;
use std::time::Duration;

use clap::Parser as _;
use oma_core::Result;
use oma_examples::daemon::Given;
use oma_examples::daemon::log::{self, Log};
use oma_examples::daemon::token;
use oma_examples::data_dir::DataDir;
use oma_examples::failure::io_error;
use oma_examples::{exit, output};

use crate::args::{Cli, Command};

fn main() -> ExitCode {
    match log::begin(Log::Text, "volumed").and_then(|_logging| run(Cli::parse())) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            output::note(format!("volumed: {}", error.chain()));
            ExitCode::from(exit::code(error.kind()))
        }
    }
}

fn run(mut cli: Cli) -> Result<()> {
    let given = Given::take()?;
    cli.doors.listen = given.as_ref().map(|given| given.address).or(cli.doors.listen);
    let cli = &cli;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| io_error("start", "the runtime", error))?;
    let result = runtime.block_on(async {
        match &cli.command {
            None => daemon::run(cli, given).await,
            Some(Command::Token(args)) => {
                token::run("volumed", &DataDir::new(&cli.data_dir)?, cli.database.as_deref(), args).await
            }
            Some(Command::Check) => check::run(cli).await,
            Some(Command::Openapi) => daemon::print_document(),
        }
    });
    // A call that hangs on a dead disk must not keep the process.
    runtime.shutdown_timeout(Duration::from_secs(5));
    result
}
