use std::fmt;

use async_trait::async_trait;
use futures_util::stream::BoxStream;

use crate::record::{Lease, Operation, OperationSpec, VolumeRecord};
use crate::traits::Volume;
use crate::{DiskRef, Generation, InstanceId, OperationId, Result, VolumeId};

/// The single source of truth of volumes (L01): `ossea_volumes`, `device_mappings`, `volume_operations`.
#[async_trait]
pub trait VolumeRegistry: fmt::Debug + Send + Sync + 'static {
    /// The id of this deployment: minted with the first start, the same ever after.
    async fn instance(&self) -> Result<InstanceId>;

    /// Records an intent as `executing`; the backend may be called once this returned. Idempotent by id.
    ///
    /// # Errors
    /// `Fenced`; `AlreadyExists` when the id has another spec; `Conflict`, naming it, when the disk has another operation
    /// that has not ended; `NotFound` for an unknown disk.
    async fn begin(&self, lease: &Lease, spec: &OperationSpec) -> Result<Operation>;

    /// The operation with this id.
    async fn operation(&self, id: &OperationId) -> Result<Option<Operation>>;

    /// The operation of a disk that has not ended, if there is one.
    async fn unfinished(&self, disk: &DiskRef) -> Result<Option<Operation>>;

    /// Records what the backend did, in one transaction with the end of the operation. Idempotent.
    ///
    /// After `create`: the volume (`created`, [`content`](VolumeRecord::content) `Blank` when `zeroed`, else
    /// `Inconsistent`) and its link from the disk; a disk that had another volume gets the next generation after that
    /// one's, whose link is gone. After `attach`: the device mapping. After `detach`: its removal. After `resize`: the new
    /// capacity. After `delete`: the volume's removal and its link's.
    ///
    /// # Errors
    /// `Fenced`; `Conflict` when the operation has failed or was cancelled, or the device path maps to another volume;
    /// `NotFound`.
    async fn complete(
        &self,
        lease: &Lease,
        id: &OperationId,
        volume: &Volume,
        zeroed: bool,
    ) -> Result<VolumeRecord>;

    /// Records that the backend did not do it. Idempotent.
    ///
    /// # Errors
    /// `Fenced`; `Conflict` when it was completed; `NotFound`.
    async fn fail(&self, lease: &Lease, id: &OperationId, error: &str) -> Result<()>;

    /// The volume with this id.
    async fn volume(&self, id: &VolumeId) -> Result<Option<VolumeRecord>>;

    /// The volume of a disk, by its recorded link (L03).
    async fn volume_of(&self, disk: &DiskRef) -> Result<Option<VolumeRecord>>;

    /// All volumes, by id.
    fn volumes(&self) -> BoxStream<'_, Result<VolumeRecord>>;

    /// Marks a volume of the job as in mid-epoch, before its first write (L12). Idempotent.
    ///
    /// # Errors
    /// `Fenced`; `NotFound` when no disk of the job has this volume.
    async fn mark_inconsistent(&self, lease: &Lease, id: &VolumeId) -> Result<()>;

    /// Gives a volume of the job the next generation: no change id of before matches any more (L09). Its content becomes
    /// `Inconsistent`. Not idempotent: each call is another generation.
    ///
    /// # Errors
    /// `Fenced`; `NotFound` when no disk of the job has this volume.
    async fn advance_generation(&self, lease: &Lease, id: &VolumeId) -> Result<Generation>;

    /// Takes a volume that the backend no longer has out of the records: its mapping, exports and link go, a later
    /// volume of the disk gets a larger generation. Idempotent.
    ///
    /// # Errors
    /// `Fenced`.
    async fn forget(&self, lease: &Lease, id: &VolumeId) -> Result<()>;
}
