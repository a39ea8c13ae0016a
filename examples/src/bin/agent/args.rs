//! The command line: names, flags and what `--help` teaches.

use std::path::PathBuf;

use clap::Parser;
use oma_api::VerifyWanted;
use oma_core::ByteSize;
use oma_examples::age::age;
use oma_examples::disk_args::DiskArgs;
use std::time::Duration;

const HELP: &str = "\
Runs beside the source; needs HTTPS to the appliance's API and NBD with TLS to its exports, nothing else:
    agent --api https://oma.example:8082 --token-file /etc/oma/token --ca /etc/oma/tls/ca-cert.pem \\
        --certificates /etc/oma/tls --vm-path /DC/vm/web01 --source /dev/vg0/web01-snapshot

The same command goes on with what was interrupted, and later brings over what changed. docs/push.md goes through it, and shows how any
other tool does the same.

Exit codes: those of `oma` (`oma --help`). Environment:
  OMA_LOG  what to log on standard error, e.g. info or oma_nbd=debug; nothing by default";

/// The agent: copies the disks of a VM into an appliance of OMA
#[derive(Debug, Parser)]
#[command(name = "agent", version, max_term_width = 100, after_help = HELP)]
pub(crate) struct Cli {
    /// The appliance: https://HOST:PORT, or unix:SOCKET on its own machine; each of several that share a database: any of them may drive
    /// the job
    #[arg(long, value_name = "URL", env = "OMA_API", required = true, value_delimiter = ',')]
    pub(crate) api: Vec<String>,
    /// A file that its owner alone may read, with the token of a user of the role `agent`; none is needed on the appliance's socket
    #[arg(long, value_name = "FILE")]
    pub(crate) token_file: Option<PathBuf>,
    /// The authorities that the API's certificate is checked with, PEM, in place of the one that `oma trust` has kept for
    /// it, or of those that this machine trusts
    #[arg(long, value_name = "FILE")]
    pub(crate) ca: Option<PathBuf>,
    /// A directory with client-cert.pem and client-key.pem, shown to the exports, and the ca-cert.pem that they are checked with
    /// (docs/tls.md)
    #[arg(long, value_name = "DIR")]
    pub(crate) certificates: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) disks: DiskArgs,
    /// The VM gets this path though it had another one
    #[arg(long)]
    pub(crate) rename: bool,
    /// Compare the export with the source before a disk is reported: none, sample, sample=COUNT, sample=N/1000, changed or full
    #[arg(long, value_name = "LEVEL", default_value = "none")]
    pub(crate) verify: VerifyWanted,
    /// Have a recovery point made of the epoch, and so many of the newest kept
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) keep_points: Option<u32>,
    /// At most so much memory for data on its way
    #[arg(long, value_name = "SIZE", default_value = "128MiB")]
    pub(crate) memory: ByteSize,
    /// Give up when nothing has moved for so long; the same command goes on later
    #[arg(long, value_name = "TIME", default_value = "10m", value_parser = patience)]
    pub(crate) patience: Duration,
    /// Print the job at the end, as one line of JSON
    #[arg(long)]
    pub(crate) json: bool,
}

fn patience(text: &str) -> Result<Duration, String> {
    age(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_holds_together() {
        Cli::command().debug_assert();
    }
}
