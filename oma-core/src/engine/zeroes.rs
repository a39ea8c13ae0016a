//! What a device promises to read as zero.

use std::iter::from_fn;

use crate::traits::{BlockDevice, BlockStatus};
use crate::{Error, ErrorKind, Extent, ExtentSet, Result};

/// Status is asked for at most this much at once.
const WINDOW: u64 = 1 << 30;

/// The extents of a set in order, in groups: one question tells the status of a whole group, however many extents it has.
pub(super) fn windows(extents: &ExtentSet) -> impl Iterator<Item = ExtentSet> {
    let mut pieces = extents.iter().flat_map(|extent| extent.pieces(WINDOW)).peekable();
    from_fn(move || {
        let first = pieces.next()?;
        let is_near = |next: &Extent| next.offset() / WINDOW == first.offset() / WINDOW;
        Some([first].into_iter().chain(from_fn(|| pieces.next_if(is_near))).collect())
    })
}

/// The parts of `window` that a device promises to read as zero.
pub(super) async fn zeroes(device: &dyn BlockDevice, window: Extent) -> Result<ExtentSet> {
    let mut found = ExtentSet::new();
    let mut rest = Some(window);
    while let Some(extent) = rest {
        let status = device.block_status(extent).await?;
        let Some(BlockStatus { extent: last, .. }) = status.last().copied() else {
            return Err(Error::new(ErrorKind::Internal, "ask block status", &device.info().identity));
        };
        found.extend(status.into_iter().filter(|s| s.kind.reads_zero()).map(|s| s.extent));
        rest = Extent::between(last.end(), window.end());
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

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
            prop_assert!(windows.len() <= 5);
        }
    }
}
