use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

/// How much of the server an export may take. The default is all of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExportLimits {
    /// Connections at once; who comes then is told so, and may come again.
    pub connections: usize,
    /// Bytes read, written and hashed in a second, by all its connections together. A tenth of a second's worth may go at once.
    pub bytes_per_second: Option<u64>,
}

impl Default for ExportLimits {
    fn default() -> Self {
        Self { connections: usize::MAX, bytes_per_second: None }
    }
}

/// What may go at once.
const BURST: Duration = Duration::from_millis(100);

/// Keeps a rate: the moment at which all that was moved so far would have been moved at that rate.
///
/// It is the generic cell rate algorithm, "Traffic Control and Congestion Control in B-ISDN", ITU-T I.371, annex A.
#[derive(Debug, Default)]
pub(super) struct Pace {
    begin: OnceLock<Instant>,
    /// Nanoseconds since `begin`.
    due: AtomicU64,
}

impl Pace {
    /// Notes that so many bytes are moved; until when to wait before more.
    pub(super) fn spend(&self, bytes: u64, rate: u64) -> Option<Instant> {
        let begin = *self.begin.get_or_init(Instant::now);
        let now = nanos(begin.elapsed());
        let cost = u128::from(bytes) * 1_000_000_000 / u128::from(rate.max(1));
        let cost = u64::try_from(cost).unwrap_or(u64::MAX);
        let mut due = 0;
        // Always answers: the closure never refuses.
        let _ = self.due.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |last| {
            due = last.max(now).saturating_add(cost);
            Some(due)
        });
        let wait = due.checked_sub(now.saturating_add(nanos(BURST))).filter(|wait| *wait > 0)?;
        Some(begin + Duration::from_nanos(now.saturating_add(wait).min(nanos(Duration::from_secs(1 << 31)))))
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_rate_is_kept_after_what_may_go_at_once() {
        let (pace, begin, mut moved) = (Pace::default(), Instant::now(), 0);
        while begin.elapsed() < Duration::from_secs(10) {
            moved += 1000;
            if let Some(until) = pace.spend(1000, 100_000) {
                tokio::time::sleep_until(until).await;
            }
        }
        assert!((1_000_000..=1_020_000).contains(&moved), "{moved}");
        assert_eq!(pace.spend(0, 100_000).map(|until| until > Instant::now()), None);
    }
}
