use serde::{Deserialize, Serialize};

use crate::{ByteSize, ChangeId, ExtentSet, Generation, PointId};

/// What a journal of finished extents is about. Another basis means another journal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JournalBasis {
    /// The volume's generation.
    pub generation: Generation,
    /// The content that is copied: equal ids mean equal content.
    pub content: PointId,
    /// The change id started from; `None` for a full copy.
    pub base: Option<ChangeId>,
    /// The size of the source.
    pub capacity: ByteSize,
}

/// The journal of one disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JournalEntry {
    /// What it is about.
    pub basis: JournalBasis,
    /// Extents that an incremental copy has to bring over, from this and from unfinished earlier attempts
    /// on the same base; empty for a full copy.
    pub planned: ExtentSet,
    /// Extents whose content is durable at the target.
    pub finished: ExtentSet,
}
