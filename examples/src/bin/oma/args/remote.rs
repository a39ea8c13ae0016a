//! The appliance that a command is for.

use std::path::PathBuf;

use clap::Args;
use oma_core::JobId;

/// Whom a command asks: a running appliance, or nobody.
#[derive(Clone, Debug, Args)]
pub(crate) struct RemoteArgs {
    /// The appliance: https://HOST:PORT, or unix:SOCKET on its own machine. Without it the one that serves the data directory, if one
    /// does. OMA_API is passed over where --data-dir, --embedded or a --database is typed
    #[arg(long, global = true, value_name = "URL", env = "OMA_API")]
    pub(crate) api: Option<String>,
    /// A file that its owner alone may read, with a token; none is needed on the appliance's socket
    #[arg(long, global = true, value_name = "FILE", env = "OMA_TOKEN_FILE")]
    pub(crate) token_file: Option<PathBuf>,
    /// The authorities that the appliance's certificate is checked with, PEM, in place of the one that `oma trust` has kept
    /// for it, or of those that this machine trusts
    #[arg(long, global = true, value_name = "FILE", env = "OMA_CA")]
    pub(crate) ca: Option<PathBuf>,
    /// Work on the data directory itself, whoever serves it, and whatever OMA_API says; not with --api
    #[arg(long, global = true)]
    pub(crate) embedded: bool,
}

#[derive(Debug, Args)]
pub(crate) struct SteerArgs {
    /// The job, as `oma jobs` lists it
    #[arg(value_name = "JOB")]
    pub(crate) job: JobId,
}
