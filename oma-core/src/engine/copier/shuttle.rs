//! Moves a piece between two devices of this machine on one thread, which waits for both.
//!
//! What was read is looked at and written while it is in that core's cache, and nothing is handed over in between.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use bytes::BytesMut;
use tokio_util::sync::CancellationToken;

use super::landing::Landed;
use super::pieces::Piece;
use super::runs::index;
use crate::engine::explain::Stage;
use crate::traits::BlockDevice;
use crate::{ByteSize, Extent, Result};

/// Bytes that are read and written at once: they stay in the cache of a core.
pub(super) const STRIDE: u64 = 256 << 10;

/// A piece and where it goes.
#[derive(Debug)]
pub(super) struct Shuttle {
    pub(super) source: Arc<dyn BlockDevice>,
    pub(super) target: Arc<dyn BlockDevice>,
    pub(super) piece: Piece,
    pub(super) granule: ByteSize,
    pub(super) buffer: BytesMut,
    pub(super) stop: CancellationToken,
    pub(super) reads: Arc<Reads>,
}

/// The reads of a shuttle, for whoever waits for it.
#[derive(Debug, Default)]
pub(super) struct Reads {
    /// Odd while one is under way.
    steps: AtomicU64,
}

impl Reads {
    /// The read that is under way, if one is.
    pub(super) fn now(&self) -> Option<u64> {
        Some(self.steps.load(Ordering::Relaxed)).filter(|steps| steps % 2 == 1)
    }

    fn step(&self) {
        self.steps.fetch_add(1, Ordering::Relaxed);
    }
}

/// What became of a piece, with its buffer.
#[derive(Debug)]
pub(super) struct Shuttled {
    pub(super) buffer: BytesMut,
    /// `None` when a device must be asked in another way; what was written meanwhile is written again then.
    pub(super) done: Option<Landed>,
}

impl Shuttle {
    /// Whether both devices can be used that way.
    pub(super) fn fits(source: &dyn BlockDevice, target: &dyn BlockDevice) -> bool {
        source.in_place().is_some() && target.in_place().is_some()
    }

    /// Moves the piece, but for its zeroes, which are told.
    pub(super) fn run(mut self) -> Result<Shuttled> {
        let mut done = Landed::default();
        for part in std::mem::take(&mut self.piece.parts) {
            for stride in part.pieces(STRIDE) {
                if !self.stride(stride, &mut done)? {
                    return Ok(Shuttled { buffer: self.buffer, done: None });
                }
            }
        }
        Ok(Shuttled { buffer: self.buffer, done: Some(done) })
    }

    fn stride(&mut self, extent: Extent, done: &mut Landed) -> Result<bool> {
        let (Some(source), Some(target)) = (self.source.in_place(), self.target.in_place()) else {
            return Ok(false);
        };
        let begun = Instant::now();
        let data = &mut self.buffer[..index(extent.length())];
        self.reads.step();
        let is_read = source.read_waiting(extent.offset(), data);
        self.reads.step();
        if !is_read? {
            return Ok(false);
        }
        done.stages.add(Stage::Read, begun.elapsed());
        done.add(target, extent, data, self.granule, &self.stop)
    }
}
