//! Sets of bytes on a disk, as few extents as possible.

mod compact;

use std::ops::Range;

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
    /// In order, none touching another: 16 bytes for each extent.
    ranges: Vec<Range<u64>>,
}

impl ExtentSet {
    /// The empty set.
    #[must_use]
    pub const fn new() -> Self {
        Self { ranges: Vec::new() }
    }

    /// Adds all bytes of an extent. Behind all others it costs nothing; in the middle, the move of all behind it: use
    /// [`extend`](Extend::extend) for many.
    pub fn insert(&mut self, extent: Extent) {
        let new = extent.offset()..extent.end();
        // Those that it touches.
        let from = self.ranges.partition_point(|known| known.end < new.start);
        let to = from + self.ranges[from..].partition_point(|known| known.start <= new.end);
        let touched = &self.ranges[from..to];
        let start = touched.first().map_or(new.start, |first| first.start.min(new.start));
        let end = touched.last().map_or(new.end, |last| last.end.max(new.end));
        self.ranges.splice(from..to, std::iter::once(start..end));
    }

    /// The bytes in both sets. Costs one walk through both.
    #[must_use]
    pub fn intersection(&self, other: &Self) -> Self {
        let mut ranges = Vec::new();
        let (mut one, mut two) = (self.ranges.iter().peekable(), other.ranges.iter().peekable());
        while let (Some(a), Some(b)) = (one.peek(), two.peek()) {
            let both = a.start.max(b.start)..a.end.min(b.end);
            if !both.is_empty() {
                ranges.push(both);
            }
            if a.end <= b.end {
                one.next()
            } else {
                two.next()
            };
        }
        Self { ranges }
    }

    /// The bytes of this set that are not in the other. Costs one walk through both.
    #[must_use]
    pub fn difference(&self, other: &Self) -> Self {
        let mut ranges = Vec::new();
        let mut holes = other.ranges.iter().peekable();
        for whole in &self.ranges {
            let mut at = whole.start;
            while holes.next_if(|hole| hole.end <= at).is_some() {}
            while let Some(hole) = holes.peek().filter(|hole| hole.start < whole.end) {
                if at < hole.start {
                    ranges.push(at..hole.start);
                }
                at = hole.end;
                if at >= whole.end {
                    break;
                }
                holes.next();
            }
            if at < whole.end {
                ranges.push(at..whole.end);
            }
        }
        Self { ranges }
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
        let first = self.ranges.partition_point(|known| known.end <= extent.offset());
        let found = self.ranges[first..].iter().take_while(move |known| known.start < extent.end());
        found.filter_map(|known| Extent::between(known.start, known.end))
    }

    /// Extents in order, none touching another.
    pub fn iter(&self) -> impl Iterator<Item = Extent> {
        self.ranges.iter().filter_map(|known| Extent::between(known.start, known.end))
    }

    /// The last extent.
    #[must_use]
    pub fn last(&self) -> Option<Extent> {
        self.ranges.last().and_then(|known| Extent::between(known.start, known.end))
    }

    /// From the first byte to the last.
    #[must_use]
    pub fn span(&self) -> Option<Extent> {
        Extent::between(self.ranges.first()?.start, self.ranges.last()?.end)
    }

    /// Number of extents.
    #[must_use]
    pub const fn count(&self) -> usize {
        self.ranges.len()
    }

    /// Number of bytes.
    #[must_use]
    pub fn bytes(&self) -> ByteSize {
        ByteSize::new(self.ranges.iter().map(|known| known.end - known.start).sum())
    }

    /// Whether it holds no byte.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// Brings extents of any order into theirs.
    fn settle(&mut self) {
        self.ranges.sort_unstable_by_key(|known| known.start);
        self.ranges.dedup_by(|next, last| {
            let touches = next.start <= last.end;
            if touches {
                last.end = last.end.max(next.end);
            }
            touches
        });
    }
}

impl Extend<Extent> for ExtentSet {
    fn extend<I: IntoIterator<Item = Extent>>(&mut self, extents: I) {
        let mut in_order = true;
        for extent in extents {
            match self.ranges.last_mut() {
                // As most of them come.
                Some(last) if last.end >= extent.offset() && last.start <= extent.offset() => {
                    last.end = last.end.max(extent.end());
                    continue;
                }
                Some(last) => in_order &= last.end < extent.offset(),
                None => {}
            }
            self.ranges.push(extent.offset()..extent.end());
        }
        if !in_order {
            self.settle();
        }
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
        fn one_by_one_or_all_at_once_makes_no_difference(list in extents(), more in extents()) {
            let mut one_by_one = ExtentSet::new();
            list.iter().chain(&more).for_each(|extent| one_by_one.insert(*extent));
            let mut at_once: ExtentSet = list.into_iter().collect();
            at_once.extend(more);
            prop_assert_eq!(one_by_one, at_once);
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
