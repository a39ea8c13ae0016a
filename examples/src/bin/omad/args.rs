//! The command line: names, flags and what `--help` teaches.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Parser, Subcommand};
use oma_examples::daemon::{Listen, TokenArgs};

const HELP: &str = "\
Nothing needs to be configured:
    omad --data-dir /var/lib/oma --source-dir /srv/images
    curl --unix-socket /var/lib/oma/omad.sock http://localhost/api/v1/replications -H 'Content-Type: application/json' \\
        -d '{\"vm_path\": \"/DC/vm/web01\", \"source\": {\"disks\": [{\"key\": \"disk-2000\", \"source\": \"/srv/images/web01.raw\"}]}}'

All settings, the routes and what to do when something fails: docs/omad.md, and /api/v1/openapi.json of a running daemon.

Environment:
  OMAD_…        each setting, e.g. OMAD_DATA_DIR, OMAD_WORK__JOBS for `jobs` of [work]
  OMA_DATABASE  the database, a URL that may hold a password
  OMA_LOG       what to log on standard error, e.g. warn or oma_volume=debug; info if it is not said";

/// The appliance: drives replications, changes volumes, serves both over HTTP
#[derive(Debug, Parser)]
#[command(name = "omad", version, max_term_width = 100, after_help = HELP)]
pub(crate) struct Cli {
    /// The settings, in TOML (docs/omad.md); flags and the environment go before it
    #[arg(long, global = true, value_name = "FILE", env = "OMA_CONFIG")]
    pub(crate) config: Option<PathBuf>,
    /// Where the database, the keys, the sockets and the volumes of files lie; made when it is not there [default: ./oma-data]
    #[arg(long, global = true, value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,
    /// The database, in place of OMA_DATABASE and of the one in the data directory
    #[arg(long, global = true, value_name = "URL")]
    pub(crate) database: Option<String>,
    /// The address to serve on beside the socket in the data directory [default: 127.0.0.1:8082]
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub(crate) listen: Option<SocketAddr>,
    /// The address to serve the routes of volumes on by themselves, or `none` [default: 127.0.0.1:8090]
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub(crate) volume_listen: Option<Listen>,
    /// The address to serve exports on over NBD with TLS, to clients that show a certificate, or `none` [default: 127.0.0.1:10809]
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub(crate) nbd_listen: Option<Listen>,
    /// Serve HTTPS on this machine too, with a certificate of the appliance's own authority; others are served so anyway
    #[arg(long)]
    pub(crate) tls: bool,
    /// A name or address by which clients reach this machine, which is to stand in that certificate; once for each
    #[arg(long, value_name = "HOST")]
    pub(crate) tls_name: Vec<String>,
    /// Let everybody in who reaches the address: only together with one of this machine
    #[arg(long)]
    pub(crate) no_auth: bool,
    /// How many jobs are driven at a time [default: 4]
    #[arg(long, value_name = "COUNT")]
    pub(crate) jobs: Option<u32>,
    /// Files, block devices and sockets below it may be named as sources; once per directory. Without one only NBD over TCP
    #[arg(long, value_name = "DIR")]
    pub(crate) source_dir: Vec<PathBuf>,
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Make, list and remove tokens; a running daemon knows at once
    Token(TokenArgs),
    /// Read all settings and the files that they name, tell what is wrong or print them all, and begin nothing
    CheckConfig,
    /// Print the OpenAPI document of the routes
    Openapi,
}
