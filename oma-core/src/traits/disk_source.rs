use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;

use crate::record::SourceVm;
use crate::traits::BlockDevice;
use crate::{ByteSize, ChangeId, DiskKey, ExtentSet, JobId, PointId, Result, VmPath};

/// All disks of a VM at one point in time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PointInTime {
    /// The handle: what to open and to release.
    pub id: PointId,
    /// Its disks; keys are unique.
    pub disks: Vec<PointDisk>,
}

/// One disk at a point in time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PointDisk {
    /// Which disk.
    pub key: DiskKey,
    /// Its size then (L13).
    pub capacity: ByteSize,
    /// The marker of that point for this disk.
    pub change_id: ChangeId,
    /// Names the content: two points with equal ids have equal content. A source that cannot tell mints a new id.
    pub content: PointId,
}

/// What changed since a change id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Changes {
    /// Every byte that differs lies in these extents; they may hold more.
    Since(ExtentSet),
    /// The source cannot tell, and why: the whole disk may have changed.
    Unknown(String),
}

/// Where blocks are read.
#[async_trait]
pub trait DiskSource: fmt::Debug + Send + Sync + 'static {
    /// The VM and its disks as they are now.
    ///
    /// # Errors
    /// `NotFound` when there is no such VM; `Unavailable` when the source could not be asked.
    async fn discover(&self, vm: &VmPath) -> Result<SourceVm>;

    /// Freezes all disks of a VM at one point in time, under the job's name (L20).
    ///
    /// Idempotent by job: as long as the point exists, again answers the same content ids.
    async fn freeze(&self, vm: &VmPath, job: &JobId) -> Result<PointInTime>;

    /// What changed on a disk from a change id up to a point in time. What a disk has grown by since need not be told.
    ///
    /// # Errors
    /// `NotFound` for an unknown point, disk or bitmap.
    async fn changed(&self, point: &PointId, key: &DiskKey, since: &ChangeId) -> Result<Changes>;

    /// Tells that the epoch of this change id is committed: what only older ones need may go. What newer ones need stays, also of
    /// epochs that were not committed: a job that was interrupted asks for them. A hint, given again at each job.
    ///
    /// # Errors
    /// `NotFound` for an unknown point or disk.
    async fn committed(&self, point: &PointId, key: &DiskKey, change_id: &ChangeId) -> Result<()>;

    /// Opens a disk at a point in time for reading.
    ///
    /// # Errors
    /// `NotFound` for an unknown point or disk.
    async fn open(&self, point: &PointId, key: &DiskKey) -> Result<Arc<dyn BlockDevice>>;

    /// Whether a point in time is still what it was when it was frozen. Asked when everything is copied, before the epoch is
    /// committed: where nothing can be frozen, somebody may have written meanwhile.
    ///
    /// # Errors
    /// `Conflict` when it is not: what was copied is of no one moment. An unknown or released point is `NotFound`, or `Ok` where
    /// whatever is read of it fails.
    async fn confirm(&self, point: &PointInTime) -> Result<()>;

    /// Lets a point in time go. Idempotent: an unknown one is `Ok`.
    async fn release(&self, point: &PointId) -> Result<()>;

    /// Lets go whatever runs of a job have left of its point in time, also a part of one, by the job's name on it (L20). What
    /// tells changes since then stays. Idempotent: a job that left nothing is `Ok`.
    async fn release_job(&self, job: &JobId) -> Result<()>;
}
