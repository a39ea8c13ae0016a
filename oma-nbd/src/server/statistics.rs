use std::time::Duration;

use oma_core::traits::ExportStatistics;

/// Ranges of a [`Latency`].
pub(super) const BUCKETS: usize = 32;

/// What went through an export since it was published, and what goes through it now.
#[derive(Clone, Debug, Default)]
pub struct ExportReport {
    /// All of it.
    pub total: ExportStatistics,
    /// How long requests took.
    pub latencies: Latencies,
    /// The connections that are there now.
    pub connections: Vec<ConnectionStatistics>,
}

/// What went through one connection.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConnectionStatistics {
    /// Who it is, from where, and how: for readers.
    pub client: String,
    /// How long it is there.
    pub age: Duration,
    /// Requests answered.
    pub requests: u64,
    /// Requests answered with an error.
    pub errors: u64,
    /// Bytes read.
    pub bytes_read: u64,
    /// Bytes written.
    pub bytes_written: u64,
}

/// How long requests took, from the moment that they were received as a whole to their reply.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Latencies {
    /// Reads.
    pub reads: Latency,
    /// Writes, zeroes, trims.
    pub changes: Latency,
    /// Flushes, questions for the block status and everything else.
    pub others: Latency,
}

impl Latencies {
    pub(super) fn add(&mut self, other: &Self) {
        self.reads.add(&other.reads);
        self.changes.add(&other.changes);
        self.others.add(&other.others);
    }
}

/// A histogram: how many requests took less than 1, 2, 4, 8 … microseconds and no less than half of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Latency(pub(super) [u64; BUCKETS]);

impl Latency {
    /// The range of a duration; the last one has all that took longer.
    pub(super) fn bucket(took: Duration) -> usize {
        let bits = u128::BITS - took.as_micros().leading_zeros();
        usize::try_from(bits).unwrap_or(BUCKETS).min(BUCKETS - 1)
    }

    /// How many requests there were.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.0.iter().sum()
    }

    /// Each range's upper end, and how many requests were in it; ranges without requests are left out.
    pub fn ranges(&self) -> impl Iterator<Item = (Duration, u64)> {
        let ends = (0..BUCKETS).map(|at| Duration::from_micros(1 << at));
        ends.zip(self.0).filter(|(_, count)| *count > 0)
    }

    /// What at least this share of the requests, 0 to 1, stayed below; `None` without requests.
    #[must_use]
    pub fn quantile(&self, share: f64) -> Option<Duration> {
        let all: f64 = self.ranges().map(|(_, count)| precise(count)).sum();
        let mut below = 0.0;
        self.ranges().find_map(|(end, count)| {
            below += precise(count);
            (below >= share.clamp(0.0, 1.0) * all).then_some(end)
        })
    }

    fn add(&mut self, other: &Self) {
        self.0.iter_mut().zip(other.0).for_each(|(sum, more)| *sum += more);
    }
}

/// A count as a floating-point number: exact up to 2^53, close enough for a share beyond.
fn precise(count: u64) -> f64 {
    let [high, low] = [count >> 32, count & 0xffff_ffff].map(|half| u32::try_from(half).unwrap_or(u32::MAX));
    f64::from(high) * 4_294_967_296.0 + f64::from(low)
}
