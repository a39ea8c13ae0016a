use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use super::config::LimitConfig;
use crate::engine::copier::{Memory, Taken};
use crate::{ByteSize, Clock, Error, ErrorKind, Result, SystemClock};

/// What all copies together may take from one place.
#[derive(Debug)]
pub struct Limit {
    config: LimitConfig,
    clock: Arc<dyn Clock>,
    bytes: Option<Memory>,
    operations: Option<Arc<Semaphore>>,
    /// When everything that was let through has been paid for in time.
    paid: Mutex<Option<Instant>>,
}

/// The right to move one piece; what is bounded goes back when it is dropped.
#[derive(Debug)]
pub(in crate::engine) struct Admitted {
    _bytes: Option<Taken>,
    _operation: Option<OwnedSemaphorePermit>,
}

impl Limit {
    /// A limit that stands for itself, for [`copy`](crate::engine::copy).
    ///
    /// # Errors
    /// `Invalid` for a limit of zero and for hours that are none or overlap.
    pub fn new(config: &LimitConfig) -> Result<Self> {
        config.check().map_err(|reason| Error::new(ErrorKind::Invalid, "limit", "a copy").because(reason))?;
        Ok(Self::of(config, Arc::new(SystemClock)))
    }

    pub(super) fn of(config: &LimitConfig, clock: Arc<dyn Clock>) -> Self {
        let operations = config.operations.map(|count| usize::try_from(count).unwrap_or(usize::MAX));
        Self {
            bytes: config.bytes_in_flight.map(Memory::new),
            operations: operations.map(|count| Arc::new(Semaphore::new(count.min(Semaphore::MAX_PERMITS)))),
            config: config.clone(),
            clock,
            paid: Mutex::new(None),
        }
    }

    /// Waits until a piece may be moved, first come, first served.
    pub(in crate::engine) async fn enter(&self, bytes: u64) -> Admitted {
        let operation = match &self.operations {
            Some(operations) => {
                let permit = Arc::clone(operations).acquire_owned().await;
                Some(permit.expect("the semaphore is never closed"))
            }
            None => None,
        };
        let taken = match &self.bytes {
            Some(budget) => Some(budget.take(bytes).await),
            None => None,
        };
        if let Some(rate) = self.config.bandwidth_at(self.clock.now().hour()) {
            tokio::time::sleep_until(self.pay(bytes, rate)).await;
        }
        Admitted { _bytes: taken, _operation: operation }
    }

    /// When a piece may go: when all before it had its time.
    fn pay(&self, bytes: u64, rate: ByteSize) -> Instant {
        let nanos = u128::from(bytes) * 1_000_000_000 / u128::from(rate.bytes().max(1));
        let takes = Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
        let now = Instant::now();
        let mut paid = self.paid.lock().unwrap_or_else(PoisonError::into_inner);
        let begins = paid.map_or(now, |paid| paid.max(now));
        *paid = begins.checked_add(takes);
        begins
    }
}
