//! Ranges of bytes on a disk.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A range of bytes: never empty, never beyond 2^64 (both forbidden by construction).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "(u64, u64)", into = "(u64, u64)")]
pub struct Extent {
    offset: u64,
    length: u64,
}

/// Why an offset and a length are not an extent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ExtentError {
    /// An extent has at least one byte.
    #[error("the extent at {offset} is empty")]
    Empty {
        /// Where it would begin.
        offset: u64,
    },
    /// An extent ends before 2^64.
    #[error("the extent at {offset} with {length} bytes ends beyond 2^64")]
    Overflow {
        /// Where it begins.
        offset: u64,
        /// How long it would be.
        length: u64,
    },
}

impl Extent {
    /// The extent of `length` bytes from `offset`.
    ///
    /// # Errors
    /// When it is empty or ends beyond 2^64 - 1.
    pub const fn new(offset: u64, length: u64) -> Result<Self, ExtentError> {
        if length == 0 {
            return Err(ExtentError::Empty { offset });
        }
        if offset.checked_add(length).is_none() {
            return Err(ExtentError::Overflow { offset, length });
        }
        Ok(Self { offset, length })
    }

    /// The extent from `start` up to, not including, `end`; `None` when that is empty.
    #[must_use]
    pub const fn between(start: u64, end: u64) -> Option<Self> {
        if start < end { Some(Self { offset: start, length: end - start }) } else { None }
    }

    /// First byte.
    #[must_use]
    pub const fn offset(self) -> u64 {
        self.offset
    }

    /// Number of bytes, at least one.
    #[must_use]
    pub const fn length(self) -> u64 {
        self.length
    }

    /// First byte behind it.
    #[must_use]
    pub const fn end(self) -> u64 {
        self.offset + self.length
    }

    /// Whether the byte at an offset is in it.
    #[must_use]
    pub const fn contains(self, offset: u64) -> bool {
        self.offset <= offset && offset < self.end()
    }

    /// The bytes in both.
    #[must_use]
    pub fn intersection(self, other: Self) -> Option<Self> {
        Self::between(self.offset.max(other.offset), self.end().min(other.end()))
    }

    /// The same bytes in pieces that end at multiples of `size`.
    ///
    /// # Panics
    /// When `size` is zero.
    pub fn pieces(self, size: u64) -> impl Iterator<Item = Self> {
        assert!(size > 0, "a piece has at least one byte");
        let mut at = self.offset;
        std::iter::from_fn(move || {
            let boundary = (at / size).saturating_add(1).saturating_mul(size);
            let piece = Self::between(at, boundary.min(self.end()))?;
            at = piece.end();
            Some(piece)
        })
    }
}

impl fmt::Display for Extent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}+{}", self.offset, self.length)
    }
}

impl TryFrom<(u64, u64)> for Extent {
    type Error = ExtentError;
    fn try_from((offset, length): (u64, u64)) -> Result<Self, ExtentError> {
        Self::new(offset, length)
    }
}

impl From<Extent> for (u64, u64) {
    fn from(extent: Extent) -> Self {
        (extent.offset, extent.length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn empty_and_overflowing_extents_cannot_be_made() {
        assert_eq!(Extent::new(5, 0), Err(ExtentError::Empty { offset: 5 }));
        assert!(Extent::new(u64::MAX, 1).is_err());
        assert!(Extent::new(u64::MAX - 1, 1).is_ok());
        assert!(serde_json::from_str::<Extent>("[7,0]").is_err());
    }

    #[test]
    fn pieces_end_at_multiples_of_the_size() {
        let pieces: Vec<_> = Extent::new(3, 10).unwrap().pieces(4).map(<(u64, u64)>::from).collect();
        assert_eq!(pieces, [(3, 1), (4, 4), (8, 4), (12, 1)]);
        let last = Extent::new(u64::MAX - 2, 2).unwrap();
        assert_eq!(last.pieces(1 << 20).collect::<Vec<_>>(), [last]);
    }
}
