//! What goes through an export, counted where it goes through.
//!
//! Each connection has a meter of its own, which nobody else writes to: no request waits for another core's cache line.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use oma_core::traits::ExportStatistics;

use super::statistics::{BUCKETS, ConnectionStatistics, ExportReport, Latencies, Latency};
use crate::protocol::{ExtendedRequest, NBD_CMD_READ, NBD_CMD_TRIM, NBD_CMD_WRITE, NBD_CMD_WRITE_ZEROES};

/// A number that one thread adds to and others read.
#[derive(Debug, Default)]
struct Count(AtomicU64);

impl Count {
    fn add(&self, amount: u64) {
        self.0.store(self.0.load(Ordering::Relaxed) + amount, Ordering::Relaxed);
    }

    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// What goes through one connection. Only the connection itself adds to it.
#[derive(Debug)]
pub(super) struct Meter {
    client: OnceLock<String>,
    since: Instant,
    requests: Count,
    errors: Count,
    bytes_read: Count,
    bytes_written: Count,
    /// Of reads, of changes, of others.
    latencies: [[Count; BUCKETS]; 3],
}

impl Meter {
    fn new() -> Self {
        Self {
            client: OnceLock::new(),
            since: Instant::now(),
            requests: Count::default(),
            errors: Count::default(),
            bytes_read: Count::default(),
            bytes_written: Count::default(),
            latencies: Default::default(),
        }
    }

    /// Says who the client is.
    pub(super) fn identify(&self, client: String) {
        // Said once, when the handshake has ended.
        let _ = self.client.set(client);
    }

    /// Counts a request that was answered.
    pub(super) fn count(&self, request: &ExtendedRequest, success: bool, took: Duration) {
        self.requests.add(1);
        let sort = match request.command {
            NBD_CMD_READ => 0,
            NBD_CMD_WRITE | NBD_CMD_WRITE_ZEROES | NBD_CMD_TRIM => 1,
            _ => 2,
        };
        self.latencies[sort][Latency::bucket(took)].add(1);
        match (success, request.command) {
            (false, _) => self.errors.add(1),
            (true, NBD_CMD_READ) => self.bytes_read.add(request.length),
            (true, NBD_CMD_WRITE) => self.bytes_written.add(request.length),
            (true, _) => {}
        }
    }

    fn statistics(&self) -> ConnectionStatistics {
        ConnectionStatistics {
            client: self.client.get().cloned().unwrap_or_default(),
            age: self.since.elapsed(),
            requests: self.requests.get(),
            errors: self.errors.get(),
            bytes_read: self.bytes_read.get(),
            bytes_written: self.bytes_written.get(),
        }
    }

    fn latencies(&self) -> Latencies {
        let [reads, changes, others] = &self.latencies;
        let [reads, changes, others] =
            [reads, changes, others].map(|counts| Latency(std::array::from_fn(|at| counts[at].get())));
        Latencies { reads, changes, others }
    }
}

/// The meters of an export: of the connections that are there, and the sums of those that are gone.
#[derive(Debug, Default)]
pub(super) struct Meters {
    sums: Mutex<Sums>,
    /// How many connections are there, for whoever may not wait.
    connections: AtomicUsize,
}

#[derive(Debug, Default)]
struct Sums {
    live: Vec<Arc<Meter>>,
    past: ExportStatistics,
    past_latencies: Latencies,
}

impl Meters {
    /// A meter for a new connection.
    pub(super) fn start(&self) -> Arc<Meter> {
        let meter = Arc::new(Meter::new());
        self.sums().live.push(meter.clone());
        self.connections.fetch_add(1, Ordering::Relaxed);
        meter
    }

    /// Keeps what a connection did that is gone.
    pub(super) fn end(&self, meter: &Arc<Meter>) {
        let mut sums = self.sums();
        sums.live.retain(|other| !Arc::ptr_eq(other, meter));
        self.connections.fetch_sub(1, Ordering::Relaxed);
        add(&mut sums.past, &meter.statistics());
        sums.past_latencies.add(&meter.latencies());
    }

    pub(super) fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    pub(super) fn statistics(&self) -> ExportStatistics {
        self.report().total
    }

    pub(super) fn report(&self) -> ExportReport {
        let sums = self.sums();
        let connections: Vec<_> = sums.live.iter().map(|meter| meter.statistics()).collect();
        let (mut total, mut latencies) = (sums.past, sums.past_latencies.clone());
        connections.iter().for_each(|connection| add(&mut total, connection));
        sums.live.iter().for_each(|meter| latencies.add(&meter.latencies()));
        total.connections = u64::try_from(connections.len()).unwrap_or(u64::MAX);
        ExportReport { total, latencies, connections }
    }

    fn sums(&self) -> MutexGuard<'_, Sums> {
        // Worst case after a panic is a connection counted twice.
        self.sums.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn add(total: &mut ExportStatistics, one: &ConnectionStatistics) {
    total.requests += one.requests;
    total.errors += one.errors;
    total.bytes_read += one.bytes_read;
    total.bytes_written += one.bytes_written;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(command: u16, length: u64) -> ExtendedRequest {
        ExtendedRequest { flags: 0, command, cookie: 0, offset: 0, length }
    }

    #[test]
    fn what_a_connection_did_outlives_it() {
        let meters = Meters::default();
        let (first, second) = (meters.start(), meters.start());
        first.identify("first".to_owned());
        first.count(&request(NBD_CMD_READ, 10), true, Duration::from_micros(3));
        second.count(&request(NBD_CMD_WRITE, 20), true, Duration::from_micros(100));
        second.count(&request(NBD_CMD_WRITE, 40), false, Duration::from_secs(2));
        meters.end(&second);
        let report = meters.report();
        assert_eq!(
            (report.total.connections, report.total.requests, report.total.errors),
            (1, 3, 1),
            "{report:?}"
        );
        assert_eq!((report.total.bytes_read, report.total.bytes_written), (10, 20));
        assert_eq!((report.connections.len(), report.connections[0].client.as_str()), (1, "first"));
        assert_eq!((report.latencies.reads.count(), report.latencies.changes.count()), (1, 2));
        assert_eq!(report.latencies.changes.quantile(0.5), Some(Duration::from_micros(128)));
        assert_eq!(report.latencies.changes.quantile(1.0), Some(Duration::from_micros(1 << 21)));
    }
}
