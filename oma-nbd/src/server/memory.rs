//! How much memory all connections of a server may hold for requests and replies.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use tokio::sync::Notify;
use tokio::sync::futures::OwnedNotified;

#[derive(Debug)]
pub(super) struct Memory {
    limit: usize,
    claimed: AtomicUsize,
    freed: Arc<Notify>,
}

impl Memory {
    pub(super) fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self { limit, claimed: AtomicUsize::new(0), freed: Arc::default() })
    }
}

/// What one connection holds of it.
#[derive(Debug)]
pub(super) struct Share {
    memory: Arc<Memory>,
    claimed: usize,
    waiting: Option<Pin<Box<OwnedNotified>>>,
}

impl Share {
    pub(super) const fn new(memory: Arc<Memory>) -> Self {
        Self { memory, claimed: 0, waiting: None }
    }

    /// Claims more, unless too little is left.
    pub(super) fn claim(&mut self, bytes: usize) -> bool {
        let more = |claimed: usize| claimed.checked_add(bytes).filter(|sum| *sum <= self.memory.limit);
        let done = self.memory.claimed.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok();
        self.claimed += if done { bytes } else { 0 };
        done
    }

    /// Gives back all but what is needed.
    pub(super) fn settle(&mut self, needed: usize) {
        let freed = self.claimed.saturating_sub(needed);
        if freed > 0 {
            self.claimed -= freed;
            self.memory.claimed.fetch_sub(freed, Ordering::Relaxed);
            self.memory.freed.notify_waiters();
        }
    }

    /// Waits, after a claim failed, until others gave something back; then the claim may be made again.
    pub(super) fn poll_freed(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let registered = self.waiting.is_some();
        let waiting =
            self.waiting.get_or_insert_with(|| Box::pin(self.memory.freed.clone().notified_owned()));
        if waiting.as_mut().poll(cx).is_ready() {
            self.waiting = None;
            return Poll::Ready(());
        }
        // What was freed between the claim and the first look is not told any more: claim again.
        if registered { Poll::Pending } else { Poll::Ready(()) }
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.settle(0);
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    #[tokio::test]
    async fn no_more_is_held_than_there_is_and_who_waits_goes_on() {
        let memory = Memory::new(100);
        let (mut one, mut two) = (Share::new(memory.clone()), Share::new(memory.clone()));
        assert!(one.claim(60) && !two.claim(50) && two.claim(40) && !one.claim(1));
        poll_fn(|cx| two.poll_freed(cx)).await;
        assert!(!two.claim(10), "nothing was freed yet");
        let mut waits = std::pin::pin!(poll_fn(|cx| two.poll_freed(cx)));
        assert!(futures_util::poll!(&mut waits).is_pending());
        one.settle(50);
        waits.await;
        assert!(two.claim(10));
        drop((one, two));
        assert!(Share::new(memory).claim(100));
    }
}
