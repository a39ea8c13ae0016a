//! Which way parts of a file go to the client: straight from the page cache, or read first.
//!
//! Straight costs the server least. But then the client alone fetches the data from memory, and many clients have buffers to
//! which their processor copies several times slower from there (see [`oma_core::page_aligned`]). A client with many
//! connections has many threads for that; one with a single connection is waited for. For such a client both ways are tried
//! now and then, and the faster one is taken; when they are alike, the cheaper.

use std::time::{Duration, Instant};

/// Bytes after which the time is looked at.
const WINDOW: usize = 16 << 20;
/// Windows by which each way is judged: the shortest, because others may have been held up by anything.
const TRIES: u32 = 2;
/// Windows by the better way until both are tried again.
const STAY: u32 = 32;
/// How much faster the dearer way must be, in percent.
const WORTH: u32 = 125;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    Straight,
    Copied,
}

/// What is known of both ways.
#[derive(Debug)]
pub(super) struct Route {
    way: Way,
    /// Windows since both began to be tried.
    windows: u32,
    straight: Duration,
    copied: Duration,
    bytes: usize,
    begun: Option<Instant>,
    /// Whether the client was waited for in this window.
    waited: bool,
}

impl Route {
    pub(super) const fn new() -> Self {
        Self {
            way: Way::Straight,
            windows: 0,
            straight: Duration::MAX,
            copied: Duration::MAX,
            bytes: 0,
            begun: None,
            waited: false,
        }
    }

    pub(super) const fn way(&self) -> Way {
        self.way
    }

    /// Notes that the client takes nothing just now.
    pub(super) const fn wait(&mut self) {
        self.waited = true;
    }

    /// Notes what was sent to a client, which has no other connection when it is `alone`.
    pub(super) fn sent(&mut self, bytes: usize, alone: bool) {
        self.bytes += bytes;
        if self.begun.is_none() || self.bytes >= WINDOW {
            self.look(Instant::now(), alone);
        }
    }

    /// Judges the window that ends, and begins the next.
    fn look(&mut self, now: Instant, alone: bool) {
        let Some(begun) = self.begun.replace(now) else { return };
        let (took, waited) = (now - begun, std::mem::take(&mut self.waited));
        self.bytes = 0;
        let is_slower = alone && (waited || self.way == Way::Copied);
        if !is_slower {
            *self = Self { begun: self.begun, ..Self::new() };
            return;
        }
        let shortest = match self.way {
            Way::Straight => &mut self.straight,
            Way::Copied => &mut self.copied,
        };
        *shortest = took.min(*shortest);
        self.windows += 1;
        if self.windows == TRIES {
            self.way = Way::Copied;
        } else if self.windows == 2 * TRIES {
            let copied = self.copied.saturating_mul(WORTH) / 100;
            self.way = if copied < self.straight { Way::Copied } else { Way::Straight };
        } else if self.windows >= 2 * TRIES + STAY {
            *self = Self { begun: self.begun, ..Self::new() };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sends windows, each as long as its way takes; the ways taken.
    fn ways(windows: u32, alone: bool, waited: bool, straight: u64, copied: u64) -> Vec<Way> {
        let (mut route, mut now) = (Route::new(), Instant::now());
        route.look(now, alone);
        let window = |_| {
            let way = route.way();
            route.waited = waited;
            now += Duration::from_millis(if way == Way::Straight { straight } else { copied });
            route.look(now, alone);
            way
        };
        (0..windows).map(window).collect()
    }

    fn copied(ways: &[Way]) -> usize {
        ways.iter().filter(|way| **way == Way::Copied).count()
    }

    #[test]
    fn the_faster_way_is_taken_and_the_cheaper_when_they_are_alike() {
        assert_eq!(copied(&ways(36, true, true, 20, 10)), 34, "two tries go straight");
        assert_eq!(copied(&ways(36, true, true, 11, 10)), 2, "not worth it");
        assert_eq!(copied(&ways(36, true, true, 10, 20)), 2);
        assert_eq!(copied(&ways(360, true, true, 10, 20)), 20, "tried again now and then");
    }

    #[test]
    fn nothing_is_tried_on_a_client_with_several_connections_or_one_that_keeps_up() {
        assert_eq!(copied(&ways(200, false, true, 20, 10)), 0);
        assert_eq!(copied(&ways(200, true, false, 20, 10)), 0);
    }

    #[test]
    fn a_window_ends_with_its_bytes() {
        let mut route = Route::new();
        route.sent(1, true);
        assert!(route.begun.is_some() && route.windows == 0);
        route.wait();
        route.sent(WINDOW / 2, true);
        assert_eq!(route.windows, 0);
        route.sent(WINDOW / 2, true);
        assert_eq!((route.windows, route.bytes), (1, 0));
    }
}
