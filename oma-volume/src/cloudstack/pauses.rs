use std::time::Duration;

/// Pauses that grow by half, up to a longest one.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pauses {
    next: Duration,
    longest: Duration,
}

impl Pauses {
    pub(super) fn new(first: Duration, longest: Duration) -> Self {
        Self { next: first.min(longest).max(Duration::from_millis(1)), longest }
    }

    pub(super) fn next_pause(&mut self) -> Duration {
        let pause = self.next;
        self.next = (pause + pause / 2).min(self.longest).max(pause);
        pause
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_grow_and_stay_bounded() {
        let mut pauses = Pauses::new(Duration::from_secs(2), Duration::from_secs(5));
        let seconds: Vec<_> = (0..5).map(|_| pauses.next_pause().as_secs_f32()).collect();
        assert_eq!(seconds, [2.0, 3.0, 4.5, 5.0, 5.0]);
    }

    #[test]
    fn none_is_nothing() {
        assert!(Pauses::new(Duration::ZERO, Duration::ZERO).next_pause() > Duration::ZERO);
    }
}
