//! What of a read has come.

use oma_core::{Extent, ExtentSet};

/// Most reads come in one piece: nothing is allocated for them.
#[derive(Debug, Default)]
pub(super) enum Covered {
    #[default]
    Nothing,
    Parts(ExtentSet),
    All,
}

impl Covered {
    pub(super) fn is_empty(&self) -> bool {
        match self {
            Self::Nothing => true,
            Self::Parts(parts) => parts.is_empty(),
            Self::All => false,
        }
    }

    /// Marks an extent of a read of so many bytes as come; `false` when some of it came before.
    pub(super) fn add(&mut self, extent: Extent, length: u64) -> bool {
        match self {
            Self::Nothing if extent.length() == length => *self = Self::All,
            Self::Nothing => *self = Self::Parts(ExtentSet::from_iter([extent])),
            Self::Parts(parts) if parts.within(extent).is_empty() => parts.insert(extent),
            Self::Parts(_) | Self::All => return false,
        }
        true
    }

    /// How many pieces lie apart.
    pub(super) fn pieces(&self) -> usize {
        match self {
            Self::Parts(parts) => parts.count(),
            Self::Nothing | Self::All => 1,
        }
    }

    /// How many bytes of a read of so many have not come.
    pub(super) fn missing(&self, length: u64) -> u64 {
        match self {
            Self::Nothing => length,
            Self::Parts(parts) => length - parts.bytes().bytes(),
            Self::All => 0,
        }
    }
}
