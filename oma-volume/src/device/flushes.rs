//! Flushes that are asked for at once are one: each covers everything that was written before it began.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

#[derive(Debug, Default)]
pub(super) struct Flushes {
    state: Mutex<State>,
    ended: Condvar,
}

#[derive(Debug, Default)]
struct State {
    running: bool,
    /// Flushes begun so far.
    begun: u64,
    /// The last one that succeeded, counted as `begun` was.
    succeeded: u64,
}

impl Flushes {
    /// Returns when a flush that began after this call has succeeded, this caller's own or another's. Blocks.
    pub(super) fn join<E>(&self, flush: impl FnOnce() -> Result<(), E>) -> Result<(), E> {
        let mut state = self.lock();
        // The one that runs now may have passed by what this caller wrote.
        let enough = state.begun + 1;
        // Not until none runs: while others keep asking, there always is one.
        let wait = |state: &mut State| state.running && state.succeeded < enough;
        state = self.ended.wait_while(state, wait).unwrap_or_else(PoisonError::into_inner);
        if state.succeeded >= enough {
            return Ok(());
        }
        state.begun += 1;
        state.running = true;
        let number = state.begun;
        drop(state);
        let mut run = Run { flushes: self, number, success: false };
        let outcome = flush();
        run.success = outcome.is_ok();
        outcome
    }

    #[cfg(test)]
    pub(super) fn begun(&self) -> u64 {
        self.lock().begun
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The flush that runs; whoever waits goes on when it is dropped, even by a panic.
struct Run<'a> {
    flushes: &'a Flushes,
    number: u64,
    success: bool,
}

impl Drop for Run<'_> {
    fn drop(&mut self) {
        let mut state = self.flushes.lock();
        state.running = false;
        if self.success {
            state.succeeded = self.number;
        }
        drop(state);
        self.flushes.ended.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::sync::mpsc;
    use std::thread;

    use super::*;

    /// Starts a flush that waits, so that those begun meanwhile can be counted.
    fn with_one_running(flushes: &Flushes, others: u64, outcome: Result<(), ()>) -> (u64, u64) {
        let (runs, failures) = (AtomicU64::new(0), AtomicU64::new(0));
        let (started, wait) = mpsc::channel();
        let (release, held) = mpsc::channel::<()>();
        let (arrived, arrivals) = mpsc::channel();
        thread::scope(|scope| {
            scope.spawn(move || {
                flushes.join::<()>(|| {
                    started.send(()).unwrap();
                    held.recv().unwrap();
                    Ok(())
                })
            });
            wait.recv().unwrap();
            for _ in 0..others {
                let (arrived, runs, failures) = (arrived.clone(), &runs, &failures);
                scope.spawn(move || {
                    arrived.send(()).unwrap();
                    let joined = flushes.join(|| {
                        runs.fetch_add(1, Ordering::SeqCst);
                        outcome
                    });
                    failures.fetch_add(u64::from(joined.is_err()), Ordering::SeqCst);
                });
            }
            (0..others).for_each(|_| arrivals.recv().unwrap());
            release.send(()).unwrap();
        });
        (runs.into_inner(), failures.into_inner())
    }

    #[test]
    fn a_flush_that_began_before_covers_nobody_and_one_covers_many() {
        let (runs, failures) = with_one_running(&Flushes::default(), 8, Ok(()));
        // A thread that had said so but not yet asked when the first one ended runs one of its own.
        assert!((1..=8).contains(&runs) && failures == 0, "{runs} {failures}");
        let one_after_the_other = Flushes::default();
        let mut count = 0;
        for _ in 0..3 {
            one_after_the_other
                .join(|| {
                    count += 1;
                    Ok::<_, ()>(())
                })
                .unwrap();
        }
        assert_eq!(count, 3);
    }

    #[test]
    fn nobody_joins_a_flush_that_failed() {
        assert_eq!(with_one_running(&Flushes::default(), 8, Err(())), (8, 8));
    }
}
