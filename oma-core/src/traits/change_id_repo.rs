use std::fmt;

use async_trait::async_trait;
use futures_util::stream::BoxStream;

use crate::record::{CbtRecord, CommittedChange, DiskAttempt, EpochCommit, Lease};
use crate::{DiskRef, Endpoint, Generation, Result};

/// Change ids: advanced for all disks of a job at once, or not at all (L08).
#[async_trait]
pub trait ChangeIdRepo: fmt::Debug + Send + Sync + 'static {
    /// The change id of the last committed epoch, when it belongs to this generation and this endpoint (L09);
    /// `None` for every other one.
    async fn current(
        &self,
        disk: &DiskRef,
        generation: Generation,
        endpoint: &Endpoint,
    ) -> Result<Option<CommittedChange>>;

    /// Records in the history that a job begins with a disk. Idempotent by (job, disk): the newest attempt replaces.
    ///
    /// # Errors
    /// `Fenced`; `NotFound` when the disk is not the job's.
    async fn begin(&self, lease: &Lease, attempt: &DiskAttempt) -> Result<()>;

    /// Makes an epoch the last one, in one transaction: change ids of all its disks, history, content and stamp of all
    /// volumes, disks `completed`, journals removed, the job's `taken` recovery point `ready`, VM `ready_for_failover`, job
    /// `completed`, lease given back.
    ///
    /// Idempotent: once more with the same lease and the same commit, after it worked, answers `Ok` and changes nothing.
    ///
    /// # Errors
    /// `Fenced`, also for another commit after one that worked; `Conflict`, and nothing changed, when the job is a revert, or
    /// not in `finalizing`, the VM is not the job's, the epoch is not the VM's next, the disks are not exactly the job's, a
    /// disk's change id is not the one its attempt ([`ChangeIdRepo::begin`]) aims at, or a volume is not the disk's any
    /// more or has another generation.
    async fn commit_epoch(&self, lease: &Lease, commit: &EpochCommit) -> Result<()>;

    /// Attempts and successes of a disk, newest first.
    fn history(&self, disk: &DiskRef) -> BoxStream<'_, Result<CbtRecord>>;
}
