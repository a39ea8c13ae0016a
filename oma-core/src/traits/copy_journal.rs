use std::fmt;

use async_trait::async_trait;

use crate::record::{CopyBasis, CopyEntry};
use crate::{ByteSize, Extent, Result};

/// The journal of one copy without other records: from where it goes on after a crash or a failure.
///
/// Whatever a call has noted is durable when it returns.
#[async_trait]
pub trait CopyJournal: fmt::Debug + Send + Sync + 'static {
    /// What earlier runs left; `None` when there is no journal.
    ///
    /// # Errors
    /// `Corrupt` when it was damaged: an extent is never told to be finished by a journal that is not as it was written.
    async fn load(&self) -> Result<Option<CopyEntry>>;

    /// Notes that a run begins, which never has more than `unrecorded` bytes written that it has not recorded. Makes the
    /// journal when there is none; what is finished stays.
    ///
    /// # Errors
    /// `Conflict` when the journal is of another copy; as it was it stays.
    async fn begin(&self, basis: &CopyBasis, unrecorded: ByteSize) -> Result<()>;

    /// Adds an extent whose content is durable at the target. Idempotent.
    ///
    /// # Errors
    /// `NotFound` when there is no journal.
    async fn record(&self, finished: Extent) -> Result<()>;

    /// Notes that nothing is finished any more: the target does not hold what it should. The journal stays, so that a target that
    /// was written is not taken for a blank one; what was finished counts as unrecorded.
    ///
    /// # Errors
    /// `NotFound` when there is no journal.
    async fn forget(&self) -> Result<()>;

    /// Removes the journal: nothing is left to be copied. Idempotent.
    async fn end(&self) -> Result<()>;
}
