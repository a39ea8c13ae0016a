use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use oma_core::traits::{BlockDevice, BlockStatusKind};
use oma_core::{Extent, Result};

use crate::protocol::{BASE_ALLOCATION, NBD_STATE_HOLE, NBD_STATE_ZERO};

/// The flags of one extent in a metadata context.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ContextStatus {
    /// The extent.
    pub extent: Extent,
    /// Flags; their meaning is the context's. Without extended headers only the lower 32 bits are told.
    pub flags: u64,
}

/// A kind of knowledge about an export that clients can ask for: what is allocated, what has changed.
#[async_trait]
pub trait MetaContext: fmt::Debug + Send + Sync + 'static {
    /// Its name, `NAMESPACE:LEAF`.
    fn name(&self) -> &str;

    /// Whether it is computed from the data. Its flags have 64 bits then, so that only clients with extended headers can
    /// choose it, and a request is answered with what one call tells, however little, so that no request works long.
    fn is_computed(&self) -> bool;

    /// The status of an extent from its start: at least one entry, in order, without gaps, never beyond the extent.
    ///
    /// It may end early; the server asks again from there.
    async fn status(&self, extent: Extent) -> Result<Vec<ContextStatus>>;
}

/// `base:allocation`: what the device knows without reading.
#[derive(Debug)]
pub(super) struct Allocation(pub(super) Arc<dyn BlockDevice>);

#[async_trait]
impl MetaContext for Allocation {
    fn name(&self) -> &str {
        BASE_ALLOCATION
    }

    fn is_computed(&self) -> bool {
        false
    }

    async fn status(&self, extent: Extent) -> Result<Vec<ContextStatus>> {
        let found = self.0.block_status(extent).await?;
        let flagged = |kind| match kind {
            BlockStatusKind::Data => 0,
            BlockStatusKind::Zero => NBD_STATE_ZERO,
            BlockStatusKind::Hole => NBD_STATE_HOLE | NBD_STATE_ZERO,
            BlockStatusKind::Unallocated => NBD_STATE_HOLE,
        };
        Ok(found.iter().map(|s| ContextStatus { extent: s.extent, flags: flagged(s.kind).into() }).collect())
    }
}
