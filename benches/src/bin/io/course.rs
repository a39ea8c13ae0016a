//! Which block is next, and what was done.

use std::cell::Cell;
use std::time::{Duration, Instant};

/// Bytes of a request.
pub(crate) const BLOCK: u32 = 4096;

/// Every block once in random order, until the time is up.
#[derive(Debug)]
pub(crate) struct Course {
    begun: Instant,
    window: Duration,
    blocks: u64,
    block: Cell<u64>,
    left: Cell<u64>,
    done: Cell<u32>,
    in_place: Cell<u32>,
}

impl Course {
    /// Over so many blocks, a power of two.
    pub(crate) fn new(blocks: u64, window: Duration) -> Self {
        let begun = Instant::now();
        let [done, in_place] = [0; 2].map(Cell::new);
        Self { begun, window, blocks, block: Cell::new(0), left: Cell::new(blocks), done, in_place }
    }

    /// The number of the next block.
    pub(crate) fn next(&self) -> Option<u64> {
        if self.left.get() == 0 || self.begun.elapsed() >= self.window {
            return None;
        }
        self.left.set(self.left.get() - 1);
        // Hull and Dobell: with an odd addend and a factor of 4n + 1, all numbers below a power of two come before one comes again.
        let block = (self.block.get() * 0x5_deed + 0x0b) % self.blocks;
        self.block.set(block);
        Some(block)
    }

    /// Counts a request that is done.
    pub(crate) fn count(&self, in_place: bool) {
        self.done.set(self.done.get() + 1);
        self.in_place.set(self.in_place.get() + u32::from(in_place));
    }

    /// Requests done, and those of them that were done in place.
    pub(crate) fn counts(&self) -> (f64, f64) {
        (f64::from(self.done.get()), f64::from(self.in_place.get()))
    }

    pub(crate) fn elapsed(&self) -> Duration {
        self.begun.elapsed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_block_comes_once() {
        let course = Course::new(1 << 12, Duration::MAX);
        let mut blocks: Vec<_> = std::iter::from_fn(|| course.next()).collect();
        blocks.sort_unstable();
        assert_eq!(blocks, (0..1 << 12).collect::<Vec<_>>());
        assert_eq!(Course::new(1 << 12, Duration::ZERO).next(), None);
    }
}
