//! An appliance that is begun anew meanwhile is waited for.

use std::time::Duration;

use oma_core::{ErrorKind, Result, Retry};
use tokio::time::Instant;

/// How long is waited before it is asked again.
pub(super) const PACE: Duration = Duration::from_millis(500);
/// An appliance that is away for so long is not waited for.
const PATIENCE: Duration = Duration::from_mins(1);

/// Since when nobody has answered.
#[derive(Debug, Default)]
pub(super) struct Away(Option<Instant>);

impl Away {
    /// Nobody has answered: whether it is to be asked again.
    pub(super) fn is_borne(&mut self) -> bool {
        self.0.get_or_insert_with(Instant::now).elapsed() < PATIENCE
    }

    /// Somebody has answered.
    pub(super) const fn is_back(&mut self) {
        self.0 = None;
    }
}

/// Asks for what is the same a second time, until it is answered.
pub(super) async fn patiently<T>(mut ask: impl AsyncFnMut() -> Result<T>) -> Result<T> {
    let mut away = Away::default();
    loop {
        match ask().await {
            Err(error)
                if error.kind() == ErrorKind::Unavailable
                    && error.retry() == Retry::Later
                    && away.is_borne() => {}
            answered => return answered,
        }
        tokio::time::sleep(PACE).await;
    }
}

#[cfg(test)]
mod tests {
    use oma_core::Error;

    use super::*;

    fn away() -> Error {
        Error::new(ErrorKind::Unavailable, "ask", "an appliance").with_retry(Retry::Later)
    }

    #[tokio::test(start_paused = true)]
    async fn an_appliance_that_is_away_is_asked_until_it_is_back_and_no_longer_than_a_minute() {
        let mut asked = 0;
        let back = patiently(async || {
            asked += 1;
            if asked < 100 { Err(away()) } else { Ok(asked) }
        });
        assert_eq!(back.await.unwrap(), 100);
        let begun = Instant::now();
        let gone = patiently::<()>(async || Err(away())).await.unwrap_err();
        assert_eq!((gone.kind(), begun.elapsed()), (ErrorKind::Unavailable, Duration::from_mins(1)));
    }

    #[tokio::test(start_paused = true)]
    async fn it_is_time_that_counts_however_long_it_takes_to_find_nobody() {
        let takes = Duration::from_secs(10);
        let begun = Instant::now();
        let gone = patiently::<()>(async || {
            tokio::time::sleep(takes).await;
            Err(away())
        });
        assert_eq!(gone.await.unwrap_err().kind(), ErrorKind::Unavailable);
        // From the first that was not answered on, and what was under way then.
        let waited = begun.elapsed();
        assert!(waited >= takes + PATIENCE && waited < takes + PATIENCE + takes + 2 * PACE, "{waited:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_refused_is_asked_once() {
        let refusals = [away().with_retry(Retry::Never), Error::new(ErrorKind::Conflict, "ask", "it")];
        for refused in refusals {
            let mut left = Some(refused);
            let error = patiently::<()>(async || Err(left.take().unwrap())).await.unwrap_err();
            assert_ne!(error.retry(), Retry::Later);
        }
    }
}
