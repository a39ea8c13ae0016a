use std::fmt;

use async_trait::async_trait;
use futures_util::stream::BoxStream;

use crate::record::{ExportRecord, Lease};
use crate::state::ExportEvent;
use crate::{DiskKey, ExportName, Result, VolumeId};

/// Which volume is served under which name (`nbd_exports`).
#[async_trait]
pub trait ExportRegistry: fmt::Debug + Send + Sync + 'static {
    /// Records an export as `starting`; the server may be told once this returned.
    ///
    /// Idempotent: the same name for the same disk and volume starts over in `starting`, whichever job had it before.
    ///
    /// # Errors
    /// `Fenced`; `AlreadyExists` when the name belongs to another disk or volume; `NotFound` when the disk is not the
    /// job's or the volume not the disk's or not attached.
    async fn begin(
        &self,
        lease: &Lease,
        name: &ExportName,
        key: &DiskKey,
        volume: &VolumeId,
    ) -> Result<ExportRecord>;

    /// Moves an export by one event.
    ///
    /// # Errors
    /// `Fenced`; `Conflict` when its state does not allow the event; `NotFound`, also for another job's export.
    async fn advance(&self, lease: &Lease, name: &ExportName, event: ExportEvent) -> Result<ExportRecord>;

    /// The export with this name.
    async fn export(&self, name: &ExportName) -> Result<Option<ExportRecord>>;

    /// All exports, by name.
    fn exports(&self) -> BoxStream<'_, Result<ExportRecord>>;

    /// Takes a `stopped` export out of the records. Idempotent; an unknown name is `Ok`. It needs no lease: whoever finds
    /// that no server serves it may (L24).
    ///
    /// # Errors
    /// `Conflict` when it is not stopped.
    async fn remove(&self, name: &ExportName) -> Result<()>;
}
