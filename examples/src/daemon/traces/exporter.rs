//! An exporter that tells once in a while that it cannot send.

use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{SpanData, SpanExporter};

use super::sender::Cause;

/// What stays wrong is told so often.
const EVERY: Duration = Duration::from_mins(10);

/// Another exporter, whose failures are logged.
pub(super) struct Telling<E> {
    inner: E,
    cause: Cause,
    outage: Mutex<Outage>,
}

/// Spans that were not sent.
#[derive(Debug, Default)]
struct Outage {
    told: Option<Instant>,
    /// Whether it was told, and that it is over was not.
    is_open: bool,
    lost: usize,
}

impl Outage {
    /// So many spans are lost; how many altogether, when that is to be told.
    fn lose(&mut self, spans: usize, now: Instant) -> Option<usize> {
        self.lost += spans;
        if self.told.is_some_and(|told| now.duration_since(told) < EVERY) {
            return None;
        }
        (self.told, self.is_open) = (Some(now), true);
        Some(std::mem::take(&mut self.lost))
    }

    /// Whether it is to be told that spans are sent again.
    const fn end(&mut self) -> bool {
        std::mem::replace(&mut self.is_open, false)
    }
}

impl<E> Telling<E> {
    pub(super) fn new(inner: E, cause: Cause) -> Self {
        Self { inner, cause, outage: Mutex::default() }
    }

    fn outage(&self) -> MutexGuard<'_, Outage> {
        self.outage.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self, spans: usize, result: &OTelSdkResult) {
        let cause = self.cause.take();
        match result {
            Ok(()) => {
                if self.outage().end() {
                    tracing::info!("traces are sent again");
                }
            }
            Err(error) => {
                let lost = self.outage().lose(spans, Instant::now());
                let Some(lost) = lost else { return };
                let error = cause.unwrap_or_else(|| error.to_string());
                tracing::warn!(lost, error, "traces cannot be sent; nothing waits for them");
            }
        }
    }
}

/// Headers of the exporter may hold a secret.
impl<E> fmt::Debug for Telling<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Telling").field("outage", &self.outage).finish_non_exhaustive()
    }
}

impl<E: SpanExporter> SpanExporter for Telling<E> {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let spans = batch.len();
        let result = self.inner.export(batch).await;
        self.tell(spans, &result);
        result
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.inner.shutdown_with_timeout(timeout)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.inner.force_flush()
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.inner.set_resource(resource);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outage_is_told_once_in_a_while_with_all_that_was_lost() {
        let (mut outage, begun) = (Outage::default(), Instant::now());
        assert!(!outage.end());
        assert_eq!(outage.lose(3, begun), Some(3));
        assert_eq!(outage.lose(4, begun + Duration::from_secs(5)), None);
        assert_eq!(outage.lose(5, begun + EVERY), Some(9));
        assert!(outage.end());
        assert!(!outage.end());
    }

    #[test]
    fn a_collector_that_comes_and_goes_fills_no_log() {
        let (mut outage, begun) = (Outage::default(), Instant::now());
        assert_eq!(outage.lose(1, begun), Some(1));
        assert!(outage.end());
        assert_eq!(outage.lose(1, begun + Duration::from_secs(5)), None);
        assert!(!outage.end());
    }
}
