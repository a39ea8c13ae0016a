use std::sync::atomic::{AtomicU64, Ordering};

/// The changes that went over one connection and are not durable by themselves, and how many of them a flush covers.
///
/// A flush vouches for changes that were answered before it was sent: one that was still under way may have been done behind
/// it. And it vouches only at the other end of its own connection: another one may lead to a server that was started since
/// and knows nothing of them, although nobody has seen yet that the first is gone.
#[derive(Debug, Default)]
pub(super) struct Changes {
    begun: AtomicU64,
    /// Answered, failed, or given up by who asked for it.
    ended: AtomicU64,
    /// How many had ended when the last successful flush was sent.
    flushed: AtomicU64,
}

/// A change under way.
#[derive(Debug)]
pub(super) struct Change<'a>(&'a Changes);

impl Changes {
    /// Begins a change; it ends when the value is dropped.
    pub(super) fn begin(&self) -> Change<'_> {
        self.begun.fetch_add(1, Ordering::SeqCst);
        Change(self)
    }

    /// How many a flush would cover that is sent now.
    pub(super) fn ended(&self) -> u64 {
        self.ended.load(Ordering::SeqCst)
    }

    /// Notes a successful flush that was sent when so many had ended.
    pub(super) fn flushed(&self, ended: u64) {
        self.flushed.fetch_max(ended, Ordering::SeqCst);
    }

    /// Whether there is any that no flush covers.
    pub(super) fn are_open(&self) -> bool {
        self.begun.load(Ordering::SeqCst) != self.flushed.load(Ordering::SeqCst)
    }
}

impl Drop for Change<'_> {
    fn drop(&mut self) {
        self.0.ended.fetch_add(1, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn l08_a_flush_covers_what_had_ended_when_it_was_sent() {
        let changes = Changes::default();
        assert!(!changes.are_open());
        let (early, late) = (changes.begin(), changes.begin());
        drop(early);
        let sent = changes.ended();
        drop(late);
        changes.flushed(sent);
        assert!(changes.are_open());
        changes.flushed(changes.ended());
        assert!(!changes.are_open());
        // The answer of an earlier flush comes last.
        changes.flushed(sent);
        assert!(!changes.are_open());
    }
}
