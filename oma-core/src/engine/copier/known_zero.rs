//! What the target reads as zero already, so that it is not zeroed again.

use tokio::sync::Mutex;

use crate::engine::zeroes::{WINDOW, zeroes};
use crate::traits::BlockDevice;
use crate::{Extent, ExtentSet, Result};

/// The zeroes of the target in one window, as they were when the copy came there.
///
/// They stay true for what is still to be copied: no part of a disk is copied twice in one run.
#[derive(Debug, Default)]
pub(super) struct KnownZero {
    last: Mutex<Option<(Extent, ExtentSet)>>,
}

impl KnownZero {
    /// The parts of an extent that the target does not promise to read as zero.
    pub(super) async fn missing(&self, target: &dyn BlockDevice, extent: Extent) -> Result<Vec<Extent>> {
        if !target.info().can_block_status {
            return Ok(vec![extent]);
        }
        let mut missing = Vec::new();
        let mut last = self.last.lock().await;
        for part in extent.pieces(WINDOW) {
            let known = match last.take() {
                Some((window, set)) if part.intersection(window) == Some(part) => (window, set),
                _ => {
                    let begin = part.offset() / WINDOW * WINDOW;
                    let end = begin.saturating_add(WINDOW).min(target.info().capacity.bytes());
                    let window = Extent::between(begin, end).unwrap_or(part);
                    (window, zeroes(target, window).await?)
                }
            };
            missing.extend(known.1.gaps(part));
            *last = Some(known);
        }
        Ok(missing)
    }
}
