//! What a device promises to read as zero.

use crate::traits::{BlockDevice, BlockStatus};
use crate::{Error, ErrorKind, Extent, ExtentSet, Result};

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
