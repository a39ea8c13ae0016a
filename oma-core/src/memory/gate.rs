use std::future::poll_fn;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use futures_util::future::{Either, select};
use futures_util::task::AtomicWaker;

/// Lets requests through until it is closed, and knows when the last one has left.
#[derive(Debug, Default)]
pub(super) struct Gate(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    closed: bool,
    inside: u64,
    waiting: Vec<Waker>,
}

/// The right to be inside; ends when dropped.
#[derive(Debug)]
pub(super) struct Pass<'a>(&'a Gate);

impl Gate {
    /// Goes in; `None` once the gate is closed.
    pub(super) fn enter(&self) -> Option<Pass<'_>> {
        let mut state = self.state();
        if state.closed {
            return None;
        }
        state.inside += 1;
        Some(Pass(self))
    }

    pub(super) fn close(&self) {
        self.state().closed = true;
    }

    pub(super) fn is_closed(&self) -> bool {
        self.state().closed
    }

    /// Waits until nobody is inside.
    pub(super) async fn empty(&self) {
        poll_fn(|cx| {
            let mut state = self.state();
            if state.inside == 0 {
                return Poll::Ready(());
            }
            state.waiting.push(cx.waker().clone());
            Poll::Pending
        })
        .await;
    }

    /// Waits until nobody is inside, but not longer than `limit`; tells whether nobody is.
    pub(super) async fn empty_within(&self, limit: Duration) -> bool {
        if self.state().inside == 0 {
            return true;
        }
        let alarm = Alarm::after(limit);
        let empty = std::pin::pin!(self.empty());
        let late = std::pin::pin!(alarm.rings());
        matches!(select(empty, late).await, Either::Left(_))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // The state is complete after every line that changes it.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Pass<'_> {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.inside -= 1;
        if state.inside == 0 {
            state.waiting.drain(..).for_each(Waker::wake);
        }
    }
}

/// A timer that needs no runtime: this module is used without one. Its thread ends with it.
#[derive(Debug)]
struct Alarm {
    ringing: Arc<(AtomicBool, AtomicWaker)>,
    thread: Thread,
}

impl Alarm {
    fn after(delay: Duration) -> Self {
        let ringing = Arc::new((AtomicBool::new(false), AtomicWaker::new()));
        let weak = Arc::downgrade(&ringing);
        let start = Instant::now();
        let handle = thread::spawn(move || {
            while let Some(left) = delay.checked_sub(start.elapsed()).filter(|left| !left.is_zero()) {
                if weak.strong_count() == 0 {
                    return;
                }
                thread::park_timeout(left);
            }
            if let Some(ringing) = weak.upgrade() {
                ringing.0.store(true, Ordering::Release);
                ringing.1.wake();
            }
        });
        Self { ringing, thread: handle.thread().clone() }
    }

    async fn rings(&self) {
        poll_fn(|cx| {
            self.ringing.1.register(cx.waker());
            match self.ringing.0.load(Ordering::Acquire) {
                true => Poll::Ready(()),
                false => Poll::Pending,
            }
        })
        .await;
    }
}

impl Drop for Alarm {
    fn drop(&mut self) {
        self.ringing = Arc::default();
        self.thread.unpark();
    }
}
