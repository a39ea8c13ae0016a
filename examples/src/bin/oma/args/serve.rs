use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;
use oma_core::ExportName;
use oma_nbd::ClientName;

const SERVE_HELP: &str = "\
Examples:
    oma serve disk.raw --socket /run/disk.sock
    oma serve disk.raw --listen 127.0.0.1:10809 --name web01 --read-only
    oma serve disk.raw --listen 0.0.0.0:10809 --tls-certificates /etc/oma/tls --client cn:web01
    qemu-img info 'nbd+unix:///disk?socket=/run/disk.sock'

The URI is printed once clients can connect. A signal ends it: requests in flight are
answered, the socket is removed. With certificates, SIGHUP reads them again.";

/// With the reason, which the error itself keeps apart.
fn client(text: &str) -> Result<ClientName, String> {
    ClientName::parse(text).map_err(|error| error.chain())
}

#[derive(Debug, Args)]
#[command(after_help = SERVE_HELP)]
pub(crate) struct ServeArgs {
    /// A raw file or a block device
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// Listen on a unix socket instead of a TCP port
    #[arg(long, value_name = "PATH", conflicts_with = "listen")]
    pub(crate) socket: Option<PathBuf>,
    /// Listen on a TCP port; without TLS, name an address that only trusted clients reach
    #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:10809")]
    pub(crate) listen: SocketAddr,
    /// Name of the export
    #[arg(long, value_name = "EXPORT", default_value = "disk")]
    pub(crate) name: ExportName,
    /// Refuse writes
    #[arg(long)]
    pub(crate) read_only: bool,
    /// Demand TLS; the directory has server-cert.pem, server-key.pem and, for clients' certificates, ca-cert.pem
    #[arg(long, value_name = "DIR")]
    pub(crate) tls_certificates: Option<PathBuf>,
    /// Demand a certificate of each client
    #[arg(long, requires = "tls_certificates")]
    pub(crate) tls_verify_clients: bool,
    /// Who may open the export, by a name in its certificate or its user: cn:NAME, dns:NAME, ip:ADDRESS, email:ADDRESS, uri:URI,
    /// uid:NUMBER; once for each. Anybody without
    #[arg(long = "client", value_name = "KIND:NAME", value_parser = client)]
    pub(crate) clients: Vec<ClientName>,
}
