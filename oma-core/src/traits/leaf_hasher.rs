use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::tree::LeafRun;
use crate::{Extent, Result};

/// From where bytes are to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadFrom {
    /// From where they are had soonest.
    Anywhere,
    /// From the device itself, past the page cache, where that is possible: what is read back is what the device kept.
    Device,
}

/// How bytes were read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReadManner {
    /// Through the page cache, or it is not known how: there may be no other way, as at the other end of a link.
    ThroughCache,
    /// From memory, which is all that the device has: nothing lies behind that could hold anything else.
    InMemory,
    /// Past the page cache, from the device.
    PastCache,
}

/// Hashes of leaves, from the start of what was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HashedLeaves {
    /// In order, without gaps, never beyond what was asked for; at least one.
    pub runs: Vec<LeafRun>,
    /// How their bytes were read; when they were read in several ways, the lesser.
    pub manner: ReadManner,
}

/// Hashes the leaves of a device where its data is: beside the disk, at the other end of a link.
///
/// What a leaf is stands in [`crate::tree`]. Whoever has no such device reads and hashes:
/// [`tree::leaf_hashes`](crate::tree::leaf_hashes) does either.
#[async_trait]
pub trait LeafHasher: Send + Sync {
    /// The hashes of the leaves of an extent from its start. A leaf that the extent cuts counts for what of it lies within.
    ///
    /// It may end early, at a leaf's end: ask again from there. A dropped call changes nothing. What is written meanwhile
    /// is hashed as it was, as it is, or mixed; a write to other leaves changes no hash of these.
    ///
    /// # Errors
    /// As [`BlockDevice::read_at`](crate::traits::BlockDevice::read_at).
    async fn leaf_hashes(&self, extent: Extent, from: ReadFrom) -> Result<HashedLeaves>;
}
