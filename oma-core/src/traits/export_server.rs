use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::stream::BoxStream;

use crate::traits::{Access, BlockDevice, DeviceIdentity};
use crate::{ByteSize, ExportName, Fence, Result};

/// An export to be published.
#[derive(Clone, Debug)]
pub struct ExportSpec {
    /// Its name.
    pub name: ExportName,
    /// A sentence for readers.
    pub description: String,
    /// What clients may do; a read-only device cannot be published for writing.
    pub access: Access,
    /// The token of the job that claims the volume (L16).
    pub fence: Fence,
    /// What is served.
    pub device: Arc<dyn BlockDevice>,
}

/// A published export.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Export {
    /// Its name.
    pub name: ExportName,
    /// A sentence for readers.
    pub description: String,
    /// What clients may do.
    pub access: Access,
    /// The token it was published with.
    pub fence: Fence,
    /// Its size.
    pub capacity: ByteSize,
    /// The device behind it.
    pub device: DeviceIdentity,
}

/// How a withdrawal ended. In each case no request through the export can land any more (L23).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Drained {
    /// Every request in flight was answered.
    Graceful,
    /// The deadline passed: connections were cut.
    Cut,
    /// There was no such export.
    Absent,
}

/// What went through an export since it was published.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ExportStatistics {
    /// Connections that use it now.
    pub connections: u64,
    /// Requests answered.
    pub requests: u64,
    /// Requests answered with an error.
    pub errors: u64,
    /// Bytes read by clients.
    pub bytes_read: u64,
    /// Bytes written by clients.
    pub bytes_written: u64,
}

/// Serves volumes under names.
#[async_trait]
pub trait ExportServer: fmt::Debug + Send + Sync + 'static {
    /// Serves a device under a name. No other export or connection notices (L22).
    ///
    /// A name that is served already is replaced when the new token is larger: the old export is cut off first, so that
    /// no write of the old token can land afterwards (L16). The same token with the same device, access and
    /// description changes nothing.
    ///
    /// # Errors
    /// `Fenced` for a smaller token; `AlreadyExists` for the same token with something else; `Conflict` when the device is
    /// exported for writing under another name, or is to be while exported at all (L06); `Invalid` when a read-only device
    /// is to be written.
    async fn publish(&self, spec: ExportSpec) -> Result<Export>;

    /// Stops serving a name: new requests are refused, those in flight finish, clients are disconnected, at the latest
    /// after `deadline` (L23). Idempotent: a name that is not served is [`Drained::Absent`].
    ///
    /// # Errors
    /// `Busy` when the device still has requests after the deadline: the export is closed for everybody and stays in the
    /// list, because a write may yet land; ask again.
    async fn withdraw(&self, name: &ExportName, deadline: Duration) -> Result<Drained>;

    /// Every export through which a write may land, by name.
    fn list(&self) -> BoxStream<'_, Result<Export>>;

    /// What went through an export; `None` when it is not served.
    async fn statistics(&self, name: &ExportName) -> Result<Option<ExportStatistics>>;
}
