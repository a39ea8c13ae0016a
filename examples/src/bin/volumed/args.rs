//! The command line: names, flags and what `--help` teaches.

use std::net::SocketAddr;
use std::num::NonZeroU16;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use oma_api::server::{ListenConfig, Role};
use oma_examples::age::age;

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
    /// The address to serve on beside the socket in the data directory; without one only that
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub(crate) listen: Option<SocketAddr>,
    /// Let everybody in who reaches the address: only together with one of this machine, whose users all may change volumes then
    #[arg(long, requires = "listen", conflicts_with = "tls_certificate")]
    pub(crate) no_auth: bool,
    /// Serve HTTPS with this certificate, and those that lead to its authority (PEM); read again at SIGHUP
    #[arg(long, value_name = "FILE", requires = "tls_key", requires = "listen")]
    pub(crate) tls_certificate: Option<PathBuf>,
    /// The private key of the certificate (PEM)
    #[arg(long, value_name = "FILE", requires = "tls_certificate")]
    pub(crate) tls_key: Option<PathBuf>,
    /// Connections served at once on the address, and as many on the socket; who comes then waits until one of them ends
    #[arg(long, value_name = "N", default_value_t = ListenConfig::default().connections)]
    pub(crate) connections: NonZeroU16,
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

#[derive(Debug, Args)]
pub(crate) struct NbdArgs {
    /// The address to serve what volumes hold on, over NBD with TLS, to clients that show a certificate; without one only a socket
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub(crate) nbd_listen: Option<SocketAddr>,
    /// The directory with server-cert.pem, server-key.pem and, for the certificates of clients, ca-cert.pem; read again at SIGHUP
    #[arg(long, value_name = "DIR", requires = "nbd_listen")]
    pub(crate) nbd_tls_certificates: Option<PathBuf>,
    /// By which name or address clients reach it, which stands in its certificate; the address itself if it is not said
    #[arg(long, value_name = "HOST", requires = "nbd_listen")]
    pub(crate) nbd_host: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct BackendArgs {
    /// Where volumes live
    #[arg(long, global = true, value_enum, default_value_t = BackendArg::File)]
    pub(crate) backend: BackendArg,
    /// The CloudStack zone, in JSON (docs/cloudstack.md)
    #[arg(long, global = true, value_name = "FILE", required_if_eq("backend", "cloudstack"))]
    pub(crate) cloudstack: Option<PathBuf>,
    /// The account's API key and secret key, on a line each, in a file that its owner alone may read
    #[arg(long, global = true, value_name = "FILE", required_if_eq("backend", "cloudstack"))]
    pub(crate) cloudstack_keys: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum BackendArg {
    /// Raw files in the data directory
    File,
    /// Loop devices over raw files in the data directory; needs root
    Loop,
    /// Volumes of a CloudStack zone, attached to the machine that this runs in
    Cloudstack,
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

#[derive(Debug, Args)]
pub(crate) struct TokenArgs {
    #[command(subcommand)]
    pub(crate) command: TokenCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum TokenCommand {
    /// Make a token and print it: the only time that it can be read
    Add(AddArgs),
    /// List whom there are tokens for
    List,
    /// Take a token away
    Remove(RemoveArgs),
}

#[derive(Debug, Args)]
pub(crate) struct AddArgs {
    /// Who it is for
    #[arg(value_name = "NAME")]
    pub(crate) name: String,
    /// What it lets do: look, change volumes, or all
    #[arg(long, value_name = "ROLE", value_parser = role)]
    pub(crate) role: Role,
}

#[derive(Debug, Args)]
pub(crate) struct RemoveArgs {
    /// Who it is for
    #[arg(value_name = "NAME")]
    pub(crate) name: String,
}

fn role(text: &str) -> Result<Role, String> {
    // Agents have jobs, which this daemon knows none of.
    let known = Role::ALL.iter().copied().find(|role| role.as_str() == text && *role > Role::Agent);
    known.ok_or_else(|| format!("{text:?} is no role; there are viewer, operator and admin"))
}
