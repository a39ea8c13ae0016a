//! Extents being changed: two changes that overlap wait for each other.
//!
//! A file system keeps single writes to a file apart, but nobody does so for a block device, nor for zeroes that have to be
//! written piece by piece.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use oma_core::Extent;

#[derive(Debug, Default)]
pub(super) struct Ranges {
    state: Mutex<State>,
    freed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    taken: Vec<Extent>,
    /// Changes that wait: to wake nobody costs a system call too.
    waiting: usize,
}

/// An extent is this call's until it is dropped.
#[derive(Debug)]
pub(super) struct Taken<'a> {
    ranges: &'a Ranges,
    extent: Extent,
}

impl Ranges {
    /// Takes an extent; waits until no other change overlaps it. Blocks.
    pub(super) fn take(&self, extent: Extent) -> Taken<'_> {
        let mut state = self.lock();
        if state.overlaps(extent) {
            state.waiting += 1;
            let free = self.freed.wait_while(state, |state| state.overlaps(extent));
            state = free.unwrap_or_else(PoisonError::into_inner);
            state.waiting -= 1;
        }
        state.taken.push(extent);
        Taken { ranges: self, extent }
    }

    /// Takes an extent if no other change overlaps it.
    pub(super) fn try_take(&self, extent: Extent) -> Option<Taken<'_>> {
        let mut state = self.lock();
        if state.overlaps(extent) {
            return None;
        }
        state.taken.push(extent);
        Some(Taken { ranges: self, extent })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn overlaps(&self, extent: Extent) -> bool {
        self.taken.iter().any(|other| other.intersection(extent).is_some())
    }
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        let mut state = self.ranges.lock();
        if let Some(at) = state.taken.iter().position(|extent| *extent == self.extent) {
            state.taken.swap_remove(at);
        }
        let somebody = state.waiting > 0;
        drop(state);
        if somebody {
            self.ranges.freed.notify_all();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    fn extent(offset: u64, length: u64) -> Extent {
        Extent::new(offset, length).unwrap()
    }

    #[test]
    fn what_overlaps_waits_for_all_that_it_overlaps_and_nothing_else_waits() {
        let ranges = Ranges::default();
        let first = ranges.take(extent(0, 4096));
        let second = ranges.try_take(extent(4096, 4096)).expect("nobody has it");
        assert!(ranges.try_take(extent(4095, 1)).is_none() && ranges.try_take(extent(4096, 1)).is_none());
        thread::scope(|scope| {
            let both = scope.spawn(|| drop(ranges.take(extent(4000, 200))));
            while ranges.lock().waiting == 0 {
                thread::yield_now();
            }
            drop(first);
            assert!(ranges.try_take(extent(5000, 1)).is_none(), "the second is not over");
            drop(second);
            both.join().unwrap();
        });
        assert!(ranges.lock().taken.is_empty());
    }
}
