use std::time::Duration;

/// How the kernel uses what is attached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KernelConfig {
    /// Connections between the kernel and this process, one for each core that is to be used.
    pub connections: usize,
    /// Time for the answer to one request; then its connection counts as dead. Whole seconds.
    pub request_timeout: Duration,
    /// How long requests wait when all connections are dead before they fail. Nothing here brings a connection back, so the default is
    /// not at all.
    pub dead_timeout: Duration,
}

impl Default for KernelConfig {
    fn default() -> Self {
        Self { connections: 2, request_timeout: Duration::from_secs(60), dead_timeout: Duration::ZERO }
    }
}
