//! The service looks after itself: what was left is taken up, and what is due begins, without anybody asking.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::time::Duration;

use tokio::time::Instant;

use super::service::VolumeService;
use crate::Result;

/// The least time between two looks: more often would help nobody.
const LEAST: Duration = Duration::from_secs(1);
/// How far the clock of a store may be behind ours before a deletion is asked for too early.
const LAG: Duration = Duration::from_secs(1);
/// Over how long the workers of one store spread what becomes due at one moment.
const SPREAD: Duration = Duration::from_secs(4);

impl VolumeService {
    /// From now on [`VolumeService::recover`] is called every so often, at least a second apart, and deletions begin within five
    /// seconds after they are due (with the next such call, where the store's clock is more than a second behind ours), until
    /// [`VolumeService::shutdown`]. A store that does not answer is logged and asked again, after as long as a lease lasts if that is
    /// sooner. To be called once, after the start's own `recover`, within a Tokio runtime; a second call does nothing. The first time
    /// comes after half to all of `every`, which differs by worker: many appliances that are started together do not ask their
    /// database together. A minute is a good choice.
    pub fn upkeep(&self, every: Duration) {
        if self.is_first_upkeep() && self.begins(self.worker()).is_ok() {
            let this = self.clone();
            self.tasks().spawn(async move { this.keep_up(every.max(LEAST)).await });
        }
    }

    async fn keep_up(&self, every: Duration) {
        let mut next = Instant::now() + first_pause(every, self.share());
        while self.rest_until(next).await {
            let begun = match Instant::now() < next {
                true => self.begin_due_deletions().await.map(drop),
                false => {
                    let recovered = self.recover().await;
                    let pause = recovered.as_ref().map_or(every.min(self.config().lease), |_| every);
                    next = Instant::now() + pause;
                    recovered.map(|recovered| recovered.warn())
                }
            };
            if let Err(error) = begun {
                tracing::warn!(error = %error.chain(), "volumes could not be looked after; tried again later");
            }
        }
    }

    /// Waits until then, or until a deletion is due; `false` once the service is shut down.
    async fn rest_until(&self, next: Instant) -> bool {
        loop {
            let condemned = self.condemned().notified();
            let due = match self.next_due(next.duration_since(Instant::now())).await {
                Ok(due) => due.map(|due| due + LAG + SPREAD.mul_f64(self.share())),
                Err(error) => {
                    tracing::debug!(error = %error.chain(), "nobody knows what is due");
                    Some(self.config().lease)
                }
            };
            let wake = due.map_or(next, |due| next.min(Instant::now() + due));
            tokio::select! {
                biased;
                () = self.stop().cancelled() => return false,
                () = tokio::time::sleep_until(wake) => return true,
                () = condemned => {}
            }
        }
    }

    /// How long until the next deletion is due, if it is within this time. One that was due before has been tried, and is again with
    /// everything else.
    async fn next_due(&self, within: Duration) -> Result<Option<Duration>> {
        let now = self.now();
        let pending = self.due_by(now.after(within)).await?;
        let due = pending.iter().filter_map(|pending| pending.due_at).filter(|due_at| *due_at > now).min();
        Ok(due.map(|due_at| Duration::from_millis(due_at.as_millis().abs_diff(now.as_millis()))))
    }

    /// A number from 0 to 1 that is this worker's.
    fn share(&self) -> f64 {
        let mut hasher = DefaultHasher::new();
        self.worker().hash(&mut hasher);
        f64::from(u32::try_from(hasher.finish() >> 32).unwrap_or(u32::MAX)) / f64::from(u32::MAX)
    }
}

fn first_pause(every: Duration, share: f64) -> Duration {
    every / 2 + (every / 2).mul_f64(share)
}
