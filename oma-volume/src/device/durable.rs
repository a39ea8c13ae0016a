//! Durable writes under way: a single one is made durable alone, many at once by one flush.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

#[derive(Debug, Default)]
pub(super) struct DurableWrites {
    under_way: AtomicUsize,
    /// Something was written that need not be durable yet: a flush would have to write that as well.
    unflushed: AtomicBool,
}

/// One of them; it ends when it is dropped.
#[derive(Debug)]
pub(super) struct DurableWrite<'a> {
    writes: &'a DurableWrites,
    shares: bool,
}

impl DurableWrites {
    pub(super) fn begin(&self) -> DurableWrite<'_> {
        let others = self.under_way.fetch_add(1, Ordering::Relaxed) > 0;
        DurableWrite { writes: self, shares: others && !self.unflushed.load(Ordering::Relaxed) }
    }

    /// Notes a change that need not be durable yet.
    pub(super) fn note_unflushed(&self) {
        self.unflushed.store(true, Ordering::Relaxed);
    }

    /// Notes that a flush begins.
    pub(super) fn note_flush(&self) {
        self.unflushed.store(false, Ordering::Relaxed);
    }
}

impl DurableWrite<'_> {
    /// Whether a flush for all that are under way is less work.
    pub(super) const fn shares(&self) -> bool {
        self.shares
    }
}

impl Drop for DurableWrite<'_> {
    fn drop(&mut self) {
        self.writes.under_way.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flush_is_shared_by_those_at_once_unless_it_had_more_to_write() {
        let writes = DurableWrites::default();
        let first = writes.begin();
        assert!(!first.shares() && writes.begin().shares());
        writes.note_unflushed();
        assert!(!writes.begin().shares());
        writes.note_flush();
        assert!(writes.begin().shares());
        drop(first);
        assert!(!writes.begin().shares());
    }
}
