//! Requests whose device call did not return at once.

use std::fmt;
use std::task::{Context, Poll};

use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::runtime::Handle;

/// Device calls under way, each with what its connection uses of the export. They are never dropped before they ended:
/// what a device has begun lands, whether or not anybody waits for it, and a withdrawal must know (L23).
pub(super) struct InFlight<T: Send + 'static> {
    calls: FuturesUnordered<BoxFuture<'static, T>>,
    runtime: Handle,
}

impl<T: Send + 'static> InFlight<T> {
    /// None yet.
    pub(super) fn new() -> Self {
        Self { calls: FuturesUnordered::new(), runtime: Handle::current() }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.calls.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.calls.len()
    }

    pub(super) fn push(&mut self, call: BoxFuture<'static, T>) {
        self.calls.push(call);
    }

    /// The next one that has ended, if one has.
    pub(super) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<T>> {
        self.calls.poll_next_unpin(cx)
    }

    /// Waits until all have ended.
    pub(super) async fn end(mut self) {
        while self.calls.next().await.is_some() {}
    }
}

impl<T: Send + 'static> Drop for InFlight<T> {
    /// Whoever drops a connection, or aborts its task, does not wait. Then the rest ends by itself.
    fn drop(&mut self) {
        if !self.calls.is_empty() {
            let mut calls = std::mem::take(&mut self.calls);
            self.runtime.spawn(async move { while calls.next().await.is_some() {} });
        }
    }
}

impl<T: Send + 'static> fmt::Debug for InFlight<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InFlight").field("calls", &self.calls.len()).finish_non_exhaustive()
    }
}
