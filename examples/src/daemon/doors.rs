//! Where the daemon serves, and whom it lets in there.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::sync::Arc;

use crate::data_dir::DataDir;
use crate::failure::io_error;
use crate::output;
use oma_api::server::{
    Api, Authenticator, Door, ListenConfig, Principal, Role, TlsIdentity, serve_tcp, serve_unix,
};
use oma_core::engine::CancellationToken;
use oma_core::{Error, ErrorKind, Result};
use tokio::net::{TcpListener, UnixListener};
use tokio::task::JoinSet;

use super::{DoorArgs, Given};

/// Sockets that are listened on, before anybody is served.
#[derive(Debug)]
pub struct Doors {
    socket: UnixListener,
    file: SocketFile,
    ports: Vec<Port>,
    config: ListenConfig,
}

/// One that others reach too.
#[derive(Debug)]
struct Port {
    listener: TcpListener,
    door: Door,
    tls: Option<TlsIdentity>,
    /// What is served there, if it is not all.
    api: Option<Api>,
}

/// The name of the socket, which goes with this.
#[derive(Debug)]
struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        // Somebody may have removed it: then nothing is left to do.
        let _ = fs::remove_file(&self.0);
    }
}

impl Doors {
    /// Begins to listen; `known` says whose tokens are good on the address, where somebody else may listen already (`given`). Nobody else does so in the data directory, which is locked: a socket there was left by a killed process.
    pub async fn open(
        program: &str,
        args: &DoorArgs,
        data: &DataDir,
        known: Arc<dyn Authenticator>,
        tls: Option<TlsIdentity>,
        given: Option<Given>,
    ) -> Result<Self> {
        let path = data.socket(program);
        let failed = |error| io_error("listen on", path.display(), error);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(failed(error)),
            _ => {}
        }
        let ports = match args.listen {
            Some(address) => vec![tcp(args, address, known, tls, given).await?],
            None => Vec::new(),
        };
        let socket = UnixListener::bind(&path).map_err(failed)?;
        // Nobody else writes into the directory: nobody comes between.
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).map_err(failed)?;
        let config = ListenConfig { connections: args.connections };
        Ok(Self { socket, file: SocketFile(path), ports, config })
    }

    /// Begins to listen on a port for these routes only.
    ///
    /// # Errors
    /// As [`Doors::open`].
    pub async fn beside(
        mut self,
        address: SocketAddr,
        args: &DoorArgs,
        known: Arc<dyn Authenticator>,
        tls: Option<TlsIdentity>,
        api: Api,
    ) -> Result<Self> {
        let port = tcp(args, address, known, tls, None).await.map_err(|error| match error.kind() {
            ErrorKind::Busy => Error::new(ErrorKind::Busy, "serve volumes on", address).because(
                "somebody listens there already, as a volume daemon does; end that, or name another address or `none` with \
                 --volume-listen or listen of [volume_api]",
            ),
            _ => error,
        })?;
        self.ports.push(Port { api: Some(api), ..port });
        Ok(self)
    }

    /// How the daemon is reached.
    pub fn addresses(&self) -> Result<Vec<String>> {
        let mut addresses = vec![format!("unix:{}", self.file.0.display())];
        for Port { listener, tls, .. } in &self.ports {
            let address =
                listener.local_addr().map_err(|error| io_error("listen on", "the address", error))?;
            let scheme = if tls.is_some() { "https" } else { "http" };
            addresses.push(format!("{scheme}://{address}"));
        }
        Ok(addresses)
    }

    /// Serves until `stop`, and removes the socket.
    pub async fn serve(self, api: &Api, stop: &CancellationToken) -> Result<()> {
        let Self { socket, file: _file, ports, config } = self;
        let owner = Principal::new("owner of the data directory", Role::Admin);
        let mut served = JoinSet::new();
        let (inner, token) = (api.router(Door::Open(owner)), stop.clone());
        served.spawn(async move { serve_unix(socket, inner, config, &token).await });
        for Port { listener, door, tls, api: own } in ports {
            let (outer, token) = (own.as_ref().unwrap_or(api).router(door), stop.clone());
            served.spawn(async move { serve_tcp(listener, outer, tls.as_ref(), config, &token).await });
        }
        let mut ended = Ok(());
        while let Some(one) = served.join_next().await {
            let one = one.unwrap_or_else(|lost| Err(std::io::Error::other(lost)));
            ended = ended.and(one.map_err(|error| io_error("serve", "requests", error)));
            // Half a daemon would be a riddle.
            stop.cancel();
        }
        ended
    }
}

async fn tcp(
    args: &DoorArgs,
    address: SocketAddr,
    known: Arc<dyn Authenticator>,
    tls: Option<TlsIdentity>,
    given: Option<Given>,
) -> Result<Port> {
    let is_local = address.ip().is_loopback();
    let refused = |reason| Err(Error::new(ErrorKind::Invalid, "listen on", address).because(reason));
    let door = match args.no_auth {
        true if !is_local => {
            return refused("--no-auth is for an address of this machine, such as 127.0.0.1");
        }
        true => Door::Open(Principal::new("anybody on this machine", Role::Admin)),
        false if tls.is_none() && !is_local => {
            return refused(
                "others could read tokens on the way; name a certificate with --tls-certificate and --tls-key",
            );
        }
        false => Door::Tokens(known),
    };
    let listener = match given {
        Some(given) => TcpListener::from_std(given.listener),
        None => TcpListener::bind(address).await,
    };
    let listener = listener.map_err(|error| io_error("listen on", address, error))?;
    Ok(Port { listener, door, tls, api: None })
}

/// The certificate, where one is named.
pub fn identity(args: &DoorArgs) -> Result<Option<TlsIdentity>> {
    match (&args.tls_certificate, &args.tls_key) {
        (Some(certificate), Some(key)) => TlsIdentity::open(certificate.clone(), key.clone()).map(Some),
        _ => Ok(None),
    }
}

/// Reads the certificate again.
pub async fn reload(tls: Option<TlsIdentity>) {
    match tls.map(|tls| tls.reload()) {
        None => {}
        Some(Ok(())) => output::note("the certificate was read again"),
        Some(Err(error)) => output::note(format!("{}; the one from before stays in use", error.chain())),
    }
}
