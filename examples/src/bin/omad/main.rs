//! The appliance: parse, open, wire, run, shut down.

mod args;
mod check_config;
mod daemon;
mod settings;
mod sources;

use std::process::ExitCode;
use std::time::Duration;

use clap::Parser as _;
use oma_core::Result;
use oma_examples::daemon::{Given, log, token};
use oma_examples::data_dir::DataDir;
use oma_examples::failure::io_error;
use oma_examples::{exit, output};

use crate::args::{Cli, Command};
use crate::settings::Settings;

fn main() -> ExitCode {
    match run(&Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            output::note(format!("omad: {}", error.chain()));
            ExitCode::from(exit::code(error.kind()))
        }
    }
}

fn run(cli: &Cli) -> Result<()> {
    let given = Given::take()?;
    let mut settings = Settings::read(cli)?;
    settings.api.listen = given.as_ref().map(|given| given.address).or(settings.api.listen);
    let _logging = log::begin(settings.log, "omad")?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| io_error("start", "the runtime", error))?;
    let result = runtime.block_on(async {
        match &cli.command {
            Some(Command::Token(args)) => {
                token::run("omad", &DataDir::new(&settings.data_dir)?, cli.database.as_deref(), args).await
            }
            Some(Command::CheckConfig) => check_config::run(&settings).await,
            Some(Command::Openapi) => daemon::print_document().await,
            None => daemon::run(cli, &settings, given).await,
        }
    });
    // A call that hangs on a dead disk must not keep the process.
    runtime.shutdown_timeout(Duration::from_secs(5));
    result
}
