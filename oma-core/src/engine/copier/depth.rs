//! How many pieces are under way: found by trying, because nobody can tell what a source and a target can take.
//!
//! The rate of a pipeline grows with its depth until its slowest part is busy all the time; deeper queues then only wait. So the depth
//! is doubled as long as that pays, and tried again now and then in both directions: latency and load change while a disk is copied.

use std::time::Duration;

use tokio::time::Instant;

/// One trial lasts at least this long, and until as many pieces were moved as are under way.
const TRIAL: Duration = Duration::from_millis(20);
/// Twice the depth stays if it brings at least this much.
const PAYS: f64 = 1.08;
/// Half the depth stays if it keeps at least this much.
const SUFFICES: f64 = 0.97;
/// How long a depth is kept before its neighbours are tried.
const HOLD: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(super) struct Depth {
    now: usize,
    least: usize,
    most: usize,
    state: State,
    trial: Trial,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum State {
    /// The depth was doubled; half of it had this rate.
    Doubled { before: f64 },
    /// The depth was halved; twice of it had this rate.
    Halved { before: f64 },
    /// The depth is kept until then; afterwards half of it is tried if `down`, else twice.
    Held { until: Instant, down: bool },
}

/// What was moved since a change of depth.
#[derive(Clone, Copy, Debug)]
struct Trial {
    begun: Option<Instant>,
    bytes: u64,
    pieces: usize,
}

impl Trial {
    const NEW: Self = Self { begun: None, bytes: 0, pieces: 0 };
}

impl Depth {
    pub(super) fn new(first: usize, most: usize) -> Self {
        let most = most.max(1);
        let now = first.clamp(1, most);
        Self { now, least: now.min(4), most, state: State::Doubled { before: 0.0 }, trial: Trial::NEW }
    }

    pub(super) const fn has_room(&self, under_way: usize) -> bool {
        under_way < self.now
    }

    /// A piece was moved. Counts only while something waits to be next: without that, the depth does not limit the rate.
    pub(super) fn moved(&mut self, bytes: u64, waiting: bool, at: Instant) {
        if !waiting {
            self.trial = Trial::NEW;
            return;
        }
        let Some(begun) = self.trial.begun else {
            self.trial.begun = Some(at);
            return;
        };
        self.trial.bytes += bytes;
        self.trial.pieces += 1;
        let lasted = at.duration_since(begun);
        if lasted < TRIAL || self.trial.pieces < self.now {
            return;
        }
        #[expect(clippy::cast_precision_loss, reason = "a rate need not be exact")]
        #[allow(clippy::as_conversions, reason = "there is no other way to a float")]
        let rate = self.trial.bytes as f64 / lasted.as_secs_f64();
        self.judge(rate, at);
    }

    fn judge(&mut self, rate: f64, at: Instant) {
        let hold = |down| State::Held { until: at + HOLD, down };
        let (depth, state) = match self.state {
            State::Doubled { before } if rate >= before * PAYS => {
                (self.now * 2, State::Doubled { before: rate })
            }
            State::Doubled { .. } => (self.now / 2, hold(true)),
            State::Halved { before } if rate >= before * SUFFICES => {
                (self.now / 2, State::Halved { before: rate })
            }
            State::Halved { .. } => (self.now * 2, hold(false)),
            State::Held { until, down } if at < until => (self.now, State::Held { until, down }),
            State::Held { down: true, .. } => (self.now / 2, State::Halved { before: rate }),
            State::Held { down: false, .. } => (self.now * 2, State::Doubled { before: rate }),
        };
        let bounded = depth.clamp(self.least, self.most);
        // At a bound there is nothing to try.
        self.state = if bounded == depth { state } else { hold(bounded == self.most) };
        self.now = bounded;
        self.trial = Trial::NEW;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cmp::Reverse;
    use std::collections::BinaryHeap;

    /// Moves pieces of 64 KiB through a line with a latency and a limit of pieces per second; answers how full the line was after
    /// a time to settle, and the depth then.
    fn run(latency: Duration, per_second: u32, most: usize) -> (f64, usize) {
        let begun = Instant::now();
        let mut depth = Depth::new(8, most);
        let (mut under_way, mut free) = (BinaryHeap::new(), begun);
        let (settled, end) = (begun + Duration::from_secs(2), begun + Duration::from_secs(5));
        let (mut at, mut moved) = (begun, 0);
        while at < end {
            while depth.has_room(under_way.len()) {
                free = free.max(at) + Duration::from_secs(1) / per_second;
                under_way.push(Reverse(free + latency));
            }
            at = under_way.pop().expect("something is under way").0;
            depth.moved(1 << 16, true, at);
            moved += u32::from(at >= settled);
        }
        (f64::from(moved) / 3.0 / f64::from(per_second), depth.now)
    }

    #[tokio::test]
    async fn near_and_far_lines_are_both_filled() {
        for (micros, per_second) in
            [(20, 20_000), (200, 20_000), (3_000, 4_000), (3_000, 10_000), (20_000, 2_000)]
        {
            let (full, depth) = run(Duration::from_micros(micros), per_second, 256);
            assert!(full > 0.85, "{micros} µs, {per_second} per second: {full:.2} full at depth {depth}");
        }
    }

    #[tokio::test]
    async fn a_line_that_is_full_is_not_made_to_wait() {
        let (_, depth) = run(Duration::from_micros(20), 20_000, 256);
        assert!(depth <= 16, "{depth}");
    }

    #[tokio::test]
    async fn the_depth_stays_within_its_bounds() {
        let (_, depth) = run(Duration::from_millis(50), 20_000, 24);
        assert_eq!(depth, 24);
        let mut one = Depth::new(8, 1);
        assert!(one.has_room(0) && !one.has_room(1));
        one.moved(1, true, Instant::now());
        assert!(!one.has_room(1));
    }

    #[tokio::test]
    async fn a_rate_that_something_else_limits_is_no_trial() {
        let mut depth = Depth::new(8, 64);
        let begun = Instant::now();
        for step in 0..10_000 {
            depth.moved(1 << 16, false, begun + Duration::from_millis(step));
        }
        assert_eq!(depth.now, 8);
    }
}
