//! Looks for the next request for a moment before it sleeps.
//!
//! To be woken takes longer than a cached read. A client that sends one small request after the other has the next one ready
//! within microseconds, if it has a core to run on; when it has none, looking only takes that core away. So looking in vain
//! makes the next looks rarer, up to one in a thousand, and one success makes them the rule again.

use std::time::{Duration, Instant};

/// After so many looks in vain in a row they get no rarer.
const MOST_MISSES: u32 = 10;

#[derive(Debug)]
pub(super) struct Poller {
    limit: Duration,
    misses: u32,
    skips: u32,
}

impl Poller {
    pub(super) const fn new(limit: Duration) -> Self {
        Self { limit, misses: 0, skips: 0 }
    }

    /// Asks until there is an answer, or for as long as it is worth it.
    pub(super) fn look<T>(&mut self, mut ask: impl FnMut() -> Option<T>) -> Option<T> {
        if self.limit.is_zero() {
            return None;
        }
        if self.skips > 0 {
            self.skips -= 1;
            return None;
        }
        let begun = Instant::now();
        loop {
            let answer = ask();
            if answer.is_some() {
                self.misses = 0;
                return answer;
            }
            if begun.elapsed() >= self.limit {
                break;
            }
            std::hint::spin_loop();
        }
        self.misses = (self.misses + 1).min(MOST_MISSES);
        self.skips = (1 << self.misses) - 1;
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn looking_in_vain_gets_rare_and_one_success_makes_it_the_rule() {
        let mut poller = Poller::new(Duration::from_nanos(1));
        let mut looked = 0;
        for _ in 0..4000 {
            let mut once = true;
            poller.look(|| -> Option<()> {
                looked += u32::from(std::mem::take(&mut once));
                None
            });
        }
        assert!((8..=14).contains(&looked), "{looked}");
        while poller.look(|| Some(())).is_none() {}
        assert!((0..10).all(|_| poller.look(|| Some(())).is_some()));
    }

    #[test]
    fn without_time_nobody_looks() {
        assert_eq!(Poller::new(Duration::ZERO).look(|| Some(())), None);
    }
}
