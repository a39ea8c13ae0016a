//! Our server as a process of its own, so that its processor time and its memory are its own.

use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use oma_core::traits::{Access, ExportServer, ExportSpec};
use oma_core::{ExportName, Fence};
use oma_nbd::{Server, ServerConfig, TlsFiles, TlsPolicy, TlsServer};
use oma_volume::device::FileDevice;
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, UnixListener};
use tokio_util::sync::CancellationToken;

use crate::{Result, resources};

#[derive(Debug, Args)]
pub(crate) struct ServeArgs {
    /// Listen on a unix socket; else on a TCP port, which is told
    #[arg(long)]
    socket: Option<PathBuf>,
    /// Demand TLS, with the certificates of a directory
    #[arg(long)]
    tls: Option<PathBuf>,
    /// Files to serve as disk, disk-1, disk-2 …
    files: Vec<PathBuf>,
}

/// Serves until standard input ends, so that it never outlives who started it.
pub(crate) async fn run(args: &ServeArgs) -> Result<()> {
    resources::allow_many_files()?;
    let server = Server::new(ServerConfig::default());
    for (number, file) in args.files.iter().enumerate() {
        let name = if number == 0 { "disk".to_owned() } else { format!("disk-{number}") };
        let device = FileDevice::open(file, Access::ReadWrite).await?.with_uring();
        let spec = ExportSpec {
            name: ExportName::parse(name)?,
            description: String::new(),
            access: Access::ReadWrite,
            fence: Fence::FIRST,
            device: Arc::new(device),
        };
        server.publish(spec).await?;
    }
    let server = match &args.tls {
        Some(dir) => {
            server.with_tls(TlsPolicy::Required(TlsServer::open(TlsFiles::in_directory(dir)).await?))
        }
        None => server,
    };
    let shutdown = CancellationToken::new();
    let token = shutdown.clone();
    let serving = if let Some(socket) = &args.socket {
        let listener = UnixListener::bind(socket)?;
        writeln!(io::stdout(), "0")?;
        tokio::spawn(async move { server.serve_unix(listener, token).await })
    } else {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        writeln!(io::stdout(), "{}", listener.local_addr()?.port())?;
        tokio::spawn(async move { server.serve_tcp(listener, token).await })
    };
    tokio::io::stdin().read_to_end(&mut Vec::new()).await?;
    shutdown.cancel();
    Ok(serving.await?)
}
