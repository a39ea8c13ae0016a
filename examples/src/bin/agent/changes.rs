//! What changed at the source, and how it is told.

use oma_core::{ChangeId, Extent, ExtentSet};

/// So many extents are told of a job, over all its disks: a request has 64 KiB.
pub(crate) const MOST: usize = 1500;

/// What changed on a disk since a change id, byte for byte.
#[derive(Clone, Debug)]
pub(crate) struct Changed {
    pub(crate) since: ChangeId,
    pub(crate) extents: ExtentSet,
}

/// At most `most` extents that hold all of these: those with the least between them are joined. What lies between is what the export may
/// be written in, not what is copied.
pub(crate) fn joined(extents: &ExtentSet, most: usize) -> ExtentSet {
    let all: Vec<Extent> = extents.iter().collect();
    let too_many = all.len().saturating_sub(most.max(1));
    if too_many == 0 {
        return extents.clone();
    }
    let mut gaps: Vec<Extent> =
        all.windows(2).filter_map(|two| Extent::between(two[0].end(), two[1].offset())).collect();
    gaps.sort_by_key(|gap| gap.length());
    let mut joined = extents.clone();
    joined.extend(gaps.into_iter().take(too_many));
    joined
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_nearest_to_each_other_are_joined() {
        let set: ExtentSet = [(0, 10), (12, 10), (100, 10), (115, 5), (1000, 1)]
            .into_iter()
            .map(|(offset, length)| Extent::new(offset, length).unwrap())
            .collect();
        assert_eq!(joined(&set, 5), set);
        let texts = |most| joined(&set, most).iter().map(|extent| extent.to_string()).collect::<Vec<_>>();
        assert_eq!(texts(3), ["0+22", "100+20", "1000+1"]);
        assert_eq!(texts(1), ["0+1001"]);
        assert_eq!(texts(0), texts(1));
        assert_eq!(joined(&set, 2).intersection(&set), set);
    }
}
