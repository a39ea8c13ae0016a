//! Cuts the work of a disk into pieces, zeroes by the source's promise apart from what must be read.

use std::collections::VecDeque;
use std::sync::Arc;

use futures_util::stream::{self, Stream};

use crate::traits::{BlockDevice, BlockStatus, BlockStatusKind};
use crate::{ByteSize, Error, ErrorKind, Extent, ExtentSet, Result};

/// Status is asked for at most this much at once; a run of zeroes is moved in one go up to this.
const WINDOW: u64 = 1 << 30;

/// A part of the work that is moved in one go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Piece {
    pub(super) extent: Extent,
    /// The source promises that it reads as zero (L10).
    pub(super) reads_zero: bool,
}

/// The pieces of `work`, in order.
pub(super) fn pieces(
    source: Arc<dyn BlockDevice>,
    work: &ExtentSet,
    size: ByteSize,
) -> impl Stream<Item = Result<Piece>> {
    let cutter =
        Cutter { source, work: work.iter().collect(), ready: VecDeque::new(), size: size.bytes().max(1) };
    stream::try_unfold(cutter, async |mut cutter| Ok(cutter.next().await?.map(|piece| (piece, cutter))))
}

struct Cutter {
    source: Arc<dyn BlockDevice>,
    work: VecDeque<Extent>,
    ready: VecDeque<Piece>,
    size: u64,
}

impl Cutter {
    async fn next(&mut self) -> Result<Option<Piece>> {
        while self.ready.is_empty() {
            let (Some(first), Some(last)) = (self.work.front(), self.work.back()) else {
                return Ok(None);
            };
            let end = last.end().min(first.offset().saturating_add(WINDOW));
            let window = Extent::between(first.offset(), end).expect("work has at least one byte");
            for status in self.status(window).await? {
                self.take(status);
            }
        }
        Ok(self.ready.pop_front())
    }

    async fn status(&self, window: Extent) -> Result<Vec<BlockStatus>> {
        if !self.source.info().can_block_status {
            return Ok(vec![BlockStatus { extent: window, kind: BlockStatusKind::Data }]);
        }
        let status = self.source.block_status(window).await?;
        // Without progress this would ask for ever.
        if status.first().is_none_or(|first| first.extent.offset() != window.offset()) {
            return Err(Error::new(ErrorKind::Corrupt, "ask block status", &self.source.info().identity)
                .because(format!("the answer does not begin at {}", window.offset())));
        }
        Ok(status)
    }

    /// Moves the work within one status to the pieces.
    fn take(&mut self, status: BlockStatus) {
        let reads_zero = status.kind.reads_zero();
        let size = if reads_zero { WINDOW } else { self.size };
        while let Some(first) = self.work.pop_front_if(|first| first.offset() < status.extent.end()) {
            if let Some(inside) = first.intersection(status.extent) {
                self.ready.extend(inside.pieces(size).map(|extent| Piece { extent, reads_zero }));
            }
            if let Some(rest) = Extent::between(status.extent.end().max(first.offset()), first.end()) {
                self.work.push_front(rest);
                break;
            }
        }
    }
}
