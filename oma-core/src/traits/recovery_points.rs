use std::fmt;

use async_trait::async_trait;
use futures_util::stream::BoxStream;

use crate::record::{ContentStamp, Lease, Needless, RecoveryPoint, RecoveryPointSpec};
use crate::{ContextId, RecoveryPointId, Result, VolumeId};

/// Recovery points: which snapshots of volumes are one epoch of a VM.
///
/// [`commit_epoch`](super::ChangeIdRepo::commit_epoch) makes the job's `taken` point `ready`, in the same transaction: a ready
/// point is of a committed epoch, whatever crashed.
#[async_trait]
pub trait RecoveryPoints: fmt::Debug + Send + Sync + 'static {
    /// Records as `creating` what is about to be made; snapshots may be made once this returned. Points that the job began
    /// earlier and that are not ready become `deleting`: what they hold may be of another point in time. Idempotent by id.
    ///
    /// # Errors
    /// `Fenced`; `Conflict` when the job is a revert; `AlreadyExists` when the id has other volumes; `Invalid` when the volumes are not exactly those of the
    /// job's disks, each once, or a snapshot names another job.
    async fn begin_point(&self, lease: &Lease, spec: &RecoveryPointSpec) -> Result<RecoveryPoint>;

    /// Records that every snapshot was made: `taken`. Idempotent.
    ///
    /// # Errors
    /// `Fenced`; `NotFound` when the job has no such point; `Conflict` when it is `deleting`.
    async fn take_point(&self, lease: &Lease, id: &RecoveryPointId) -> Result<()>;

    /// Records that a point is not wanted any more, before a snapshot of it is deleted: `deleting`. Idempotent: the first
    /// reason stays.
    ///
    /// # Errors
    /// `NotFound`; `Conflict` when it is not, or not any more, [`Needless`] as is said, for one that is not ready while its job
    /// is live, for every ready one while a job of the VM reverts, for it may be to that one, and for the newest ready one
    /// while any job of the VM is live or one of its volumes does not hold an epoch: it may be all that is consistent (L12).
    async fn condemn_point(&self, id: &RecoveryPointId, needless: Needless, reason: &str) -> Result<()>;

    /// Takes a point out of the records, once its snapshots are gone. Idempotent: an unknown one is `Ok`.
    ///
    /// # Errors
    /// `Conflict` unless it is `deleting`.
    async fn remove_point(&self, id: &RecoveryPointId) -> Result<()>;

    /// The point with this id.
    async fn point(&self, id: &RecoveryPointId) -> Result<Option<RecoveryPoint>>;

    /// All points of a VM, in whatever state, those of the latest epoch first.
    fn points(&self, context: &ContextId) -> BoxStream<'_, Result<RecoveryPoint>>;

    /// Records that every volume of a point holds its epoch again, with the stamp that its content has now. Their
    /// generations stay what they are, so no change id of before matches (L09). Idempotent.
    ///
    /// # Errors
    /// `Fenced`; `NotFound` when the VM of the job has no such point; `Conflict` when the job is not a revert, the point is not
    /// ready, its disks are not exactly the job's, or a volume is not the disk's any more.
    async fn reverted_to(
        &self,
        lease: &Lease,
        id: &RecoveryPointId,
        stamps: &[(VolumeId, Option<ContentStamp>)],
    ) -> Result<()>;
}
