use serde::{Deserialize, Serialize};

use crate::{ByteSize, ChangeId, Endpoint, Extent, ExtentSet, Generation, PointId};

/// What a journal of finished extents is about. Another basis means another journal, or one that was carried over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JournalBasis {
    /// The volume's generation.
    pub generation: Generation,
    /// The source.
    pub endpoint: Endpoint,
    /// The content that is copied: equal ids mean equal content.
    pub content: PointId,
    /// The change id of that content: what changed since it is no longer finished.
    pub change_id: ChangeId,
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
    /// Extents whose bytes at the target are durable and equal to the content of the basis.
    pub finished: ExtentSet,
    /// Bytes that runs before the one that begins it copied for this epoch and that are copied again, at most.
    pub recopied: ByteSize,
}

impl JournalEntry {
    /// A journal of which nothing is finished.
    #[must_use]
    pub const fn new(basis: JournalBasis, planned: ExtentSet) -> Self {
        Self { basis, planned, finished: ExtentSet::new(), recopied: ByteSize::ZERO }
    }

    /// What the epoch has to cover: the disk, or the planned extents.
    #[must_use]
    pub fn scope(&self) -> ExtentSet {
        let whole: ExtentSet = Extent::between(0, self.basis.capacity.bytes()).into_iter().collect();
        if self.basis.base.is_some() { self.planned.intersection(&whole) } else { whole }
    }

    /// Bytes of the scope that are finished.
    #[must_use]
    pub fn synced(&self) -> ByteSize {
        self.scope().intersection(&self.finished).bytes()
    }
}
