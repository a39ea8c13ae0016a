//! The client: an export of any NBD server as a [`BlockDevice`](oma_core::traits::BlockDevice).
//!
//! ```text
//!  Client ── device: pieces within the server's limits
//!    └─ Pool ── slots: one connection each, opened again when lost
//!         └─ Connection ── one task ── Decoder (pure) ── socket
//! ```

mod changes;
mod config;
mod connection;
mod covered;
mod decoder;
mod device;
mod error;
mod export;
mod handshake;
mod hashes;
mod pool;
mod socket;
mod status;

use oma_core::traits::{Access, DeviceIdentity, DeviceInfo};
use oma_core::{ByteSize, Extent, ExtentSet, Result};

use crate::protocol::{
    BASE_ALLOCATION, Headers, NBD_FLAG_READ_ONLY, NBD_FLAG_ROTATIONAL, NBD_FLAG_SEND_CACHE,
    NBD_FLAG_SEND_FAST_ZERO, NBD_FLAG_SEND_TRIM, NBD_FLAG_SEND_WRITE_ZEROES, NBD_STATE_DIRTY,
    QEMU_DIRTY_BITMAP,
};
use crate::uri::Uri;
use error::Failure;
use pool::Pool;

pub use config::ClientConfig;
pub use handshake::ListedExport;
pub use status::MetaStatus;

/// An export that is open.
///
/// Requests are spread over several connections where the server allows that, many on each. A request under way on a
/// connection that is lost answers `Unavailable` (later it may work); the next request opens a new connection, and
/// answers `Conflict` when it finds another export there. The client itself never repeats a request.
///
/// Requests must consist of whole blocks of the server's smallest size, reads too: nothing is widened, because a read
/// that is widened would need a second buffer, and a write that is widened would write bytes that nobody gave.
///
/// After a connection was lost, the next flush fails if there were writes over it since the last one: the server that
/// acknowledged them may be gone, and its successor knows nothing of them. So do all that were asked for before that one
/// failed; those after it do not, nor is told whose writes it were: who shares a client shares its failures, too.
///
/// Dropping it cuts the connections; [`Client::close`] says goodbye first.
#[derive(Debug)]
pub struct Client {
    info: DeviceInfo,
    pool: Pool,
}

impl Client {
    /// Connects, and opens the export that the URI names.
    ///
    /// # Errors
    /// `Unavailable` when the server cannot be reached or does not answer in time; `NotFound` when it has no such export,
    /// with those that it has; `Unsupported` when only one side demands TLS; `Invalid` when it is no NBD server;
    /// `PermissionDenied` when it refuses, or when it or this client is not who the other one trusts; `Corrupt` when it
    /// breaks the protocol.
    pub async fn connect(uri: &Uri, config: ClientConfig) -> Result<Self> {
        let access = config.access;
        let pool = Pool::open(uri, config).await.map_err(|failure| failure.at("open the export", uri))?;
        let export = pool.export();
        let read_only = access == Access::ReadOnly || export.has(NBD_FLAG_READ_ONLY);
        let info = DeviceInfo {
            identity: DeviceIdentity(uri.to_string()),
            capacity: ByteSize::new(export.size),
            block_sizes: export.block_sizes,
            access: if read_only { Access::ReadOnly } else { Access::ReadWrite },
            can_trim: export.has(NBD_FLAG_SEND_TRIM),
            can_block_status: export.context(BASE_ALLOCATION).is_some(),
            can_cache: export.has(NBD_FLAG_SEND_CACHE),
            can_zero_fast: export.has(NBD_FLAG_SEND_FAST_ZERO) && export.has(NBD_FLAG_SEND_WRITE_ZEROES),
            is_rotational: export.has(NBD_FLAG_ROTATIONAL),
        };
        Ok(Self { info, pool })
    }

    /// The metadata contexts that are there, of those asked for.
    pub fn contexts(&self) -> impl Iterator<Item = &str> {
        self.pool.export().contexts.iter().map(|(name, _)| name.as_str())
    }

    /// Whether a metadata context is there.
    #[must_use]
    pub fn has_context(&self, name: &str) -> bool {
        self.pool.export().context(name).is_some()
    }

    /// The flags of a metadata context from an extent's start: at least one entry, in order, without gaps, never beyond
    /// the extent, neighbours merged. It may end early; ask again from there.
    ///
    /// # Errors
    /// `NotFound` when the context was not asked for when connecting or is not there; else as a read.
    pub async fn meta_status(&self, context: &str, extent: Extent) -> Result<Vec<MetaStatus>> {
        self.info.check("ask for the status", extent.offset(), extent.length())?;
        self.status(context, extent).await.map_err(|failure| self.failed("ask for the status", failure))
    }

    /// The dirty parts of an extent by QEMU's dirty bitmap of this name, asked for in bounded requests.
    ///
    /// # Errors
    /// As [`Client::meta_status`].
    pub async fn dirty_extents(&self, bitmap: &str, extent: Extent) -> Result<ExtentSet> {
        self.marked_extents(&format!("{QEMU_DIRTY_BITMAP}{bitmap}"), NBD_STATE_DIRTY.into(), extent).await
    }

    /// The parts of an extent where a metadata context sets any of these flags, asked for in bounded requests.
    ///
    /// # Errors
    /// As [`Client::meta_status`].
    pub async fn marked_extents(&self, context: &str, flags: u64, extent: Extent) -> Result<ExtentSet> {
        let mut marked = ExtentSet::new();
        let mut rest = Some(extent);
        while let Some(ask) = rest {
            let found = self.meta_status(context, ask).await?;
            let end = found.last().map_or(ask.offset(), |last| last.extent.end());
            marked.extend(found.iter().filter(|part| part.flags & flags != 0).map(|part| part.extent));
            rest = Extent::between(end, ask.end());
        }
        Ok(marked)
    }

    /// Whether requests and replies have 64 bits of length, so that trims and block status go far in one request.
    #[must_use]
    pub fn has_extended_headers(&self) -> bool {
        self.pool.export().headers == Headers::Extended
    }

    /// Tells the server goodbye and closes the connections.
    pub async fn close(self) {
        self.pool.close().await;
    }

    fn failed(&self, operation: &'static str, failure: Failure) -> oma_core::Error {
        failure.at(operation, self.pool.uri())
    }
}

/// The exports that a server offers; the URI's export does not matter.
///
/// # Errors
/// As [`Client::connect`]; `PermissionDenied` when the server does not tell.
pub async fn list(uri: &Uri, config: &ClientConfig) -> Result<Vec<ListedExport>> {
    pool::within(config, async { pool::begin(uri, config).await?.list().await })
        .await
        .map_err(|failure| failure.at("list the exports", uri))
}

/// The metadata contexts of an export that fit a query, e.g. `qemu:` for all of QEMU's; empty when the server has none.
///
/// # Errors
/// As [`Client::connect`].
pub async fn list_contexts(uri: &Uri, query: &str, config: &ClientConfig) -> Result<Vec<String>> {
    pool::within(config, async { pool::begin(uri, config).await?.list_contexts(uri.export(), query).await })
        .await
        .map_err(|failure| failure.at("list the metadata contexts", uri))
}

/// Feeds bytes to the decoder of replies as a server would send them: the entry of the fuzz target.
///
/// # Panics
/// When the decoder does not keep its promises.
#[doc(hidden)]
pub fn fuzz_replies(bytes: &[u8]) {
    decoder::fuzz(bytes);
}
