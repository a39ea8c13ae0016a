use std::fmt;

use async_trait::async_trait;
use futures_util::stream::BoxStream;

use crate::record::{DiskRecord, SourceIdentity, SourceVm, VmContext};
use crate::{ContextId, DiskRef, Result, VmPath};

/// VM contexts and their disks, known from discovery, before and after every job.
#[async_trait]
pub trait Inventory: fmt::Debug + Send + Sync + 'static {
    /// Records a VM as its source describes it now; answers its lasting record.
    ///
    /// A VM is found again by its identity, a disk by its key (L04): a new name, path, order, label or size changes the
    /// record and nothing that hangs on it (status, epoch, job, volume, change id). A disk that is gone at the source
    /// keeps its record. Idempotent.
    ///
    /// # Errors
    /// `Invalid`, and nothing changed, for a disk key twice or a disk without a byte.
    async fn record(&self, vm: &SourceVm) -> Result<VmContext>;

    /// The VM with this id.
    async fn context(&self, id: &ContextId) -> Result<Option<VmContext>>;

    /// The VM with this identity.
    async fn by_identity(&self, identity: &SourceIdentity) -> Result<Option<VmContext>>;

    /// The VM that had this path when it was last discovered; of several, the one whose record was made last.
    async fn by_path(&self, path: &VmPath) -> Result<Option<VmContext>>;

    /// The VMs behind this id, all without one, by id. The id may be one that is not there any more.
    fn contexts(&self, after: Option<&ContextId>) -> BoxStream<'_, Result<VmContext>>;

    /// The disk, if it is known.
    async fn disk(&self, disk: &DiskRef) -> Result<Option<DiskRecord>>;

    /// All disks of a VM, by key; none for an unknown VM.
    async fn disks(&self, context: &ContextId) -> Result<Vec<DiskRecord>>;

    /// Removes a VM that is no longer wanted, with its disks, its ended jobs and all that is recorded of them; of its deleted volumes
    /// nothing is known any more either. The same VM discovered again is a new one. Idempotent: an unknown one is `Ok`.
    ///
    /// # Errors
    /// `Conflict`, and nothing changed, while anything stands for what is really there: a live job, a volume that is not deleted, an
    /// operation that is not finished, an export, a recovery point, a failover that is not over or may have made a VM in the cloud, or a cleanup that is being carried out.
    async fn remove_vm(&self, id: &ContextId) -> Result<()>;
}
