use oma_core::ByteSize;
use serde::{Deserialize, Serialize};

use crate::Explanation;

/// A copy of one disk without records.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CopyReport {
    /// Where it was read.
    pub source: String,
    /// Where it was written.
    pub target: String,
    /// Bytes that were covered: the source.
    pub bytes_total: ByteSize,
    /// Bytes of them that earlier runs had made durable.
    pub bytes_resumed: ByteSize,
    /// Bytes that all runs copied more than once, at most.
    pub bytes_recopied: ByteSize,
    /// Bytes read from the source.
    pub bytes_read: ByteSize,
    /// Bytes of data written to the target, zeroes not counted.
    pub bytes_written: ByteSize,
    /// Bytes whose blocks the target shares with the source (reflink), so that nothing was read.
    pub bytes_shared: ByteSize,
    /// Bytes that are zero at the source, by its promise or by looking at them.
    pub bytes_zero: ByteSize,
    /// Bytes that were equal at both ends before and not copied, by a repair.
    pub bytes_equal: ByteSize,
    /// Bytes that were compared at the end, and are equal.
    pub bytes_verified: ByteSize,
    /// How long it took, until all was on stable storage.
    pub seconds: f64,
    /// Where the time went.
    pub explanation: Explanation,
}
