use std::time::Duration;

use oma_core::{ByteSize, ExportName};

/// Limits of a [`Server`](crate::Server). The default suits a server that faces its own clients.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerConfig {
    /// What a client gets that names no export; without one it is refused.
    pub default_export: Option<ExportName>,
    /// Connections at once; more are closed at once.
    pub max_connections: usize,
    /// How long a client may take from its connection to the end of the handshake.
    pub handshake_timeout: Duration,
    /// Options that a client may send in one handshake.
    pub max_options: usize,
    /// Requests of one connection that are worked on at once; more wait in the socket.
    pub max_requests: usize,
    /// Bytes of requests and replies that one connection may hold at once; more wait in the socket.
    pub max_buffered: ByteSize,
    /// Bytes that all connections together may hold so; more wait in their sockets. At least the largest payload. Beside it
    /// each connection always has one request of up to 128 KiB, so that a few that hold everything do not hold up the others.
    pub max_memory: ByteSize,
    /// Largest payload that is told to clients. Clients that do not ask take 32 MiB for granted.
    pub advertised_payload: u32,
    /// Largest payload that is taken, 1 GiB at most: some clients send more than they were told.
    pub max_payload: u32,
    /// How long a connection looks for the next small request before it sleeps, where the device's calls are done in place.
    /// It costs processor time for latency, and gives up by itself when it finds nothing; zero switches it off.
    pub busy_poll: Duration,
    /// A client that takes longer for the rest of one request, or to read one reply, is cut off, however many bytes came
    /// meanwhile: with the largest payload it is the least rate of a client.
    pub stall_timeout: Duration,
    /// How long connections may finish their requests when a listener is shut down.
    pub drain_timeout: Duration,
}

impl Default for ServerConfig {
    fn default() -> Self {
        Self {
            default_export: None,
            max_connections: 1024,
            handshake_timeout: Duration::from_secs(10),
            max_options: 64,
            max_requests: 128,
            max_buffered: ByteSize::mib(64),
            max_memory: ByteSize::gib(1),
            advertised_payload: 32 << 20,
            max_payload: 64 << 20,
            busy_poll: Duration::from_micros(50),
            stall_timeout: Duration::from_secs(120),
            drain_timeout: Duration::from_secs(10),
        }
    }
}
