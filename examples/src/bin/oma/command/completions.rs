use clap::CommandFactory;
use oma_core::{Error, ErrorKind, Result};

use crate::args::{Cli, CompletionsArgs};
use oma_examples::output;

/// Prints the script that a shell reads.
pub(super) fn run(args: &CompletionsArgs) -> Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "oma", &mut script);
    let script = String::from_utf8(script).map_err(|error| {
        Error::new(ErrorKind::Internal, "write", format!("completions for {}", args.shell)).with_source(error)
    })?;
    output::line(script.trim_end())
}
