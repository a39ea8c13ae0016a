use std::fmt;

use async_trait::async_trait;

use crate::audit::{AuditEntry, AuditFilter, AuditFrom, AuditHead, AuditRecord, Verified};
use crate::{Result, Timestamp};

/// The audit trail: who changed what (L30). Entries are added, never changed; each is chained to the one before by its hash.
///
/// ```text
/// entry 7 ──hash──► entry 8 ──hash──► entry 9        head: 9 and its hash
/// ```
#[async_trait]
pub trait AuditLog: fmt::Debug + Send + Sync + 'static {
    /// Adds an entry behind the last one and answers it as it is kept. Not idempotent. Of many at once, by however many
    /// programs, each gets its own place. No entry is earlier than the one before it, whatever the clock says.
    async fn audit(&self, entry: &AuditEntry) -> Result<AuditRecord>;

    /// The entries that the filter lets through, from one on in either order; at most `limit` and 1000.
    async fn audit_entries(
        &self,
        filter: &AuditFilter,
        from: AuditFrom,
        limit: u32,
    ) -> Result<Vec<AuditRecord>>;

    /// Reads the whole trail, entry by entry and as of one moment, and tells the first place where it was tampered with: an entry
    /// that was removed, altered or inserted.
    ///
    /// Whoever can write to the database at will can write a new trail with right hashes: so keep the head that this answers elsewhere,
    /// and give it as `known` the next time. A trail that does not go through it was rewritten.
    async fn verify_audit(&self, known: Option<&AuditHead>) -> Result<Verified>;

    /// Removes the entries older than a time from the beginning of the trail, and answers how many. That is an entry too, which the
    /// rest of the trail proves right. Interrupted, it has removed some of them, and the next call goes on.
    ///
    /// # Errors
    /// `Invalid` for a time less than [`KEPT`](crate::audit::KEPT) ago.
    async fn prune_audit(&self, older_than: Timestamp) -> Result<u64>;
}
