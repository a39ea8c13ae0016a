//! The command line of OMA: parse, open, wire, run, shut down.

mod appliance;
mod args;
mod command;
mod copy_journal;
mod extents_file;
mod metrics_file;
mod progress;
mod remote;
mod report;
mod serving;
mod table;
mod verification;

use std::io::{self, IsTerminal as _};
use std::process::ExitCode;
use std::time::Duration;

use oma_api::Failure;
use oma_core::{Error, ErrorKind, Result};
use tracing_subscriber::EnvFilter;

use oma_examples::{exit, output};

use crate::args::Cli;
use oma_examples::failure::{Failed, io_error};

fn main() -> ExitCode {
    let cli = match Cli::read(std::env::args_os()) {
        Ok(cli) => cli,
        Err(error) => return explain(&error),
    };
    let json = cli.json;
    match log().map_err(Failed::from).and_then(|()| run(cli)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failed) => fail(&failed, json),
    }
}

/// Prints help, or what is wrong with the command line.
fn explain(error: &clap::Error) -> ExitCode {
    // When neither stream is there, nobody is there to be told.
    let _ = error.print();
    if error.use_stderr() && std::env::args_os().any(|argument| argument == "--json") {
        let sentence = sentence(error);
        let failure =
            Failure::new(&Error::new(ErrorKind::Invalid, "read", "the command line").because(sentence));
        let _ = output::json(&failure);
    }
    ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2))
}

/// What is wrong with the command line, on one line.
fn sentence(error: &clap::Error) -> String {
    use clap::error::ErrorKind::{DisplayHelpOnMissingArgumentOrSubcommand, MissingSubcommand};
    // All of the help is printed for it, which begins with what the program is.
    if [DisplayHelpOnMissingArgumentOrSubcommand, MissingSubcommand].contains(&error.kind()) {
        return "there is no command; name one of those that `--help` lists".to_owned();
    }
    let text = error.render().to_string();
    // What is missing stands on lines of its own, up to an empty one.
    let lines: Vec<&str> = text.lines().take_while(|line| !line.is_empty()).map(str::trim).collect();
    lines.join(" ").trim_start_matches("error: ").to_owned()
}

/// Logs go to standard error, and nowhere unless `OMA_LOG` asks for them.
fn log() -> Result<()> {
    let filter = EnvFilter::builder()
        .with_env_var("OMA_LOG")
        .from_env()
        .map_err(|error| Error::new(ErrorKind::Invalid, "read", "OMA_LOG").with_source(error))?;
    // Without OMA_LOG the filter lets errors pass; the sentence on standard error says them already.
    let filter = if std::env::var_os("OMA_LOG").is_some() { filter } else { EnvFilter::new("off") };
    // In a file colours are noise.
    let colours =
        io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr);
    log.with_ansi(colours).init();
    Ok(())
}

fn run(cli: Cli) -> Result<(), Failed> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| io_error("start", "the runtime", error))?;
    let result = runtime.block_on(command::run(cli));
    // A read that hangs on a dead source must not keep the process.
    runtime.shutdown_timeout(Duration::from_secs(5));
    result
}

fn fail(failed: &Failed, json: bool) -> ExitCode {
    output::note(format!("oma: {}", failed.error.chain()));
    if json
        && !failed.reported
        && let Err(error) = output::json(&Failure::new(&failed.error))
    {
        output::note(format!("oma: {}", error.chain()));
    }
    ExitCode::from(exit::code(failed.error.kind()))
}
