//! The command line: names, flags and what `--help` teaches.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, Subcommand};
use oma_examples::age::age;
use oma_examples::daemon::{BackendArgs, DoorArgs, NbdArgs, TokenArgs};

const HELP: &str = "\
Whoever may open the data directory needs no token:
    curl --unix-socket /var/lib/oma/volumed.sock http://localhost/api/v1/volumes
Everybody else does:
    volumed --data-dir /var/lib/oma token add web --role operator
    curl -H 'Authorization: Bearer TOKEN' https://oma.example:8090/api/v1/volumes

Routes, requests and answers: docs/volumed.md, and /api/v1/openapi.json of a running daemon.

Environment:
  OMA_DATA_DIR  the data directory
  OMA_DATABASE  the database, a URL that may hold a password
  OMA_LOG       what to log on standard error, e.g. warn or oma_volume=debug; info if it is not said";

/// Changes volumes for others: each change is recorded before it is done, and finished after a crash
#[derive(Debug, Parser)]
#[command(name = "volumed", version, max_term_width = 100, after_help = HELP)]
pub(crate) struct Cli {
    /// Where the database, the tokens, the socket and the volumes of files lie; made when it is not there
    #[arg(long, global = true, env = "OMA_DATA_DIR", default_value = "./oma-data", value_name = "DIR")]
    pub(crate) data_dir: PathBuf,
    /// The database, in place of OMA_DATABASE and of the one in the data directory
    #[arg(long, global = true, value_name = "URL")]
    pub(crate) database: Option<String>,
    #[command(flatten)]
    pub(crate) doors: DoorArgs,
    #[command(flatten)]
    pub(crate) nbd: NbdArgs,
    #[command(flatten)]
    pub(crate) backend: BackendArgs,
    /// How long a volume that held an epoch stays condemned before it is deleted, e.g. 12h, 7d
    #[arg(long, value_name = "AGE", value_parser = age, default_value = "7d")]
    pub(crate) grace: Duration,
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Make, list and remove tokens; a running daemon knows at once
    Token(TokenArgs),
    /// Tell whether the place where volumes live has all that is needed
    Check,
    /// Print the OpenAPI document of the routes
    Openapi,
}
