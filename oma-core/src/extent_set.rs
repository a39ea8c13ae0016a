//! Sets of bytes on a disk, as few extents as possible.

mod compact;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{ByteSize, Extent};

pub use compact::CompactError;

/// A set of bytes: extents in order, none touching another.
///
/// ```
/// use oma_core::{Extent, ExtentSet};
///
/// let mut set = ExtentSet::new();
/// set.insert(Extent::new(0, 10)?);
/// set.insert(Extent::new(10, 5)?);
/// assert_eq!(set.iter().collect::<Vec<_>>(), [Extent::new(0, 15)?]);
/// # Ok::<(), oma_core::ExtentError>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Vec<Extent>", into = "Vec<Extent>")]
pub struct ExtentSet {
    /// Start → end.
    ranges: BTreeMap<u64, u64>,
}

impl ExtentSet {
    /// The empty set.
    #[must_use]
    pub const fn new() -> Self {
        Self { ranges: BTreeMap::new() }
    }

    /// Adds all bytes of an extent.
    pub fn insert(&mut self, extent: Extent) {
        let (mut start, mut end) = (extent.offset(), extent.end());
        while let Some((&s, &e)) = self.ranges.range(..=end).next_back() {
            if e < start {
                break;
            }
            self.ranges.remove(&s);
            start = start.min(s);
            end = end.max(e);
        }
        self.ranges.insert(start, end);
    }

    /// The bytes in both sets.
    #[must_use]
    pub fn intersection(&self, other: &Self) -> Self {
        other.iter().flat_map(|extent| self.within(extent)).collect()
    }

    /// The bytes of this set that are not in the other.
    #[must_use]
    pub fn difference(&self, other: &Self) -> Self {
        self.iter().flat_map(|extent| other.gaps(extent)).collect()
    }

    /// The parts of `extent` that are in the set, in order.
    #[must_use]
    pub fn within(&self, extent: Extent) -> Vec<Extent> {
        self.overlapping(extent).filter_map(|found| found.intersection(extent)).collect()
    }

    /// The parts of `extent` that are not in the set, in order.
    #[must_use]
    pub fn gaps(&self, extent: Extent) -> Vec<Extent> {
        self.runs(extent).filter(|(_, inside)| !inside).map(|(part, _)| part).collect()
    }

    /// The whole of `extent` in order, cut where the set begins and ends, and whether each part is in the set.
    pub fn runs(&self, extent: Extent) -> impl Iterator<Item = (Extent, bool)> {
        let mut at = extent.offset();
        self.overlapping(extent).map(Some).chain([None]).flat_map(move |found| {
            let inside = found.and_then(|found| found.intersection(extent));
            let outside = Extent::between(at, inside.map_or(extent.end(), Extent::offset));
            at = inside.map_or(extent.end(), Extent::end);
            [outside.map(|part| (part, false)), inside.map(|part| (part, true))].into_iter().flatten()
        })
    }

    fn overlapping(&self, extent: Extent) -> impl Iterator<Item = Extent> {
        let first = self
            .ranges
            .range(..=extent.offset())
            .next_back()
            .filter(|(_, end)| **end > extent.offset())
            .map_or(extent.offset(), |(start, _)| *start);
        self.ranges.range(first..extent.end()).filter_map(|(s, e)| Extent::between(*s, *e))
    }

    /// Extents in order, none touching another.
    pub fn iter(&self) -> impl Iterator<Item = Extent> {
        self.ranges.iter().filter_map(|(start, end)| Extent::between(*start, *end))
    }

    /// The last extent.
    #[must_use]
    pub fn last(&self) -> Option<Extent> {
        self.ranges.last_key_value().and_then(|(start, end)| Extent::between(*start, *end))
    }

    /// Number of extents.
    #[must_use]
    pub fn count(&self) -> usize {
        self.ranges.len()
    }

    /// Number of bytes.
    #[must_use]
    pub fn bytes(&self) -> ByteSize {
        ByteSize::new(self.iter().map(Extent::length).sum())
    }

    /// Whether it holds no byte.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }
}

impl Extend<Extent> for ExtentSet {
    fn extend<I: IntoIterator<Item = Extent>>(&mut self, extents: I) {
        extents.into_iter().for_each(|extent| self.insert(extent));
    }
}

impl FromIterator<Extent> for ExtentSet {
    fn from_iter<I: IntoIterator<Item = Extent>>(extents: I) -> Self {
        let mut set = Self::new();
        set.extend(extents);
        set
    }
}

impl From<Vec<Extent>> for ExtentSet {
    fn from(extents: Vec<Extent>) -> Self {
        extents.into_iter().collect()
    }
}

impl From<ExtentSet> for Vec<Extent> {
    fn from(set: ExtentSet) -> Self {
        set.iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn extents() -> impl Strategy<Value = Vec<Extent>> {
        prop::collection::vec((0u64..60, 1u64..20), 0..12)
            .prop_map(|list| list.into_iter().map(|(o, l)| Extent::new(o, l).unwrap()).collect())
    }

    fn bytes(extents: impl IntoIterator<Item = Extent>) -> BTreeSet<u64> {
        extents.into_iter().flat_map(|e| e.offset()..e.end()).collect()
    }

    proptest! {
        #[test]
        fn a_set_holds_exactly_the_bytes_inserted(list in extents()) {
            let set: ExtentSet = list.iter().copied().collect();
            let all: Vec<_> = set.iter().collect();
            prop_assert_eq!(bytes(all.iter().copied()), bytes(list));
            prop_assert!(all.windows(2).all(|pair| pair[0].end() < pair[1].offset()));
        }

        #[test]
        fn set_arithmetic_agrees_with_bytes(a in extents(), b in extents()) {
            let (x, y): (ExtentSet, ExtentSet) = (a.iter().copied().collect(), b.iter().copied().collect());
            let (p, q) = (bytes(a), bytes(b));
            prop_assert_eq!(bytes(x.difference(&y).iter()), p.difference(&q).copied().collect::<BTreeSet<_>>());
            prop_assert_eq!(bytes(x.intersection(&y).iter()), p.intersection(&q).copied().collect::<BTreeSet<_>>());
            prop_assert_eq!(x.bytes().bytes(), u64::try_from(p.len()).unwrap());
        }

        #[test]
        fn within_and_gaps_share_an_extent_out(a in extents(), offset in 0u64..70, length in 1u64..30) {
            let set: ExtentSet = a.into_iter().collect();
            let window = Extent::new(offset, length).unwrap();
            let (inside, outside) = (set.within(window), set.gaps(window));
            let mut both = bytes(inside.iter().copied());
            prop_assert!(both.is_disjoint(&bytes(outside.iter().copied())));
            both.extend(bytes(outside));
            prop_assert_eq!(both, bytes([window]));
        }
    }
}
