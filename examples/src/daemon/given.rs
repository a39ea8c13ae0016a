//! A socket that a service manager listens on before the daemon does (socket activation).

use std::net::{SocketAddr, TcpListener};

use listenfd::ListenFd;
use oma_core::Result;

use crate::failure::io_error;

/// One for the routes, in place of an address.
#[derive(Debug)]
pub struct Given {
    pub(super) listener: TcpListener,
    /// What it listens on.
    pub address: SocketAddr,
}

impl Given {
    /// The first one, if there is any. To be asked once, before anything else runs.
    ///
    /// # Errors
    /// When it is no socket that TCP connections come to.
    pub fn take() -> Result<Option<Self>> {
        let failed = |error| io_error("listen on", "the socket that was given", error);
        let Some(listener) = ListenFd::from_env().take_tcp_listener(0).map_err(failed)? else {
            return Ok(None);
        };
        listener.set_nonblocking(true).map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        Ok(Some(Self { listener, address }))
    }
}
