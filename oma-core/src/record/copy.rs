use serde::{Deserialize, Serialize};

use crate::{ByteSize, ExtentSet, PointId};

/// What a copy without other records is of: the journal of one is used for no other.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CopyBasis {
    /// Names the content of the source: equal ids mean equal content.
    pub content: PointId,
    /// The size of the source.
    pub capacity: ByteSize,
    /// Names the target.
    pub target: String,
    /// The size of the target.
    pub target_capacity: ByteSize,
    /// A hash of the extents that are copied; `None` for all of the source.
    pub extents: Option<String>,
}

impl CopyBasis {
    /// In what another copy differs from this one, in words for an operator; `None` when it is the same.
    #[must_use]
    pub fn difference(&self, now: &Self) -> Option<String> {
        let told = |what: &str, was: &dyn std::fmt::Display, is: &dyn std::fmt::Display| {
            Some(format!("its {what} was {was} and is {is}"))
        };
        let list = |extents: &Option<String>| extents.clone().unwrap_or_else(|| "the whole disk".to_owned());
        if self.content != now.content {
            return told("source", &self.content, &now.content);
        }
        if self.capacity != now.capacity {
            return told("source's size", &self.capacity.bytes(), &now.capacity.bytes());
        }
        if self.target != now.target {
            return told("target", &self.target, &now.target);
        }
        if self.target_capacity != now.target_capacity {
            return told("target's size", &self.target_capacity.bytes(), &now.target_capacity.bytes());
        }
        if self.extents != now.extents {
            return told("list of extents", &list(&self.extents), &list(&now.extents));
        }
        None
    }
}

/// The journal of a copy, as earlier runs left it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CopyEntry {
    /// What it is about.
    pub basis: CopyBasis,
    /// Extents whose bytes at the target are durable and equal to the source.
    pub finished: ExtentSet,
    /// What earlier runs have written without recording it, at most.
    pub unrecorded: ByteSize,
}

impl CopyEntry {
    /// Nothing is finished any more: see [`CopyJournal::forget`](crate::traits::CopyJournal::forget).
    pub fn forget(&mut self) {
        self.unrecorded += std::mem::take(&mut self.finished).bytes();
    }
}
