use std::time::Duration;

use oma_core::traits::Access;

use crate::tls::TlsClientConfig;

/// How a [`Client`](super::Client) uses its server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientConfig {
    /// Connections to open when the server says that several are as good as one; else there is one.
    pub connections: usize,
    /// Requests under way on each connection; more wait.
    pub requests_in_flight: usize,
    /// Time for connecting and for the handshake together.
    pub connect_timeout: Duration,
    /// Time for the answer to one request, from when it is handed to its connection; a server that takes longer counts as
    /// lost. On a slow link all requests in flight must pass within it.
    pub request_timeout: Duration,
    /// What may be done; a read-only export stays read-only.
    pub access: Access,
    /// Metadata contexts to ask for besides `base:allocation`, e.g. `qemu:dirty-bitmap:b0`.
    pub contexts: Vec<String>,
    /// Whether to ask for headers with 64 bits of length; a server that does not know them is used without.
    pub extended_headers: bool,
    /// TLS and whom to trust, also for URIs that do not demand it. What a URI says goes before.
    pub tls: Option<TlsClientConfig>,
}

impl Default for ClientConfig {
    fn default() -> Self {
        Self {
            connections: 2,
            requests_in_flight: 16,
            connect_timeout: Duration::from_secs(10),
            request_timeout: Duration::from_secs(60),
            access: Access::ReadWrite,
            contexts: Vec::new(),
            extended_headers: true,
            tls: None,
        }
    }
}
