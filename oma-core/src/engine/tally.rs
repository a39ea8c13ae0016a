//! What comparisons have hashed, and how far they are.

use std::ops::AddAssign;
use std::time::Duration;

use super::progress::{Event, Progress};
use crate::{ByteSize, DiskKey};

/// What was hashed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Hashed {
    /// Bytes, counted once though both sides hash them.
    pub(super) bytes: ByteSize,
    /// Time of all parts that were under way at once, added up.
    pub(super) time: Duration,
    /// Time in which they waited for limits and memory, added up too.
    pub(super) waited: Duration,
}

impl AddAssign for Hashed {
    fn add_assign(&mut self, other: Self) {
        self.bytes += other.bytes;
        self.time += other.time;
        self.waited += other.waited;
    }
}

/// Counts what comparisons of one disk hash, also of those that do not end well, and tells how far they are.
#[derive(Debug)]
pub(super) struct Tally<'a> {
    listener: Option<(&'a DiskKey, &'a dyn Progress)>,
    hashed: Hashed,
    done: ByteSize,
    total: ByteSize,
}

impl<'a> Tally<'a> {
    /// One that tells of a disk.
    pub(super) fn new(disk: &'a DiskKey, progress: &'a dyn Progress) -> Self {
        Self { listener: Some((disk, progress)), ..Self::silent() }
    }

    /// One that tells nobody.
    pub(super) const fn silent() -> Self {
        Self {
            listener: None,
            hashed: Hashed { bytes: ByteSize::ZERO, time: Duration::ZERO, waited: Duration::ZERO },
            done: ByteSize::ZERO,
            total: ByteSize::ZERO,
        }
    }

    /// What was hashed of all comparisons.
    pub(super) const fn hashed(&self) -> Hashed {
        self.hashed
    }

    /// A comparison of so many bytes begins.
    pub(super) fn begin(&mut self, total: ByteSize) {
        (self.done, self.total) = (ByteSize::ZERO, total);
        self.tell();
    }

    /// So many bytes are compared, of which so many had to be hashed.
    pub(super) fn add(&mut self, done: ByteSize, hashed: Hashed) {
        self.hashed += hashed;
        self.done += done;
        self.tell();
    }

    fn tell(&self) {
        if let Some((disk, progress)) = self.listener
            && self.total != ByteSize::ZERO
        {
            progress.event(Event::Compared { disk, done: self.done, total: self.total });
        }
    }
}
