use std::fmt;

use async_trait::async_trait;

use crate::record::{JournalEntry, Lease};
use crate::{ByteSize, DiskKey, DiskRef, Extent, Result};

/// The journal of finished extents, one per disk: from where the next run continues after a crash or a failure.
///
/// It outlives its job, so that the next one goes on with it, and is removed when an epoch of the disk is committed.
#[async_trait]
pub trait ExtentJournal: fmt::Debug + Send + Sync + 'static {
    /// The journal of a disk, if it has one.
    ///
    /// # Errors
    /// `Corrupt` when it was damaged: an extent is never told to be finished by a journal that is not as it was written.
    async fn load(&self, disk: &DiskRef) -> Result<Option<JournalEntry>>;

    /// Begins a journal in place of any other of this disk, also a damaged one, in one transaction. What is finished already
    /// is what an earlier journal had and still holds: there is no moment at which neither of them is there.
    ///
    /// The disk becomes `syncing` with the bytes synced that the journal [has](JournalEntry::synced).
    ///
    /// # Errors
    /// `Fenced`; `NotFound` when the disk is not the job's.
    async fn begin(&self, lease: &Lease, key: &DiskKey, entry: &JournalEntry) -> Result<()>;

    /// Adds an extent whose content is durable at the target, and sets the bytes synced (L25); the disk becomes `syncing`
    /// when an earlier job began the journal. Idempotent.
    ///
    /// # Errors
    /// `Fenced`; `NotFound` when the disk has no journal or is not the job's.
    async fn record(&self, lease: &Lease, key: &DiskKey, finished: Extent, synced: ByteSize) -> Result<()>;
}
