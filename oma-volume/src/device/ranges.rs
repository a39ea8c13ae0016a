//! Extents being changed: two changes that overlap wait for each other.
//!
//! A file system keeps single writes to a file apart, but nobody does so for a block device, nor for zeroes that have to be
//! written piece by piece.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use oma_core::Extent;

#[derive(Debug, Default)]
pub(super) struct Ranges {
    taken: Mutex<Vec<Extent>>,
    freed: Condvar,
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
        let overlaps =
            |taken: &mut Vec<Extent>| taken.iter().any(|other| other.intersection(extent).is_some());
        let mut taken = self.freed.wait_while(self.lock(), overlaps).unwrap_or_else(PoisonError::into_inner);
        taken.push(extent);
        Taken { ranges: self, extent }
    }

    /// Takes an extent if no other change overlaps it.
    pub(super) fn try_take(&self, extent: Extent) -> Option<Taken<'_>> {
        let mut taken = self.lock();
        if taken.iter().any(|other| other.intersection(extent).is_some()) {
            return None;
        }
        taken.push(extent);
        Some(Taken { ranges: self, extent })
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Extent>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        let mut taken = self.ranges.lock();
        if let Some(at) = taken.iter().position(|extent| *extent == self.extent) {
            taken.swap_remove(at);
        }
        drop(taken);
        self.ranges.freed.notify_all();
    }
}
