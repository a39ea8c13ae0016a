//! The server.

mod buffers;
mod config;
mod context;
mod dirty;
mod error;
mod handshake;
mod hashes;
mod limits;
mod listen;
mod marks;
mod memory;
mod meter;
mod served;
mod statistics;
mod stop;
mod table;
mod thread;
mod transmission;
mod transport;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::stream::{self, BoxStream, StreamExt};
use oma_core::traits::{Drained, Export, ExportServer, ExportSpec, ExportStatistics};
use oma_core::{ExportName, Result};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use self::buffers::Buffers;
use self::memory::Memory;
use self::stop::Stop;
use self::table::Table;
use self::transport::Transport;

pub use config::ServerConfig;
pub use context::{ContextStatus, MetaContext};
pub use dirty::DirtyBitmap;
pub use limits::ExportLimits;
pub use marks::MarkedExtents;
pub use statistics::{ConnectionStatistics, ExportReport, Latencies, Latency};

use crate::tls::{Clients, Principal, TlsPolicy};

/// With its headers it must be told in 32 bits.
const MOST_PAYLOAD: u32 = 1 << 30;

/// What an export may have besides its [`ExportSpec`].
#[derive(Clone, Debug, Default)]
pub struct ExportOptions {
    /// Metadata contexts besides `base:allocation`.
    pub contexts: Vec<Arc<dyn MetaContext>>,
    /// Who may open it.
    pub clients: Clients,
    /// How much of the server it may take.
    pub limits: ExportLimits,
    /// Who is told that it is there.
    pub listing: Listing,
}

/// Who is told of an export that asks what there is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Listing {
    /// Whoever may open it.
    #[default]
    Listed,
    /// Nobody: it is opened by those who know its name.
    Unlisted,
}

/// Serves block devices over NBD. A clone is another handle on the same server.
///
/// Exports and listeners are independent: exports may be published before, after or without any listener, and every
/// listener serves all of them.
#[derive(Clone, Debug)]
pub struct Server(Arc<Inner>, TlsPolicy, Listing);

#[derive(Debug)]
struct Inner {
    config: ServerConfig,
    table: Table,
    buffers: Buffers,
    memory: Arc<Memory>,
    /// One for each connection that is possible.
    seats: Arc<Semaphore>,
}

impl Server {
    /// A server without exports.
    #[must_use]
    pub fn new(config: ServerConfig) -> Self {
        let config = ServerConfig { max_payload: config.max_payload.min(MOST_PAYLOAD), ..config };
        let seats = Arc::new(Semaphore::new(config.max_connections.min(Semaphore::MAX_PERMITS)));
        let [limit, least] = [config.max_memory.bytes(), config.max_payload.into()];
        let memory = Memory::new(usize::try_from(limit.max(least)).unwrap_or(usize::MAX));
        let (table, buffers) = (Table::default(), Buffers::default());
        Self(Arc::new(Inner { config, table, buffers, memory, seats }), TlsPolicy::Off, Listing::Listed)
    }

    /// Another handle on the same server, through which clients may or must speak TLS. What it serves and what this one
    /// serves are the same exports; [`ExportOptions::clients`] says who may open which.
    #[must_use]
    pub fn with_tls(&self, policy: TlsPolicy) -> Self {
        Self(self.0.clone(), policy, self.2)
    }

    /// Another handle on the same server: what is published through it is listed to no client ([`Listing::Unlisted`]), unless
    /// [`Server::publish_to`] says otherwise.
    #[must_use]
    pub fn unlisted(&self) -> Self {
        Self(self.0.clone(), self.1.clone(), Listing::Unlisted)
    }

    /// As [`ExportServer::publish`], with metadata contexts besides `base:allocation`.
    ///
    /// # Errors
    /// As [`ExportServer::publish`]; the contexts of an export that is served already are not compared.
    pub async fn publish_with(
        &self,
        spec: ExportSpec,
        contexts: Vec<Arc<dyn MetaContext>>,
    ) -> Result<Export> {
        self.publish_to(spec, ExportOptions { contexts, listing: self.2, ..ExportOptions::default() }).await
    }

    /// As [`ExportServer::publish`], with all that this server can do besides.
    ///
    /// # Errors
    /// As [`ExportServer::publish`]; `AlreadyExists` also for the same token with other clients.
    pub async fn publish_to(&self, spec: ExportSpec, options: ExportOptions) -> Result<Export> {
        self.0.table.publish(&spec, &options).await
    }

    /// What went through an export, by connection too; `None` when it is not served.
    #[must_use]
    pub fn report(&self, name: &ExportName) -> Option<ExportReport> {
        self.0.table.any(name).map(|served| served.meters.report())
    }

    /// Serves the connections of a unix socket until `shutdown`; then they finish what is in flight, for no longer than
    /// [`ServerConfig::drain_timeout`]. The socket's file is its owner's to remove.
    pub async fn serve_unix(&self, listener: UnixListener, shutdown: CancellationToken) {
        listen::serve(self.0.clone(), self.1.clone(), listener, shutdown).await;
    }

    /// Serves the connections of a TCP socket until `shutdown`; then they finish what is in flight, for no longer than
    /// [`ServerConfig::drain_timeout`].
    pub async fn serve_tcp(&self, listener: TcpListener, shutdown: CancellationToken) {
        listen::serve(self.0.clone(), self.1.clone(), listener, shutdown).await;
    }

    /// Serves one connection that is made already, until it ends or `shutdown`.
    ///
    /// # Errors
    /// `Unavailable` when the client vanished or stalled, `Invalid` when it broke the protocol, `NotFound` when it asked
    /// for an export that is not served, `PermissionDenied` when it must speak TLS or could not show who it is, `Busy` when there are too many connections, `Cancelled` when it was cut off.
    pub async fn serve_stream<S>(&self, stream: S, shutdown: CancellationToken) -> Result<()>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let stop = Stop { drain: shutdown, cut: CancellationToken::new() };
        let transport = Transport::Other(Box::new(stream));
        Ok(listen::converse(self.0.clone(), self.1.clone(), transport, Principal::default(), stop).await?)
    }
}

#[async_trait]
impl ExportServer for Server {
    async fn publish(&self, spec: ExportSpec) -> Result<Export> {
        self.publish_with(spec, Vec::new()).await
    }

    async fn withdraw(&self, name: &ExportName, deadline: Duration) -> Result<Drained> {
        self.0.table.withdraw(name, deadline).await
    }

    fn list(&self) -> BoxStream<'_, Result<Export>> {
        let exports = self.0.table.list().into_iter().map(|served| Ok(served.export.clone()));
        stream::iter(exports).boxed()
    }

    async fn statistics(&self, name: &ExportName) -> Result<Option<ExportStatistics>> {
        Ok(self.0.table.any(name).map(|served| served.meters.statistics()))
    }
}
