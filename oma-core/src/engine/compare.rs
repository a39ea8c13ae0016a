//! Compares two devices and names each extent that differs (L14).

use std::sync::Arc;

use futures_util::stream::{self, StreamExt, TryStreamExt};
use tokio_util::sync::CancellationToken;

use super::config::ReplicateConfig;
use super::retry::retry;
use super::zeroes::zeroes;
use crate::traits::BlockDevice;
use crate::{Error, ErrorKind, Extent, ExtentSet, Result, page_aligned};

/// Unit in which differences are named.
const GRANULE: u64 = 4096;
/// Status is asked for at most this much at once.
const WINDOW: u64 = 1 << 30;

/// Source and target of a comparison.
#[derive(Clone, Debug)]
pub(super) struct Comparison<'a> {
    pub(super) source: Arc<dyn BlockDevice>,
    pub(super) target: Arc<dyn BlockDevice>,
    pub(super) config: &'a ReplicateConfig,
    pub(super) stop: &'a CancellationToken,
}

impl Comparison<'_> {
    /// The extents of `scope` whose bytes differ.
    ///
    /// What both devices promise to read as zero is equal; everything else is read from both.
    pub(super) async fn differences(&self, scope: &ExtentSet) -> Result<ExtentSet> {
        let mut differing = ExtentSet::new();
        let windows = scope.iter().flat_map(|extent| extent.pieces(WINDOW));
        for window in windows {
            let both_zero =
                zeroes(&*self.source, window).await?.intersection(&zeroes(&*self.target, window).await?);
            let pieces: Vec<_> = both_zero
                .gaps(window)
                .into_iter()
                .flat_map(|e| e.pieces(self.config.piece.bytes()))
                .collect();
            let mut found =
                stream::iter(pieces).map(|piece| self.compare(piece)).buffered(self.config.in_flight.max(1));
            while let Some(differences) = found.try_next().await? {
                differing.extend(differences);
            }
        }
        Ok(differing)
    }

    async fn compare(&self, piece: Extent) -> Result<Vec<Extent>> {
        if self.stop.is_cancelled() {
            return Err(Error::new(ErrorKind::Cancelled, "compare", piece));
        }
        let read = |device: Arc<dyn BlockDevice>| async move {
            let length = usize::try_from(piece.length()).expect("a piece fits memory");
            retry(&self.config.retry, self.stop, || device.read_at(piece.offset(), page_aligned(length)))
                .await
        };
        let (source, target) = futures_util::try_join!(read(self.source.clone()), read(self.target.clone()))?;
        if source == target {
            return Ok(Vec::new());
        }
        let granules = piece.pieces(GRANULE).filter(|granule| {
            let at = |position: u64| usize::try_from(position - piece.offset()).expect("a piece fits memory");
            let range = at(granule.offset())..at(granule.end());
            source[range.clone()] != target[range]
        });
        Ok(granules.collect())
    }
}

#[cfg(test)]
mod tests;
