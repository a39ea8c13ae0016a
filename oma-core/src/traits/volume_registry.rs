use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::stream::BoxStream;

use crate::record::{
    ContentStamp, Lease, Operation, OperationFilter, OperationSpec, VolumeFilter, VolumeRecord,
};
use crate::traits::Volume;
use crate::{DiskRef, Generation, InstanceId, OperationId, Result, VolumeId, WorkerId};

/// The single source of truth of volumes (L01): `ossea_volumes`, `device_mappings`, `volume_operations`.
#[async_trait]
pub trait VolumeRegistry: fmt::Debug + Send + Sync + 'static {
    /// The id of this deployment: minted with the first start, the same ever after.
    async fn instance(&self) -> Result<InstanceId>;

    /// Records an intent as `executing`; the backend may be called once this returned. Idempotent by id: the same spec
    /// again answers the operation as it is now. A volume to be deleted is `deleting` from now on.
    ///
    /// # Errors
    /// `Fenced`; `AlreadyExists` when the id has another spec; `Conflict`, naming it, when the disk has another operation
    /// that has not ended; `NotFound` when the disk is not the job's, or the volume never was the disk's; `Invalid` when
    /// the spec names another job than the lease, no volume and is no `create`, or no snapshot and is about one. Of a
    /// delete, `Conflict` when the volume is attached or held an epoch ([`condemn`]), when the job does not operate, and, naming it,
    /// when a failover protects the volumes of the VM as for a job that operates ([`JobStore::insert`]).
    ///
    /// [`JobStore::insert`]: crate::traits::JobStore::insert
    ///
    /// [`condemn`]: VolumeRegistry::condemn
    async fn begin(&self, lease: &Lease, spec: &OperationSpec) -> Result<Operation>;

    /// Records a delete as `pending`, due after `grace`, and the volume as `condemned`: until then it can be called off, and
    /// nothing else is begun on its disk. Idempotent by id.
    ///
    /// # Errors
    /// As [`VolumeRegistry::begin`], but a volume that held an epoch will do; `Invalid` for no delete.
    async fn condemn(&self, lease: &Lease, spec: &OperationSpec, grace: Duration) -> Result<Operation>;

    /// A pending delete is due: it becomes `executing`, its volume `deleting`. Idempotent: one that is executing is answered as
    /// it is.
    ///
    /// # Errors
    /// `Fenced`; `Conflict` before it is due, when it has ended, when the job does not operate, and when a failover that began
    /// meanwhile protects the volumes of the VM, as for [`VolumeRegistry::begin`]; `NotFound` for an operation of
    /// no disk of the job.
    async fn execute(&self, lease: &Lease, id: &OperationId) -> Result<Operation>;

    /// Calls a pending delete off: it is `cancelled` with this reason, its volume `detached` and of the next generation, as
    /// [`VolumeRegistry::renew_generation`] gives it: a copy of the records that still has it condemned does not match the volume once
    /// that bears its new mark. Idempotent: the first reason stays, and the generation.
    ///
    /// # Errors
    /// As [`VolumeRegistry::execute`], but for when it is due.
    async fn pardon(&self, lease: &Lease, id: &OperationId, reason: &str) -> Result<Operation>;

    /// Keeps why nobody knows yet what the backend did ([`Operation::error`]). The operation goes on.
    ///
    /// # Errors
    /// `Fenced`; `Conflict` when it is not executing; `NotFound` for an operation of no disk of the job.
    async fn doubt(&self, lease: &Lease, id: &OperationId, why: &str) -> Result<()>;

    /// The operation with this id.
    async fn operation(&self, id: &OperationId) -> Result<Option<Operation>>;

    /// Operations in the order in which they were recorded, from the newest or from the oldest one on. One keeps its place whatever becomes
    /// of it.
    fn operations(&self, filter: OperationFilter) -> BoxStream<'_, Result<Operation>>;

    /// The operation of a disk that has not ended, if there is one.
    async fn unfinished(&self, disk: &DiskRef) -> Result<Option<Operation>>;

    /// Records what the backend did, in one transaction with the end of the operation. Idempotent. Any job that has the
    /// disk may do it, so that a later one finishes what an earlier one began.
    ///
    /// After `create`: the volume (`created`, [`content`](VolumeRecord::content) `Blank` when `zeroed`, else
    /// `Inconsistent`) and its link from the disk; its generation is the first, or the next after the disk's volume
    /// before, which keeps its record and loses its link. After `attach`: the device mapping, a new one in place of an old
    /// one. After `detach`: its removal, and that of the volume's exports. After `resize`: the new capacity. After
    /// `revert`: as [`advance_generation`]. After `snapshot` and `delete_snapshot`: nothing else. After `delete`: as [`forget`];
    /// the answer is the last record, `deleted`. What was kept of a doubt is forgotten.
    ///
    /// # Errors
    /// `Fenced`; `Conflict` when the operation has failed or was cancelled, the volume's state does not allow it, the
    /// device path maps to another volume, or the new volume is or was another disk's; `Invalid` when the volume is not the
    /// operation's, or is attached without a device path; `NotFound` for an operation of no disk of the job and for an
    /// unknown volume. Nothing changed, and the operation goes on.
    ///
    /// [`advance_generation`]: VolumeRegistry::advance_generation
    /// [`forget`]: VolumeRegistry::forget
    async fn complete(
        &self,
        lease: &Lease,
        id: &OperationId,
        volume: &Volume,
        zeroed: bool,
    ) -> Result<VolumeRecord>;

    /// Records that the backend did not do it. A volume that was to be deleted is `detached`. Idempotent: the first error stays.
    ///
    /// # Errors
    /// `Fenced`; `Conflict` when it was completed or cancelled, or is pending; `NotFound` for an operation of no disk of the job.
    async fn fail(&self, lease: &Lease, id: &OperationId, error: &str) -> Result<()>;

    /// The volume with this id.
    async fn volume(&self, id: &VolumeId) -> Result<Option<VolumeRecord>>;

    /// The volume of a disk, by its recorded link (L03).
    async fn volume_of(&self, disk: &DiskRef) -> Result<Option<VolumeRecord>>;

    /// The volume that is this device of this machine. The same path of another machine is another device.
    async fn volume_at(&self, machine: &WorkerId, device_path: &str) -> Result<Option<VolumeRecord>>;

    /// Volumes by id; none that is deleted.
    fn volumes(&self, filter: VolumeFilter) -> BoxStream<'_, Result<VolumeRecord>>;

    /// Marks a volume of the job as in mid-epoch, before its first write (L12). Its stamp is forgotten: it is about to be
    /// written. Recovery points that the job began and that are not ready become `deleting`: they hold something else than
    /// what the job will commit. Idempotent.
    ///
    /// # Errors
    /// `Fenced`; `NotFound` when no disk of the job has this volume.
    async fn mark_inconsistent(&self, lease: &Lease, id: &VolumeId) -> Result<()>;

    /// Keeps what the content of a volume of the job looks like now that its writer leaves it, in place of what was kept
    /// before. The next run asks whether it still looks like that. Idempotent.
    ///
    /// # Errors
    /// `Fenced`; `NotFound` when no disk of the job has this volume; `Conflict` for a volume that holds an epoch: its stamp is
    /// that of its commit.
    async fn keep_stamp(&self, lease: &Lease, id: &VolumeId, stamp: &ContentStamp) -> Result<()>;

    /// Gives a volume of the job the next generation: no change id of before matches any more (L09). Its content becomes
    /// `Inconsistent`, its stamp is forgotten. Not idempotent: each call is another generation.
    ///
    /// # Errors
    /// `Fenced`; `NotFound` when no disk of the job has this volume.
    async fn advance_generation(&self, lease: &Lease, id: &VolumeId) -> Result<Generation>;

    /// Gives a volume of the job the next generation and leaves what is known of its content as it is: what it holds, its stamp, the
    /// change id that its disk has committed and the journal count for the new generation, all in one transaction (L09). Copies of the
    /// records of before do not match the volume any more, once it bears its new mark (L02). From now on it is one that held an
    /// epoch, so that no copy of after deletes it at once either. Not idempotent: each call is another generation.
    ///
    /// # Errors
    /// `Fenced`; `NotFound` when no disk of the job has this volume.
    async fn renew_generation(&self, lease: &Lease, id: &VolumeId) -> Result<Generation>;

    /// As [`VolumeRegistry::advance_generation`], of a volume whose disk's source promised zeroes where it held data. In the same
    /// transaction that is noted of the disk: no such promise of it is believed any more, by whatever job (L10).
    ///
    /// # Errors
    /// `Fenced`; `NotFound` when no disk of the job has this volume.
    async fn distrust_zeroes(&self, lease: &Lease, id: &VolumeId) -> Result<Generation>;

    /// Takes a volume that the backend no longer has out of the records: its mapping, exports and link go, a later
    /// volume of the disk gets a larger generation. Idempotent; an unknown one is `Ok`.
    ///
    /// # Errors
    /// `Fenced`; `NotFound` for a volume made for no disk of the job.
    async fn forget(&self, lease: &Lease, id: &VolumeId) -> Result<()>;
}
