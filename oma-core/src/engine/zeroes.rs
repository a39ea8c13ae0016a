//! What a device promises to read as zero.

use std::iter::from_fn;

use crate::traits::{BlockDevice, BlockStatus};
use crate::{Error, ErrorKind, Extent, ExtentSet, Result};

/// Status is asked for at most this much at once; a run of zeroes is moved in one go up to this.
pub(super) const WINDOW: u64 = 1 << 30;

/// Extents with less than this between are asked for together: telling of what lies between costs less than another question.
const GAP: u64 = 16 << 20;

/// The extents of a set in order, in groups: one question tells the status of a whole group, however many extents it has.
pub(super) fn windows(extents: &ExtentSet) -> impl Iterator<Item = ExtentSet> {
    let mut pieces = extents.iter().flat_map(|extent| extent.pieces(WINDOW)).peekable();
    from_fn(move || {
        let mut last = pieces.next()?;
        let near = |last: Extent, next: &Extent| {
            next.offset() / WINDOW == last.offset() / WINDOW && next.offset() - last.end() < GAP
        };
        let mut window = ExtentSet::new();
        window.insert(last);
        while let Some(next) = pieces.next_if(|next| near(last, next)) {
            window.insert(next);
            last = next;
        }
        Some(window)
    })
}

/// The status of an extent from its start, as [`BlockDevice::block_status`] promises it. An answer that breaks the promise is
/// `Corrupt`: who went by it would leave something out, touch what was not asked for, or ask for ever.
pub(super) async fn status(device: &dyn BlockDevice, extent: Extent) -> Result<Vec<BlockStatus>> {
    let told = device.block_status(extent).await?;
    match flaw(extent, &told) {
        None => Ok(told),
        Some(flaw) => Err(Error::new(ErrorKind::Corrupt, "ask for block status", &device.info().identity)
            .because(format!("asked for {extent}, {flaw}"))),
    }
}

/// What is wrong with an answer to a question about an extent.
pub(super) fn flaw(asked: Extent, told: &[BlockStatus]) -> Option<String> {
    let mut at = asked.offset();
    for BlockStatus { extent, .. } in told {
        if extent.offset() != at || extent.end() > asked.end() {
            return Some(format!("it told of {extent} where {at} was next"));
        }
        at = extent.end();
    }
    told.is_empty().then(|| "it told nothing".to_owned())
}

/// The parts of `window` that a device promises to read as zero.
pub(super) async fn zeroes(device: &dyn BlockDevice, window: Extent) -> Result<ExtentSet> {
    let mut found = ExtentSet::new();
    let mut rest = Some(window);
    while let Some(extent) = rest {
        let told = status(device, extent).await?;
        let end = told.last().map_or(extent.offset(), |last| last.extent.end());
        found.extend(told.into_iter().filter(|s| s.kind.reads_zero()).map(|s| s.extent));
        rest = Extent::between(end, window.end());
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ByteSize;
    use crate::memory::{Faults, FaultyDevice, MemoryDevice};
    use crate::traits::BlockStatusKind;
    use futures_util::FutureExt as _;
    use proptest::prelude::*;
    use std::sync::Arc;

    fn hole(offset: u64, length: u64) -> BlockStatus {
        BlockStatus { extent: Extent::new(offset, length).unwrap(), kind: BlockStatusKind::Hole }
    }

    /// The first of these told again and again ends a question without end; so does one that goes back.
    #[test]
    fn l10_a_device_that_stalls_goes_back_leaves_out_or_tells_of_more_is_not_believed() {
        let faults = Faults::default();
        let inner = Arc::new(MemoryDevice::new("liar", ByteSize::mib(1)));
        let device = FaultyDevice::new(inner, faults.clone());
        let asked = Extent::new(4096, 65_536).unwrap();
        for told in [
            vec![hole(4096, 4096)],
            vec![hole(4096, 8192), hole(4096, 4096)],
            vec![hole(0, 8192)],
            vec![hole(8192, 61_440)],
            vec![hole(4096, 4096), hole(12_288, 57_344)],
            vec![hole(4096, 65_537)],
            vec![hole(4096, 65_536), hole(69_632, 1)],
            vec![],
        ] {
            faults.tell(told.clone());
            let error = zeroes(&device, asked).now_or_never().unwrap().expect_err("no device may answer so");
            assert_eq!(error.kind(), ErrorKind::Corrupt, "{told:?}");
            assert!(error.chain().contains("liar"), "{}", error.chain());
        }
        faults.tell(vec![hole(4096, 61_440), hole(65_536, 4096)]);
        let found = zeroes(&device, asked).now_or_never().unwrap().unwrap();
        assert_eq!(found, [asked].into_iter().collect());
    }

    #[test]
    fn what_lies_far_apart_is_not_asked_for_together() {
        let leaf = |offset| Extent::new(offset, 1 << 16).unwrap();
        let at = |offsets: &[u64]| {
            let all: ExtentSet = offsets.iter().map(|offset| leaf(*offset)).collect();
            windows(&all).map(|window| window.span().unwrap().length()).collect::<Vec<_>>()
        };
        assert_eq!(at(&[0, WINDOW - (1 << 16)]), [1 << 16; 2]);
        assert_eq!(at(&[0, GAP + (1 << 16)]), [1 << 16; 2]);
        assert_eq!(at(&[0, GAP]), [GAP + (1 << 16)]);
    }

    proptest! {
        #[test]
        fn windows_hold_every_extent_once_and_none_is_too_wide(
            list in prop::collection::vec((0u64..4 << 30, 1u64..1 << 30), 0..20),
        ) {
            let all: ExtentSet = list.iter().map(|(at, length)| Extent::new(*at, *length).unwrap()).collect();
            let windows: Vec<ExtentSet> = windows(&all).collect();
            prop_assert!(windows.iter().all(|window| window.span().unwrap().length() <= WINDOW));
            prop_assert_eq!(windows.iter().map(|window| window.bytes().bytes()).sum::<u64>(), all.bytes().bytes());
            prop_assert_eq!(windows.iter().flat_map(ExtentSet::iter).collect::<ExtentSet>(), all);
            let far = |pair: &[Extent]| pair[1].offset() - pair[0].end() >= GAP;
            let spans: Vec<Extent> = windows.iter().filter_map(ExtentSet::span).collect();
            let apart = spans.windows(2).filter(|pair| far(pair)).count();
            prop_assert!(windows.len() <= 5 + apart, "no more than the gaps and the borders ask for");
            for window in &windows {
                let parts: Vec<Extent> = window.iter().collect();
                prop_assert!(!parts.windows(2).any(far));
            }
        }
    }
}
